"""Between Ray Tune and the trial_store: what each result, end or failure of a trial means for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imagegen_dist.presets.searches import Goal
from imagegen_dist.sweep.trial_store import COMPLETE, CUT, FAILED, RUNNING, STOPPED, WAITING, TrialStore


class TrialRecorder:
    """Keeps the trial store while trials run. clock: seconds, monotonic."""

    def __init__(
        self, trial_store: TrialStore, goals: Sequence[Goal], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._trial_store = trial_store
        self._goals = goals
        self._clock = clock
        self._since: dict[str, float] = {}
        self.misused = ""
        """What was wrong with the command, where only a trial could find it."""
        self.ending = False
        """Whether the sweep is being ended: trials that end now are cut short."""

    def started(self, run: str) -> None:
        """The trial has a process."""
        self._since[run] = self._clock()
        if not self._trial_store[run].is_over:
            self._change(run, state=RUNNING)

    def reported(self, run: str, result: Mapping[str, Any]) -> None:
        """The trial has reported figures, how far it is, or why it cannot go on."""
        if self._trial_store[run].is_over:
            return
        if "misused" in result:
            self.misused = self.misused or str(result["misused"])
            self._change(run, state=FAILED, note=str(result["misused"]))
            return
        changes: dict[str, Any] = {}
        seen = result.get("images", result.get("seen"))
        if seen is not None:
            changes["images"] = max(int(seen), self._trial_store[run].images)
        figures = {goal.metric: float(result[goal.metric]) for goal in self._goals if goal.metric in result}
        if figures:
            changes["figures"] = figures
        if "state" in result:
            changes |= {"state": result["state"], "note": str(result.get("note", ""))}
        self._change(run, **changes)

    def ended(self, run: str) -> None:
        """The trial has no process any more, by its own will or Tune's."""
        if run in self._trial_store and not self._trial_store[run].is_over:
            self._change(run, state=CUT if self.ending else STOPPED)

    def died(self, run: str, why: str) -> None:
        """The trial was lost more often than it is started again."""
        if run in self._trial_store and not self._trial_store[run].is_over:
            self._change(run, state=FAILED, note=why)

    def lost(self, run: str) -> None:
        """The trial's process was lost; it is started again."""
        self._trial_store.change(run, state=WAITING)

    def gpu_seconds(self, gpus: float) -> float:
        """Time of GPUs that all trials have taken, at so many of them each."""
        return gpus * sum(trial.seconds for trial in self._trial_store.trials)

    @property
    def complete(self) -> int:
        """Trials that ran to their end."""
        return sum(trial.state == COMPLETE for trial in self._trial_store.trials)

    def _change(self, run: str, **changes: Any) -> None:
        now = self._clock()
        seconds = self._trial_store[run].seconds + now - self._since.get(run, now)
        self._since[run] = now
        self._trial_store.change(run, seconds=seconds, **changes)
