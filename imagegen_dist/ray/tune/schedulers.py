"""Who ends trials early or changes them on the way, for Ray Tune: ASHA, median stopping, or a population."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from imagegen_dist.ray.tune.searchers import losses_of, tune_config
from imagegen_dist.sweep.plan import REDUCTION, SETTLED_TRIALS, SweepPlan
from imagegen_dist.sweep.trial_store import REPLACED, Trial, TrialStore
from imagegen_dist.training.checkpoint import newest

QUANTILE = 0.25
"""Share of a population that is replaced, and share that it is replaced by (arXiv:1711.09846, Sec. 4.1)."""

CLOCK = "images"
"""What schedulers know of time: images seen."""


def build_scheduler(plan: SweepPlan, trial_store: TrialStore) -> TrialScheduler:
    """The plan's scheduler. All of them go by images seen, and decide at the figures alone."""
    goal, total = plan.goals[0], plan.experiment.training.total_images
    match plan.scheduler:
        case "none":
            return FIFOScheduler()
        case "asha":
            return AsyncHyperBandScheduler(
                CLOCK, goal.metric, goal.mode, max_t=total, grace_period=plan.every, reduction_factor=REDUCTION
            )
        case "median":
            return MedianRule(
                CLOCK, goal.metric, goal.mode, grace_period=plan.every, min_samples_required=SETTLED_TRIALS
            )
        case "pbt":
            return Population(plan, trial_store)


class MedianRule(MedianStoppingRule):
    """The median stopping rule, which lets a trial go on where there is too little to compare it with.

    Ray Tune's pauses such a trial in favour of one that waits, and takes the last result of each trial for figures: one
    that has diverged would end the sweep.
    """

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if decision == TrialScheduler.PAUSE else decision

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Nothing: what it had reported is known."""


class Population(FIFOScheduler):
    """Population based training (arXiv:1711.09846): the worst go on from checkpoints of the best, with other values.

    All members meet each time they have seen `every` more images, so that what comes of them does not depend on who was
    faster, and there may be more of them than the cluster has room for. Weights are handed over as the URL of a
    checkpoint. A member's next generation is a run of its own, so that every run has one configuration.
    """

    def __init__(self, plan: SweepPlan, trial_store: TrialStore) -> None:
        super().__init__()
        self._plan = plan
        self._trial_store = trial_store
        self._losses: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self._added: dict[str, TuneTrial] = {}
        self.at_once: int | None = None
        """Most members that run at once; None for as many as there is room for."""
        self.closed = False
        """Whether the sweep is being ended: those that wait for members that have ended now meet once it goes on."""
        latest = [trial_store.latest(number) for number in range(plan.trials)]
        reached = [0 if trial is None else trial.images for trial in latest if trial is None or not trial.is_over]
        self._members = len(reached)
        self._meeting = (min(reached, default=0) // plan.every + 1) * plan.every

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Note a member: they are made one after another."""
        self._added[trial.trial_id] = trial

    def has_room(self) -> bool:
        """Whether one more member may run."""
        running = [t for t in self._added.values() if t.status in (TuneTrial.PENDING, TuneTrial.RUNNING)]
        return self.at_once is None or len(running) < self.at_once

    def goes_on(self) -> bool:
        """Whether there are members that have not ended."""
        return not self.closed and not all(trial.is_finished() for trial in self._added.values())

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Let the member go on to the next meeting, or wait there for the others."""
        loss, images = losses_of(result, self._plan.goals)[0], int(result.get(CLOCK, 0))
        if not math.isfinite(loss) or images < self._meeting:
            return TrialScheduler.CONTINUE
        if images >= self._plan.experiment.training.total_images:
            return TrialScheduler.CONTINUE
        metric = self._plan.goals[0].metric
        self._trial_store.change(trial.config["run"], images=images, figures={metric: float(result[metric])})
        self._losses[trial.trial_id], self._seen[trial.trial_id] = loss, images
        run = trial.config["run"]
        if not self.closed:
            self._meet(tune_controller)
        if images < self._meeting and trial.config["run"] == run:
            return TrialScheduler.CONTINUE  # it was the last to come, and stays what it is
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return TrialScheduler.NOOP

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """A member that is not at the meeting yet."""
        if self.closed:
            return None
        self._meet(tune_controller)
        states = (TuneTrial.PENDING, TuneTrial.PAUSED) if self.has_room() else (TuneTrial.PENDING,)
        waiting = [trial for trial in tune_controller.get_trials() if trial.status in states]
        return next((trial for trial in waiting if self._seen.get(trial.trial_id, 0) < self._meeting), None)

    def _meet(self, tune_controller: Any) -> None:
        """Once all members that are left are there: the worst get successors, and all may go on."""
        trials = [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
        there = [trial for trial in trials if self._seen.get(trial.trial_id, 0) >= self._meeting]
        if len(self._added) < self._members or not there or len(there) < len(trials):
            return
        losses = {trial.config["run"]: self._losses[trial.trial_id] for trial in there}
        by_run = {trial.config["run"]: trial for trial in there}
        for member, donor in handed_over(losses, Random(f"{self._plan.seed}/{self._meeting}")):
            successor = self._succeed(self._trial_store[member], self._trial_store[donor])
            if successor is not None:
                by_run[member].set_config(tune_config(successor))
        self._meeting += self._plan.every

    def _succeed(self, member: Trial, donor: Trial) -> Trial | None:
        """The member's next generation, from the donor's newest checkpoint; None where it has none."""
        found = newest(self._plan.trial_settings(donor.run, "").folder, lambda why: None)
        if found is None:
            return None
        self._trial_store.change(member.run, state=REPLACED)
        successor = Trial(
            member.number,
            self._plan.space.perturbed(donor.values, Random(f"{self._plan.seed}/{member.run}/{found.images}")),
            generation=member.generation + 1,
            parent=donor.run,
            start=found.url,
            born=found.images,
            images=found.images,
        )
        self._trial_store.put(successor)
        return successor


def handed_over(losses: Mapping[str, float], random: Random) -> list[tuple[str, str]]:
    """(member, donor) for each of the worst quarter of a population, its donor drawn of the best quarter."""
    order = sorted(losses, key=lambda name: (losses[name], name))
    count = min(math.ceil(len(order) * QUANTILE), len(order) // 2) if len(order) >= SETTLED_TRIALS else 0
    return [(member, random.choice(order[:count])) for member in order[len(order) - count :]] if count else []
