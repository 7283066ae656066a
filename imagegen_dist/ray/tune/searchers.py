"""Searchers that choose the values of each trial, for Ray Tune: by the trial's number, or by Optuna's TPE."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

from ray.tune.search import Searcher

from imagegen_dist.ray.tune.trial import tune_config
from imagegen_dist.sweep.capacity import Capacity
from imagegen_dist.sweep.optuna_study import build_study, distributions, require_optuna
from imagegen_dist.sweep.plan import SweepPlan
from imagegen_dist.sweep.space import Range
from imagegen_dist.sweep.trial_store import COMPLETE, STOPPED, Trial, TrialStore, losses_of


class Points(Searcher):
    """Suggests trials by number, with the values that the space has there; a stored trial with its stored values.

    Trials that are over are skipped, unless the scheduler compares others with them (ASHA, median stopping): then they
    are suggested again, and report what they had. The searcher has no state beside the trial store.
    """

    def __init__(self, plan: SweepPlan, store: TrialStore, capacity: Capacity | None = None) -> None:
        super().__init__(metric=plan.goals[0].metric, mode=plan.goals[0].mode)
        self._plan = plan
        self._store = store
        self._capacity = capacity or Capacity()
        self._next = 0
        self.closed = False
        """True while the sweep is being ended: no trial is started any more."""
        self.is_awaited: Callable[[], bool] = lambda: False
        """True if paused trials may continue: Ray Tune discards their processes once its searcher is done."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial."""
        if self.closed:
            return Searcher.FINISHED
        if not self._capacity.has_room():
            return None
        while self._next < self._plan.trials:
            number, self._next = self._next, self._next + 1
            trial = self._store.latest(number)
            if trial is None:
                trial = Trial(number, self._values(number))
                self._store.put(trial)
            elif trial.is_over and self._plan.scheduler not in ("asha", "median"):
                continue
            self._capacity.acquire(trial_id)
            self._started(trial, trial_id)
            return tune_config(trial, replay=trial.images > 0)
        return None if self.is_awaited() else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._capacity.release(trial_id)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the trial store has everything."""

    def _values(self, number: int) -> dict[str, Any]:
        return self._plan.point(number)

    def _started(self, trial: Trial, trial_id: str) -> None:
        """Note a trial that is suggested."""


class TreeParzen(Points):
    """Optuna's TPE (arXiv:2304.11127), for one metric or several. Raises UsageError if Optuna is not installed.

    A trial's values are a function of the plan's seed, the trial's number, and what is known of the earlier trials when
    it starts. No other state exists, so a resumed sweep suggests what an undisturbed one would.
    """

    def __init__(self, plan: SweepPlan, store: TrialStore, capacity: Capacity | None = None) -> None:
        super().__init__(plan, store, capacity)
        require_optuna()
        self._distributions = distributions(plan.space)
        self._numbers: dict[str, int] = {}
        self._losses: dict[int, tuple[float, ...]] = {}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note the trial's losses: Ray Tune tells the searcher before the trial store."""
        super().on_trial_complete(trial_id, result, error)
        number = self._numbers.pop(trial_id, None)
        if number is not None:
            self._losses[number] = (math.inf,) if error else losses_of(result or {}, self._plan.goals)

    def _values(self, number: int) -> dict[str, Any]:
        """Ask a study of all trials so far, with random numbers that belong to this trial alone."""
        known = [(trial.values, self._losses_of(trial)) for trial in self._store.trials]
        seed = Random(f"{self._plan.seed}/tpe/{number}").getrandbits(32)
        study = build_study(self._distributions, known, len(self._plan.goals), seed)
        values = study.ask(self._distributions).params
        domains = {dimension.path: dimension.domain for dimension in self._plan.space.dimensions}
        return {
            path: domain.rounded(value) if isinstance(domain := domains[path], Range) else value
            for path, value in values.items()
        }

    def _started(self, trial: Trial, trial_id: str) -> None:
        if not trial.is_over:
            self._numbers[trial_id] = trial.number

    def _losses_of(self, trial: Trial) -> tuple[float, ...] | None:
        """A trial's losses, infinite if it failed; None while it runs."""
        if trial.number in self._losses:
            return self._losses[trial.number]
        if not trial.is_over:
            return None
        return trial.score(self._plan.goals) if trial.state in (COMPLETE, STOPPED) else (math.inf,)


def build_searcher(plan: SweepPlan, store: TrialStore, capacity: Capacity | None = None) -> Points:
    """The plan's searcher."""
    return (TreeParzen if plan.searcher == "tpe" else Points)(plan, store, capacity)
