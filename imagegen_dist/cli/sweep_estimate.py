"""Estimates the cost of a sweep: images from the plan, seconds by `cli.estimate`."""

from __future__ import annotations

import torch

from imagegen_dist.cli.estimate import estimate
from imagegen_dist.cli.sweep_options import Options
from imagegen_dist.cli.train_options import describe
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.metrics.formatting import count, duration
from imagegen_dist.sweep.plan import SweepPlan, most_images

_LISTED = 5


def dry_run_text(plan: SweepPlan, options: Options) -> str:
    """What --dry-run prints: the plan, its first trials, and its cost."""
    total = plan.experiment.training.total_images
    images = most_images(plan)
    workers, index = plan.demand.workers.low, Dataset.open(plan.settings.data, plan.experiment.data).index
    measured = estimate(plan.experiment, index, workers, plan.demand.cpus or 1)
    speed = measured.images_per_s
    gpus = workers * (plan.demand.gpus if plan.demand.gpus is not None else float(torch.cuda.is_available()))
    first = [plan.point(number) for number in range(min(_LISTED, plan.trials))]
    hours = f", {images / speed * gpus / 3600:.3g} GPU hours" if gpus else ""
    limits = [
        f"--time-budget {options.time_budget:g} s" if options.time_budget else "",
        f"--gpu-hours {options.gpu_hours:g}" if options.gpu_hours else "",
        f"--max-concurrent {options.max_concurrent}" if options.max_concurrent else "",
    ]
    lines = [
        f"trials train {plan.settings.preset}",
        describe(plan.experiment),
        f"space       {plan.space}",
        f"trials      {plan.trials} by {plan.searcher}, scheduler {plan.scheduler}, "
        f"compared by {' and '.join(map(str, plan.goals))}",
        *(
            f"            {number:04d}  " + "  ".join(f"{path} {value}" for path, value in values.items())
            for number, values in enumerate(first)
            if plan.searcher != "tpe"
        ),
        f"cost        at most {count(total)} images per trial; {_all(plan)} {count(images)} in all",
        f"            at {speed:,.0f} images/s, measured on this machine ({measured.conditions}): "
        f"{duration(total / speed)} per trial, {duration(images / speed)} of trial time{hours}",
        f"limits      {', '.join(limit for limit in limits if limit) or 'none'}",
        f"storage     {plan.folder.url}: written and read back",
        "Nothing was trained.",
    ]
    return "\n".join(lines)


def _all(plan: SweepPlan) -> str:
    return "about" if plan.scheduler == "asha" else "at most"
