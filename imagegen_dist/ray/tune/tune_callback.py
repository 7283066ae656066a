"""Keeps the trial store while trials run: what each start, result and end of a trial in Ray Tune means for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray.tune
from ray.tune.experiment import Trial as TuneTrial

from imagegen_dist.sweep.trial import MISUSED
from imagegen_dist.sweep.trial_store import CUT, FAILED, RUNNING, STOPPED, WAITING, Trial, TrialStore, decode_trial


class Stateless:
    """A part of Ray Tune that is pickled without its state: a sweep continues from its trial store."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TrialRecorder(Stateless, ray.tune.Callback):
    """Stores what becomes of trials. clock: monotonic seconds."""

    def __init__(self, store: TrialStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._since: dict[str, float] = {}
        self.active = 0
        """The number of trials that run."""
        self.misused = ""
        """A mistake in the command that only a trial could find."""
        self.ending = False
        """True while the sweep is being ended: trials that end now are cut short."""

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        self.active = sum(trial.status == TuneTrial.RUNNING for trial in trials)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.started(run_of(trial))

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if "trial" in result:
            self.reported(decode_trial(result["trial"]))

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.ended(run_of(trial))

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._store.change(run_of(trial), state=WAITING)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        lines = str(trial.get_error() or "its process was lost").strip().splitlines()
        self.ended(run_of(trial), FAILED, lines[-1])

    def started(self, run: str) -> None:
        """The trial has a process."""
        self._since[run] = self._clock()
        if not self._store[run].is_over:
            self._change(run, state=RUNNING)

    def reported(self, trial: Trial) -> None:
        """The trial has reported metrics, or why it ends."""
        if self._store[trial.run].is_over:
            return
        state = trial.state
        if state == MISUSED:
            self.misused, state = self.misused or trial.note, FAILED
        self._change(trial.run, trial.images, figures=trial.figures, state=state, note=trial.note)

    def progressed(self, run: str, images: int) -> None:
        """The trial has seen that many images."""
        if not self._store[run].is_over:
            self._change(run, images)

    def ended(self, run: str, state: str = "", note: str = "") -> None:
        """The trial has no process any more; without a state it was stopped by the scheduler, or cut short."""
        if run in self._store and not self._store[run].is_over:
            self._change(run, state=state or (CUT if self.ending else STOPPED), note=note)

    def gpu_seconds(self, gpus: float) -> float:
        """GPU seconds that all trials have taken, with that many GPUs each."""
        return gpus * sum(trial.seconds for trial in self._store.trials)

    def _change(self, run: str, images: int = 0, **changes: Any) -> None:
        """Change a trial, and count the time since its last change. images: ignored if it has seen more."""
        now, trial = self._clock(), self._store[run]
        seconds = trial.seconds + now - self._since.get(run, now)
        self._since[run] = now
        self._store.change(run, seconds=seconds, images=max(images, trial.images), **changes)


def run_of(trial: TuneTrial) -> str:
    """The name of the run of a trial of Ray Tune's."""
    return decode_trial(trial.config["trial"]).run
