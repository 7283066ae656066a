"""What a sweep will cost, before it starts: images from the plan, seconds from a short training on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from imagegen_dist.cli.sweep_options import Options
from imagegen_dist.cli.train_options import describe
from imagegen_dist.data.stream import stream
from imagegen_dist.distributed import World
from imagegen_dist.evaluation import Dataset
from imagegen_dist.experiment import Experiment, build_plan, build_trainer
from imagegen_dist.metrics.formatting import count, duration
from imagegen_dist.sweep.plan import SweepPlan, most_images

MEASURED_S = 3.0
"""How long the speed of one trial is measured."""

_WARM_STEPS = 2
_LISTED = 5


def dry_run_text(plan: SweepPlan, options: Options) -> str:
    """What --dry-run prints: the plan, its first trials, and what it will cost."""
    total = plan.experiment.training.total_images
    images = most_images(plan)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads, workers = plan.demand.cpus or 1, plan.demand.workers.low
    torch.set_num_threads(threads)
    speed = workers * measured_speed(plan.experiment, Dataset.open(plan.settings.data, plan.experiment.data), device)
    gpus = workers * (plan.demand.gpus if plan.demand.gpus is not None else float(device.type == "cuda"))
    first = [plan.point(number) for number in range(min(_LISTED, plan.trials))]
    hours = f", {images / speed * gpus / 3600:.3g} GPU hours" if gpus else ""
    limits = [
        f"--time-budget {options.time_budget:g} s" if options.time_budget else "",
        f"--gpu-hours {options.gpu_hours:g}" if options.gpu_hours else "",
        f"--max-concurrent {options.max_concurrent}" if options.max_concurrent else "",
    ]
    measured = f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"
    measured += f", and {workers} workers as so many times one" if workers > 1 else ""
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
        f"cost        at most {count(total)} images a trial; {_all(plan)} {count(images)} in all",
        f"            at {speed:,.0f} images/s, measured on this machine ({measured}): "
        f"{duration(total / speed)} a trial, {duration(images / speed)} of trials' time{hours}",
        f"limits      {', '.join(limit for limit in limits if limit) or 'none'}",
        f"storage     {plan.folder.url}: written and read back",
        "Nothing was trained.",
    ]
    return "\n".join(lines)


def _all(plan: SweepPlan) -> str:
    return "about" if plan.scheduler == "asha" else "at most"


def measured_speed(
    experiment: Experiment, data: Dataset, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Images a second of one worker's training, over MEASURED_S and one step at least; without figures and pictures."""
    trainer = build_trainer(experiment, data.index, World(), device)
    plan = build_plan(experiment, data.index, len(trainer.objective.phases()))
    items = stream(data.index, data.store, plan, range(plan.microbatches), 0, 1_000_000, experiment.data)
    began, images = clock(), 0
    for step, item in enumerate(items):
        trainer.step(item)
        if step + 1 == _WARM_STEPS:
            began, images = clock(), trainer.images
        if step >= _WARM_STEPS and clock() - began >= MEASURED_S:
            break
    return (trainer.images - images) / (clock() - began)
