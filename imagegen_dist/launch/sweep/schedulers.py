"""Who ends trials early or changes them on the way, for Ray Tune: ASHA, median stopping, or a population."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from imagegen_dist.launch.sweep.ledger import REPLACED, Ledger, Trial
from imagegen_dist.launch.sweep.plan import REDUCTION, SETTLED_TRIALS, SweepPlan
from imagegen_dist.launch.sweep.searchers import losses_of, tune_config
from imagegen_dist.training.checkpoint import newest

QUANTILE = 0.25
"""Share of a population that is replaced, and share that it is replaced by (arXiv:1711.09846, Sec. 4.1)."""

CLOCK = "images"
"""What schedulers know of time: images seen."""


def build_scheduler(plan: SweepPlan, ledger: Ledger) -> TrialScheduler:
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
            return MedianStoppingRule(
                CLOCK, goal.metric, goal.mode, grace_period=plan.every, min_samples_required=SETTLED_TRIALS
            )
        case "pbt":
            return Population(plan, ledger)


class Population(FIFOScheduler):
    """Population based training (arXiv:1711.09846): the worst go on from checkpoints of the best, with other values.

    Weights are handed over as the URL of a checkpoint. A member's next generation is a run of its own, so that every
    run has one configuration. Members train an interval each in turn, the one that has seen the fewest images first:
    there may be more of them than the cluster has room for.
    """

    def __init__(self, plan: SweepPlan, ledger: Ledger) -> None:
        super().__init__()
        self._plan = plan
        self._ledger = ledger
        self._losses: dict[str, float] = {}
        self._decided: dict[str, int] = {}

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Let the member go on, give way to one that waits, or go on from another's checkpoint."""
        loss = losses_of(result, self._plan.goals)[0]
        images = int(result.get(CLOCK, 0))
        if not math.isfinite(loss) or images - self._decided.get(trial.trial_id, 0) < self._plan.every:
            return TrialScheduler.CONTINUE
        self._losses[trial.trial_id], self._decided[trial.trial_id] = loss, images
        if images >= self._plan.experiment.training.total_images:
            return TrialScheduler.CONTINUE
        donor = choose_donor(trial.trial_id, self._losses, Random(f"{self._plan.seed}/{trial.config['run']}/{images}"))
        if donor is not None:
            other = next(each for each in tune_controller.get_trials() if each.trial_id == donor)
            metric = self._plan.goals[0].metric
            figures = {metric: float(result[metric])}
            member = self._ledger.change(trial.config["run"], images=images, figures=figures)
            successor = self._succeed(member, self._ledger[other.config["run"]])
            if successor is not None:
                self._decided[trial.trial_id] = successor.born
                tune_controller.pause_trial(trial, should_checkpoint=False)
                trial.set_config(tune_config(successor))
                return TrialScheduler.NOOP
        if any(each.status in (TuneTrial.PENDING, TuneTrial.PAUSED) for each in tune_controller.get_trials()):
            tune_controller.pause_trial(trial, should_checkpoint=False)
            return TrialScheduler.NOOP
        return TrialScheduler.CONTINUE

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Of the members that wait, the one that has seen the fewest images."""
        waiting = [t for t in tune_controller.get_trials() if t.status in (TuneTrial.PENDING, TuneTrial.PAUSED)]
        return min(waiting, key=lambda t: self._decided.get(t.trial_id, 0), default=None)

    def _succeed(self, member: Trial, donor: Trial) -> Trial | None:
        """The member's next generation, from the donor's newest checkpoint; None where it has none."""
        folder = self._plan.trial_settings(donor.run, "").folder
        found = newest(folder, lambda why: None)
        start, born = (found.url, found.images) if found else (donor.start, donor.born)
        if not start:
            return None
        self._ledger.change(member.run, state=REPLACED)
        random = Random(f"{self._plan.seed}/{member.run}/{donor.run}/{born}")
        successor = Trial(
            member.number,
            self._plan.space.perturbed(donor.values, random),
            generation=member.generation + 1,
            parent=donor.run,
            start=start,
            born=born,
            images=born,
        )
        self._ledger.put(successor)
        return successor


def choose_donor(member: str, losses: Mapping[str, float], random: Random) -> str | None:
    """Whose checkpoint a member goes on from: one of the best quarter, where it is of the worst; else None."""
    order = sorted(losses, key=lambda name: losses[name])
    count = min(math.ceil(len(order) * QUANTILE), len(order) // 2)
    if len(order) < SETTLED_TRIALS or member not in order[len(order) - count :]:
        return None
    return random.choice(order[:count])
