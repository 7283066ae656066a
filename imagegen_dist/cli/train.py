"""`imagegen train`, and the jobs train_gan and train_vae."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from imagegen_dist.cli.command import run_command
from imagegen_dist.cli.train_options import ANY, help_text, parse
from imagegen_dist.cli.train_options import Options as Options
from imagegen_dist.commands import name_of


def main_gan(arguments: Sequence[str] | None = None) -> int:
    """`python jobs/train_gan.py`: returns the exit code."""
    return main(arguments, "train_gan")


def main_vae(arguments: Sequence[str] | None = None) -> int:
    """`python jobs/train_vae.py`: returns the exit code."""
    return main(arguments, "train_vae")


def main(arguments: Sequence[str] | None = None, job: str = ANY) -> int:
    """`imagegen train`: returns the exit code. job: train_gan or train_vae takes the presets of one kind alone."""
    # A driver takes the signal itself: an interrupt gets here only before there is one.
    interrupted = "interrupted before the training began"
    return run_command(job, arguments, partial(help_text, job), partial(_run, job), interrupted)


def _run(job: str, words: Sequence[str]) -> int | None:
    command = parse(job, words)
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
    return train(prepared)
