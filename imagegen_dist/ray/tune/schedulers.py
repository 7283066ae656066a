"""Schedulers that stop trials early or change them, for Ray Tune: ASHA, median stopping, or a population."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from imagegen_dist.ray.tune.trial import CLOCK, tune_config
from imagegen_dist.ray.tune.tune_callback import Stateless, run_of
from imagegen_dist.sweep.capacity import Capacity
from imagegen_dist.sweep.plan import MIN_COMPARED, REDUCTION, SweepPlan
from imagegen_dist.sweep.trial_store import REPLACED, Trial, TrialStore, losses_of
from imagegen_dist.training.checkpoint import newest

_QUANTILE = 0.25
"""Share of a population that is replaced, and share that it is replaced by (arXiv:1711.09846, Sec. 4.1)."""


def build_scheduler(plan: SweepPlan, store: TrialStore, capacity: Capacity) -> TrialScheduler:
    """The plan's scheduler. All of them measure time in images seen."""
    goal, total = plan.goals[0], plan.experiment.training.total_images
    clock: dict[str, Any] = {"time_attr": CLOCK, "metric": goal.metric, "mode": goal.mode, "grace_period": plan.every}
    match plan.scheduler:
        case "none":
            return FIFOScheduler()
        case "asha":
            return AsyncHyperBandScheduler(**clock, max_t=total, reduction_factor=REDUCTION)
        case "median":
            return _MedianRule(**clock, min_samples_required=MIN_COMPARED)
        case "pbt":
            return Population(plan, store, capacity)


class _MedianRule(MedianStoppingRule):
    """The median stopping rule, which continues a trial if there are too few to compare it with.

    Ray Tune's rule pauses such a trial in favour of a waiting one, and fails if the last result of a trial has no
    metrics, as when it diverged.
    """

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if decision == TrialScheduler.PAUSE else decision

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        if CLOCK in result:
            super().on_trial_complete(tune_controller, trial, result)


class Population(Stateless, FIFOScheduler):
    """Population based training (arXiv:1711.09846): the worst continue from checkpoints of the best with other values.

    All members meet each time they have seen `every` more images: the result does not depend on which of them is
    faster, and there may be more members than the cluster can run at once. Weights are handed over as the URL of a
    checkpoint. A member's next generation is a run of its own, so that every run has one configuration.
    """

    def __init__(self, plan: SweepPlan, store: TrialStore, capacity: Capacity) -> None:
        super().__init__()
        self._plan = plan
        self._store = store
        self._capacity = capacity
        self._losses: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self._added: dict[str, TuneTrial] = {}
        self.closed = False
        """True while the sweep is being ended: members that wait for those that ended early meet when it continues."""
        latest = [store.latest(number) for number in range(plan.trials)]
        reached = [0 if trial is None else trial.images for trial in latest if trial is None or not trial.is_over]
        self._members = len(reached)
        self._meeting = (min(reached, default=0) // plan.every + 1) * plan.every

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        self._added[trial.trial_id] = trial

    def is_unfinished(self) -> bool:
        """True if any member has not ended. Ray Tune discards the process of a paused one once its searcher is done."""
        return not self.closed and not all(trial.is_finished() for trial in self._added.values())

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Let the member continue to the next meeting, or pause it there until the others have come."""
        loss, images = losses_of(result, self._plan.goals)[0], int(result.get(CLOCK, 0))
        if not math.isfinite(loss) or images < self._meeting:
            return TrialScheduler.CONTINUE
        if images >= self._plan.experiment.training.total_images:
            return TrialScheduler.CONTINUE
        run, metric = run_of(trial), self._plan.goals[0].metric
        self._store.change(run, images=images, figures={metric: float(result[metric])})
        self._losses[trial.trial_id], self._seen[trial.trial_id] = loss, images
        if not self.closed:
            self._meet(tune_controller)
        if images < self._meeting and run_of(trial) == run:
            return TrialScheduler.CONTINUE  # it was the last to come, and keeps its values
        self._capacity.release(trial.trial_id)
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return TrialScheduler.NOOP

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """A member that has not reached the meeting."""
        if self.closed:
            return None
        self._meet(tune_controller)
        for trial in tune_controller.get_trials():
            waits = trial.status in (TuneTrial.PENDING, TuneTrial.PAUSED)
            behind = self._seen.get(trial.trial_id, 0) < self._meeting
            if waits and behind and self._capacity.acquire(trial.trial_id):
                return trial
        return None

    def _meet(self, tune_controller: Any) -> None:
        """Once all remaining members have come: the worst get successors, and all may continue."""
        trials = [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
        present = [trial for trial in trials if self._seen.get(trial.trial_id, 0) >= self._meeting]
        if len(self._added) < self._members or not present or len(present) < len(trials):
            return
        by_run = {run_of(trial): trial for trial in present}
        losses = {run: self._losses[trial.trial_id] for run, trial in by_run.items()}
        for member, donor in select_replacements(losses, Random(f"{self._plan.seed}/{self._meeting}")):
            successor = self._succeed(self._store[member], self._store[donor])
            if successor is not None:
                by_run[member].set_config(tune_config(successor))
        self._meeting += self._plan.every

    def _succeed(self, member: Trial, donor: Trial) -> Trial | None:
        """The member's next generation, from the donor's newest checkpoint; None if there is none."""
        found = newest(self._plan.trial_settings(donor.run).folder, lambda why: None)
        if found is None:
            return None
        self._store.change(member.run, state=REPLACED)
        successor = Trial(
            member.number,
            self._plan.space.perturbed(donor.values, Random(f"{self._plan.seed}/{member.run}/{found.images}")),
            generation=member.generation + 1,
            parent=donor.run,
            start=found.url,
            born=found.images,
            images=found.images,
        )
        self._store.put(successor)
        return successor


def select_replacements(losses: Mapping[str, float], random: Random) -> list[tuple[str, str]]:
    """(member, donor) for each member of the worst quarter, with a donor drawn from the best quarter."""
    order = sorted(losses, key=lambda name: (losses[name], name))
    count = min(math.ceil(len(order) * _QUANTILE), len(order) // 2) if len(order) >= MIN_COMPARED else 0
    return [(member, random.choice(order[:count])) for member in order[len(order) - count :]] if count else []
