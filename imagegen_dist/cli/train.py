"""`imagegen train`, and the jobs train_gan and train_vae."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from functools import partial

from imagegen_dist.cli.command import run_command
from imagegen_dist.cli.train_options import ANY, help_text, parse
from imagegen_dist.cli.train_options import Options as Options
from imagegen_dist.commands import name_of
from imagegen_dist.errors import FAILED
from imagegen_dist.ray.early import EarlyRay
from imagegen_dist.resources import Demand, Workers, is_own_ray
from imagegen_dist.run_folder import RESULT


def main_gan(arguments: Sequence[str] | None = None) -> int:
    """`python jobs/train_gan.py`: returns the exit code."""
    return main(arguments, "train_gan")


def main_vae(arguments: Sequence[str] | None = None) -> int:
    """`python jobs/train_vae.py`: returns the exit code."""
    return main(arguments, "train_vae")


def main(arguments: Sequence[str] | None = None, job: str = ANY, alone: bool = False) -> int:
    """`imagegen train`: returns the exit code. job: train_gan or train_vae takes the presets of one kind alone.

    alone: the process ends with this command, as it does without arguments. Ray then starts while settings are read.
    """
    ray = _Ray() if alone or arguments is None else None
    # A driver takes the signal itself: an interrupt gets here only before there is one.
    interrupted = "interrupted before the training began"
    try:
        code = run_command(job, arguments, partial(help_text, job), partial(_run, job, ray), interrupted)
    except Exception:
        if not ray or not ray.is_unused:
            raise
        traceback.print_exc()
        code = FAILED
    if ray and ray.early and ray.is_unused:
        ray.early.leave(code)
    return code


class _Ray:
    """The Ray of this process, which starts once a command line is known to train on this machine."""

    def __init__(self) -> None:
        self.early: EarlyRay | None = None

    @property
    def is_unused(self) -> bool:
        """True if it was begun, and no driver has taken it over, which ends it in an orderly way."""
        return self.early is not None and not self.early.used

    def begin(self, options: Options, workers: Workers | None) -> None:
        """Start it, unless the command only shows something, as that of a finished run does, or trains elsewhere."""
        if is_own_ray() and not options.dry_run and not _has_ended(options):
            self.early = EarlyRay(workers, Demand(options.gpus, options.cpus))


def _has_ended(options: Options) -> bool:
    """True if the run that is named has a result, so that it may be finished."""
    if not options.run:
        return False
    from imagegen_dist.storage import Store

    try:
        return (Store(options.storage) / options.run).exists(RESULT)
    except (OSError, ValueError):  # the command says so where it reads its settings
        return False


def _run(job: str, ray: _Ray | None, words: Sequence[str]) -> int | None:
    command = parse(job, words, ray.begin if ray else None)
    if command.options.gpu_type:
        from imagegen_dist.cli.prediction import prediction_text

        print(prediction_text(command))
        return None
    from imagegen_dist.cli.prepare import dry_run_text, prepare, train  # they import torch

    prepared = prepare(command)
    for note in prepared.notes:
        print(f"{name_of(job)}: note: {note}", file=sys.stderr)
    if command.options.dry_run:
        print(dry_run_text(prepared))
        return None
    print(prepared.opening, flush=True)
    return train(prepared, ray.early if ray else None)
