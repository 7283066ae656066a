"""Runs a sweep: checks everything before the first trial starts, and shows the results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import torch

from imagegen_dist import config
from imagegen_dist.cli import train_options as run_options
from imagegen_dist.cli.estimate import estimate
from imagegen_dist.cli.prepare import prepare
from imagegen_dist.cli.sweep_options import Command, Options, demand_of, parse
from imagegen_dist.cli.train_options import Options as RunOptions
from imagegen_dist.cli.train_options import describe
from imagegen_dist.commands import name_of
from imagegen_dist.data.builtin import is_builtin
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.errors import DONE, UsageError
from imagegen_dist.metrics.formatting import count, duration
from imagegen_dist.presets import find_preset
from imagegen_dist.ray.environment import set_ray_environment
from imagegen_dist.redirect_output import output_to
from imagegen_dist.resources import check_demand
from imagegen_dist.storage import Store
from imagegen_dist.sweep.json_events import JSON_EVENTS, JsonEvents
from imagegen_dist.sweep.live_table import LiveTable
from imagegen_dist.sweep.plan import JOB, SweepPlan, most_images, read_plan, with_checkpoints, write_plan
from imagegen_dist.sweep.results import closing_table, write_results


def sweep(words: Sequence[str]) -> int:
    """Run the command; the exit code. Raises ValueError with one line."""
    command = parse(words)
    options = command if isinstance(command, Options) else command.options
    if options.address:
        return _elsewhere(words, options)
    if isinstance(command, Options):
        plan = read_plan(Store(options.storage) / options.resume, options.resume)
        plan = replace(plan, demand=demand_of(options, plan.demand))
    else:
        plan = build_plan(command)
    if options.dry_run:
        print(_dry_run_text(plan, options))
        return DONE
    if isinstance(command, Command):
        write_plan(plan)
    return _run(plan, options)


def _elsewhere(words: Sequence[str], options: Options) -> int:
    """Submit the command to a cluster and follow it, or do what is asked of a submitted job; the exit code."""
    set_ray_environment()
    from imagegen_dist.ray.tune import remote  # after the environment that Ray reads when it is imported

    if not options.asks:
        remote.check_reachable("storage", options.storage)
        if not is_builtin(options.data):
            remote.check_reachable("data", options.data)
        if options.config and not (remote.checkout() / options.config).is_file():
            raise UsageError(f"--config {options.config}: put it into {remote.checkout()}, which is sent")
    client = remote.connect(options.address)
    match options.asks:
        case "attach":
            return remote.follow(client, options.attach)
        case "status":
            return remote.status(client, options.status)
        case "stop":
            return remote.stop(client, options.stop)
        case "fetch":
            return remote.fetch(client, options.fetch[0], Path(options.fetch[1]))
    name = options.resume or options.name or _default_name(options)
    at = next(i for i, word in enumerate(words) if word.partition("=")[0] == "--address")
    sent = [*words[:at], *words[at + (1 if "=" in words[at] else 2) :]]
    job = remote.submit(client, sent if options.name or options.resume else [*sent, "--name", name], name)
    print(f"job {job}, W&B group {name}; Ctrl-C leaves it running, --attach {job} comes back")
    return remote.follow(client, job)


def _default_name(options: Options) -> str:
    """The name of a sweep without --name."""
    return f"{options.search.rpartition(':')[2]}-{time.strftime('%Y%m%d-%H%M%S')}"


def build_plan(command: Command) -> SweepPlan:
    """The plan of a command, checked against data and storage. Raises ValueError with one line."""
    options = command.options
    name = options.name or _default_name(options)
    common = RunOptions(preset=command.preset, storage=options.storage, run=name, wandb=options.wandb)
    job = find_preset(command.preset).job
    first = prepare(run_options.Command(job, common, command.experiment, None))  # as one run of that name
    plan = SweepPlan(
        search=options.search,
        experiment=first.experiment,
        settings=first.settings,
        space=command.space,
        goals=command.goals,
        searcher=command.searcher,
        scheduler=command.scheduler,
        trials=command.trials,
        seed=options.seed,
        demand=command.demand,
    )
    plan = with_checkpoints(plan)
    for note in first.notes:
        print(f"{name_of(JOB)}: note: {note}", file=sys.stderr)
    return plan


def _run(plan: SweepPlan, options: Options) -> int:
    """Run the sweep; the exit code. Raises UsageError if a trial does not fit on this machine."""
    check_demand(plan.demand.gpus, plan.demand.cpus, plan.demand.workers.low)
    set_ray_environment()
    from imagegen_dist.ray.tune.driver import Limits, SweepDriver, log_path

    log = log_path(plan.folder, plan.settings.name)
    limits = Limits(options.max_concurrent, options.time_budget, options.gpu_hours)
    with output_to(log) as screen:
        with _view(plan, screen) as shown:
            code = SweepDriver(plan, limits, shown).run()
            shown.phase("writing the results")
            write_results(plan, lambda text: shown.message(text, "yellow"))
        shown.summary(closing_table(plan, str(log)))
    return code


def _view(plan: SweepPlan, screen: TextIO) -> LiveTable | JsonEvents:
    """A live table, or events for the machine that submitted this job."""
    title = f"{plan.search} · {plan.settings.name}"
    if not os.environ.get(JSON_EVENTS):
        return LiveTable(title, plan.paths, plan.goals, plan.trials, screen)
    goals = [config.encode(goal) for goal in plan.goals]
    facts = {"title": title, "paths": plan.paths, "goals": goals, "total": plan.trials, "folder": plan.folder.url}
    return JsonEvents(facts, screen)


_LISTED = 5


def _dry_run_text(plan: SweepPlan, options: Options) -> str:
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
        f"cost        at most {count(total)} images per trial; {_bound(plan)} {count(images)} in all",
        f"            at {speed:,.0f} images/s, measured on this machine ({measured.conditions}): "
        f"{duration(total / speed)} per trial, {duration(images / speed)} of trial time{hours}",
        f"limits      {', '.join(limit for limit in limits if limit) or 'none'}",
        f"storage     {plan.folder.url}: written and read back",
        "Nothing was trained.",
    ]
    return "\n".join(lines)


def _bound(plan: SweepPlan) -> str:
    return "about" if plan.scheduler == "asha" else "at most"
