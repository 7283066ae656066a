"""`python jobs/sweep.py`: check everything before a trial starts, run the sweep, and say what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from imagegen_dist.launch import options as run_options
from imagegen_dist.launch.environment import set_ray_environment
from imagegen_dist.launch.options import Options as RunOptions
from imagegen_dist.launch.quiet import output_to
from imagegen_dist.launch.sweep.board import Board
from imagegen_dist.launch.sweep.estimate import dry_run_text
from imagegen_dist.launch.sweep.options import JOB, Command, Options, parse
from imagegen_dist.launch.sweep.plan import SweepPlan, read_plan, with_checkpoints, write_plan
from imagegen_dist.launch.sweep.results import closing_table, write_results
from imagegen_dist.launch.train import DONE, MISUSED, Prepared, prepare
from imagegen_dist.presets import find_preset
from imagegen_dist.storage import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from its command line; the exit code, as named in launch/train.py."""
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        options = command if isinstance(command, Options) else command.options
        if isinstance(command, Options):
            plan = read_plan(Store(options.storage) / options.resume, options.resume)
        else:
            plan = build_plan(command)
        if options.dry_run:
            print(dry_run_text(plan, options))
            return DONE
        if isinstance(command, Command):
            write_plan(plan)
        return run(plan, options)
    except ValueError as error:
        print(f"{JOB}.py: {' '.join(str(error).split())}", file=sys.stderr)
        return MISUSED


def build_plan(command: Command) -> SweepPlan:
    """The plan of a command, checked against data and storage. Raises ValueError with one line."""
    options = command.options
    name = options.name or f"{options.search}-{time.strftime('%Y%m%d-%H%M%S')}"
    first = prepare_run(command, name)
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
    return with_checkpoints(plan)


def prepare_run(command: Command, name: str) -> Prepared:
    """What the trials have in common, prepared as one run of that name would be. Raises ValueError."""
    options = command.options
    run = RunOptions(preset=command.preset, storage=options.storage, run=name, wandb=options.wandb)
    job = find_preset(command.preset).job
    return prepare(job, run_options.Command(run, command.experiment, None))


def run(plan: SweepPlan, options: Options) -> int:
    """Run the sweep; the exit code."""
    set_ray_environment()
    from imagegen_dist.launch.sweep.driver import (  # after the environment that Ray reads when it is imported
        Limits,
        SweepDriver,
        log_path,
    )

    log = log_path(plan.folder, plan.settings.name)
    limits = Limits(options.max_concurrent, options.time_budget, options.gpu_hours)
    with output_to(log) as screen:
        paths = [dimension.path for dimension in plan.space.dimensions]
        board = Board(f"{plan.search} · {plan.settings.name}", paths, plan.goals, plan.trials, screen)
        with board:
            code = SweepDriver(plan, limits, board).run()
            board.phase("writing the results")
            write_results(plan)
        board.summary(closing_table(plan, str(log)))
    return code
