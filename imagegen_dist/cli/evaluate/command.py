"""`python jobs/evaluate.py`: check what was asked for, measure it, print and store the figures."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from imagegen_dist.cli.command import run_command
from imagegen_dist.cli.evaluate.measuring import evaluate
from imagegen_dist.cli.evaluate.options import JOB, help_text, parse
from imagegen_dist.cli.evaluate.outcome import show, write
from imagegen_dist.cli.evaluate.request import prepare
from imagegen_dist.cli.progress import ProgressBar


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from its command line; the exit code, as named in errors.py."""
    return run_command(JOB, arguments, help_text, _run, "interrupted: no figure was stored")


def _run(words: Sequence[str]) -> None:
    options = parse(words)
    with ProgressBar("measuring") as bar:
        bar.phase("opening the model and the data")
        request = prepare(options, bar.phase)
        results = evaluate(request, bar)
    written = write(request, results)
    show(request, results, written, Console(highlight=False, markup=False, emoji=False))
