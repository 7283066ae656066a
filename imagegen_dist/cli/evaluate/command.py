"""`imagegen evaluate`: what is measured, checked and measured, printed and stored."""

from __future__ import annotations

from collections.abc import Sequence

from imagegen_dist.cli.catalogue import catalogue
from imagegen_dist.cli.command import flags_help, listing, run_command
from imagegen_dist.cli.evaluate.options import JOB, Options, parse
from imagegen_dist.cli.progress import ProgressBar

_SUMMARY = (
    "Measure a trained model: compare its samples with real ones, and measure a VAE's reconstructions of real ones. "
    "Every figure is printed and stored with its settings."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen evaluate`: returns the exit code, as named in errors.py."""
    return run_command(JOB, arguments, _help_text, _run, "interrupted: no figure was stored")


def _run(words: Sequence[str]) -> None:
    options = parse(words)
    with ProgressBar("measuring") as bar:
        bar.phase("opening the model and the data")
        from imagegen_dist.cli.evaluate.measuring import evaluate  # they import torch
        from imagegen_dist.cli.evaluate.outcome import show, write
        from imagegen_dist.cli.evaluate.request import prepare

        request = prepare(options, bar.phase)
        results = evaluate(request, bar)
    show(request, results, write(request, results))


def _help_text(words: Sequence[str] = ()) -> str:
    """What --help prints."""
    tables = catalogue()
    networks = "\n".join(f"  {name}" for name in tables["features"])
    metrics = listing("metrics", tables["metrics"])
    return f"{flags_help(Options, JOB, _SUMMARY)}\n\n{metrics}\n\nfeatures\n{networks}"
