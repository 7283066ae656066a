"""The job that makes a dataset of latents: an autoencoder's, of another dataset's samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from imagegen_dist.cli.command import (
    Package,
    Switch,
    check_range,
    check_tasks,
    flag,
    flags_help,
    parse_flags,
    run_command,
)
from imagegen_dist.commands import name_of
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.errors import TaskError, UsageError

_JOB = "encode"
_SUMMARY = (
    "Encode a dataset with a trained autoencoder. Other models train on the result: shards of latents, without noise, "
    "in 8 bits, and latents.json with their mean, deviation and scale. The command continues where it was interrupted."
)


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    checkpoint: Annotated[str, tyro.conf.Positional, flag("CHECKPOINT")] = ""
    """An autoencoder with spatial latents: a run, checkpoint, exported or diffusers folder (path or URL)."""
    dest: Annotated[str, tyro.conf.Positional, flag("DEST")] = ""
    """Folder for the shards, their index.json and latents.json."""
    package: Package = ""
    """Your own module that registers the model's objective and networks; its code is run."""
    data: Annotated[str, flag("URL")] = ""
    """Shards with an index.json: the samples to encode."""
    like: Annotated[str, flag("URL")] = ""
    """Latents of this autoencoder whose statistics are taken: for held-out samples, those of training samples."""
    flip: Switch = False
    """Also encode every sample mirrored along its last axis: latents themselves must not be mirrored."""
    allow_remote_shards: Switch = False
    """Read shards of an index even if they are neither below nor beside it, e.g. in another bucket."""
    statistics: Annotated[int, flag("N")] = 10_000
    """Samples, evenly spaced, from which the statistics are computed. Default: 10000."""
    batch: Annotated[int | None, flag("N")] = None
    """Samples per batch. Default: 8 on the CPU; on a GPU up to 64, as its memory allows."""
    device: Annotated[str, flag("NAME")] = ""
    """cpu or cuda. Default: cuda if available."""
    workers: Annotated[int | None, flag("N")] = None
    """Ray tasks at once; 0: work in this process. Default: all CPU cores, or 0 for little work."""
    shard_size: Annotated[str, flag("BYTES")] = "128MB"
    """Approximate size of a shard. Default: 128MB."""


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen encode`: returns the exit code, as named in errors.py."""
    interrupted = "interrupted; the same command continues"
    return run_command(_JOB, arguments, lambda _: flags_help(Options, _JOB, _SUMMARY), _main, interrupted)


def _main(words: Sequence[str]) -> None:
    try:
        options = parse(words)
        from imagegen_dist.cli.encode_dataset import run  # it imports torch

        print(run(options))
    except ShardError as error:
        raise TaskError(str(error)) from error


def parse(words: Sequence[str]) -> Options:
    """Read the job's arguments. Raises UsageError."""
    options = parse_flags(Options, _JOB, words)
    if not (options.checkpoint and options.dest and options.data):
        raise UsageError(f"CHECKPOINT, DEST and --data URL are needed (see {name_of(_JOB)} --help)")
    check_range(options, statistics=(2, 1_000_000_000), batch=(1, 1_000_000))
    check_tasks(options)
    return options
