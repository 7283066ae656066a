"""Who chooses the values of each trial, for Ray Tune: by number, or Optuna's TPE."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from ray.tune.search import Searcher

from imagegen_dist.errors import UsageError
from imagegen_dist.extras import install_hint
from imagegen_dist.presets.searches import Goal
from imagegen_dist.presets.space import Choice, Range, Space
from imagegen_dist.sweep.crowd import Crowd
from imagegen_dist.sweep.plan import SweepPlan
from imagegen_dist.sweep.trial_store import COMPLETE, STOPPED, Trial, TrialStore


class Points(Searcher):
    """Trials by their numbers: what the space has there. Those that are over are left out, unless they are compared.

    A trial is suggested with its values in the trial store; one changed by a population, as its newest generation.
    A sweep continues without any state of Tune's own.
    compared: whether trials that are over are suggested again, to report what they had, because the scheduler compares
    others with them.
    """

    def __init__(self, plan: SweepPlan, trial_store: TrialStore, compared: bool) -> None:
        super().__init__(metric=plan.goals[0].metric, mode=plan.goals[0].mode)
        self._plan = plan
        self._trial_store = trial_store
        self._compared = compared
        self._next = 0
        self.closed = False
        """Whether no trial is begun any more: the sweep is being ended."""
        self.has_room: Callable[[], bool] = lambda: True
        """Whether another trial may run now, where the scheduler limits that."""
        self.crowd: Crowd | None = None
        """The trials that have begun, of which there may be only so many."""
        self.is_awaited: Callable[[], bool] = lambda: False
        """Whether trials that wait may still go on, where the scheduler lets them wait.

        Ray Tune keeps no process for one that waits once the search is over.
        """

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles its searcher, which nobody reads."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial: the name of its run and what it was given."""
        if self.closed:
            return Searcher.FINISHED
        if not self.has_room() or (self.crowd is not None and not self.crowd.has_room()):
            return None
        while self._next < self._plan.trials:
            number, self._next = self._next, self._next + 1
            trial = self._trial_store.latest(number)
            if trial is None:
                trial = Trial(number, self._values(number, trial_id))
                self._trial_store.put(trial)
            elif trial.is_over and not self._compared:
                continue
            else:
                self._goes_on(trial, trial_id)
            if self.crowd is not None:
                self.crowd.began(trial_id)
            return tune_config(trial, replay=trial.images > 0)
        return None if self.is_awaited() else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Values do not follow from results here."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the trial store has it all."""

    def _values(self, number: int, trial_id: str) -> dict[str, Any]:
        return self._plan.point(number)

    def _goes_on(self, trial: Trial, trial_id: str) -> None:
        """A trial with known values is suggested again."""


class TreeParzen(Points):
    """Optuna's TPE (arXiv:2304.11127), for one figure or several at once. Raises UsageError where there is no Optuna.

    A trial's values are a function of the plan's seed, the trial's number and what is known of the trials before it at
    that moment. No other state exists, so a sweep that is resumed suggests what it would have suggested undisturbed.
    """

    def __init__(self, plan: SweepPlan, trial_store: TrialStore, compared: bool) -> None:
        super().__init__(plan, trial_store, compared)
        _optuna()
        self._distributions = distributions(plan.space)
        self._numbers: dict[str, int] = {}
        self._losses: dict[int, tuple[float, ...]] = {}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note the trial's losses, which Ray Tune tells the searcher before it tells the trial_store."""
        number = self._numbers.pop(trial_id, None)
        if number is not None:
            self._losses[number] = (math.inf,) if error else losses_of(result or {}, self._plan.goals)

    def _values(self, number: int, trial_id: str) -> dict[str, Any]:
        self._numbers[trial_id] = number
        asked = self._study(number).ask(self._distributions)
        return {path: _short(self._plan.space, path, value) for path, value in asked.params.items()}

    def _goes_on(self, trial: Trial, trial_id: str) -> None:
        if not trial.is_over:
            self._numbers[trial_id] = trial.number

    def _study(self, number: int) -> Any:
        """Optuna's study of the trials begun so far, with random numbers that belong to trial `number` alone."""
        optuna = _optuna()
        seed = Random(f"{self._plan.seed}/tpe/{number}").getrandbits(32)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        study = optuna.create_study(directions=["minimize"] * len(self._plan.goals), sampler=sampler)
        for trial in self._trial_store.trials:
            losses = self._losses.get(trial.number)
            if losses is None and not trial.is_over:
                result: dict[str, Any] = {"state": optuna.trial.TrialState.RUNNING}
            else:
                losses = losses or self._kept_losses(trial)
                if not _is_finite(losses):
                    continue
                result = {"values": list(losses)}
            study.add_trial(optuna.trial.create_trial(params=trial.values, distributions=self._distributions, **result))
        return study

    def _kept_losses(self, trial: Trial) -> tuple[float, ...]:
        """The losses of a trial that the trial store has as over; infinite where it failed."""
        return trial.score(self._plan.goals) if trial.state in (COMPLETE, STOPPED) else (math.inf,)


def build_searcher(plan: SweepPlan, trial_store: TrialStore) -> Points:
    """The plan's searcher. ASHA and median stopping compare trials with those that are over."""
    kind = TreeParzen if plan.searcher == "tpe" else Points
    return kind(plan, trial_store, compared=plan.scheduler in ("asha", "median"))


def tune_config(trial: Trial, replay: bool = False) -> dict[str, Any]:
    """What the trial's function gets. replay: whether it first reports what its run has logged already."""
    return {"run": trial.run, "values": trial.values, "start": trial.start, "over": trial.is_over, "replay": replay}


def losses_of(result: Mapping[str, Any], goals: Sequence[Goal]) -> tuple[float, ...]:
    """Figures of a result so that less is better; infinite where one is missing."""
    return tuple(goal.loss(float(result[goal.metric])) if goal.metric in result else math.inf for goal in goals)


def distributions(space: Space) -> dict[str, Any]:
    """The space as Optuna knows it."""
    made: dict[str, Any] = {}
    distribution = _optuna().distributions
    for dimension in space.dimensions:
        match dimension.domain.start:
            case Choice(values=values):
                made[dimension.path] = distribution.CategoricalDistribution(values)
            case Range(low=low, high=high, log=log, whole=True):
                made[dimension.path] = distribution.IntDistribution(int(low), int(high), log=log)
            case Range(low=low, high=high, log=log):
                made[dimension.path] = distribution.FloatDistribution(low, high, log=log)
    return made


def _short(space: Space, path: str, value: Any) -> Any:
    """A drawn number with a few digits, as the other searchers have it."""
    domain = next(dimension.domain for dimension in space.dimensions if dimension.path == path)
    return domain.rounded(value) if isinstance(domain, Range) else value


def _is_finite(losses: Sequence[float]) -> bool:
    return all(math.isfinite(loss) for loss in losses)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UsageError(f"--searcher tpe needs Optuna: {install_hint('sweep')}") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
