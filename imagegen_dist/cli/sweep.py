"""`imagegen sweep`."""

from __future__ import annotations

from collections.abc import Sequence

from imagegen_dist.cli.command import run_command
from imagegen_dist.cli.sweep_options import JOB, check_words, help_text
from imagegen_dist.cli.sweep_options import Options as Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from its command line; the exit code, as named in errors.py."""
    # A driver takes the signal itself: an interrupt gets here only before there is one.
    return run_command(JOB, arguments, help_text, _run, "interrupted before the sweep began")


def _run(words: Sequence[str]) -> int:
    check_words(words)
    from imagegen_dist.cli.sweep_run import sweep  # it imports torch

    return sweep(words)
