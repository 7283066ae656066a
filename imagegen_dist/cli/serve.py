"""`imagegen serve`: trained models behind HTTP, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from imagegen_dist.cli.command import Package, check_range, flag, flags_help, parse_flags, run_command
from imagegen_dist.cli.serve_token import check_token
from imagegen_dist.commands import name_of
from imagegen_dist.errors import UsageError

_JOB = "serve"
_SUMMARY = (
    "Serve trained models over HTTP: samples, latents, and a stream that follows a slider. Requests that wait are one "
    "batch. Listens on this machine alone unless --host says otherwise; then a token is needed."
)


@dataclass(frozen=True)
class Options:
    """Flags of the command."""

    checkpoints: Annotated[tuple[str, ...], tyro.conf.Positional, flag("CHECKPOINT ...")] = ()
    """Runs (their newest complete checkpoint), checkpoint directories or exported folders; paths or URLs. The first is
    served below /, each below /models/NAME."""
    package: Package = ""
    """Your own module that registers the models' objectives and networks; its code is run."""
    host: Annotated[str, flag("ADDRESS")] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of this machine. Default: 127.0.0.1, this machine alone."""
    port: Annotated[int, flag("N")] = 8000
    """Port to listen on; 0 for a free one. Default: 8000."""
    token: Annotated[str, flag("TEXT")] = ""
    """What clients have to know, better given as IMAGEGEN_TOKEN: a command line can be read by others. Default: none on
    127.0.0.1, a random one elsewhere."""
    follow: Annotated[float, flag("SECONDS")] = 0.0
    """Look for a newer checkpoint of each run this often, and serve it: watch a model learn. Default: 0, never."""
    engine: Annotated[Literal["", "eager", "compiled", "onnxruntime"], flag("eager|compiled|onnxruntime")] = ""
    """Inference engine: eager PyTorch, compiled PyTorch, or ONNX Runtime. Default: eager; of a folder of --to onnx,
    ONNX Runtime without PyTorch."""
    device: Annotated[str, flag("NAME")] = ""
    """cpu or cuda. Default: cuda if available; the programs of --to onnx run on the CPU."""
    batch: Annotated[int, flag("N")] = 64
    """Samples of a batch and of a request, at most. Default: 64."""
    projections: Annotated[int, flag("N")] = 8
    """Pictures that are searched in a model at once, at most, each for 1,000 steps at most; 0 for none. Default: 8."""


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen serve`: returns the exit code, as named in errors.py."""
    return run_command(_JOB, arguments, lambda _: flags_help(Options, _JOB, _SUMMARY), _run, "stopped")


def _run(words: Sequence[str]) -> int | None:
    options = parse(words)
    from imagegen_dist.cli.server import run

    return run(options)


def parse(words: Sequence[str]) -> Options:
    """Read the words of the command. Raises UsageError."""
    options = parse_flags(Options, _JOB, words)
    if not options.checkpoints:
        raise UsageError(
            f"CHECKPOINT is needed, a run, a checkpoint or an exported folder (see {name_of(_JOB)} --help)"
        )
    if not options.host:
        raise UsageError("--host is empty: give an address, such as 127.0.0.1")
    check_token(options.token)
    check_range(options, port=(0, 65_535), batch=(1, 4096), projections=(0, 1024), follow=(0, 86_400))
    return options
