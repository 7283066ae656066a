"""The options of `imagegen evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from imagegen_dist import config
from imagegen_dist.cli.catalogue import catalogue
from imagegen_dist.cli.command import Package, Switch, check_range, check_tasks, flag, parse_flags
from imagegen_dist.commands import name_of
from imagegen_dist.errors import UsageError

JOB = "evaluate"
_MOST = 100_000_000


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    model: Annotated[str, tyro.conf.Positional, flag("RUN|CHECKPOINT")] = ""
    """A run (its newest checkpoint), a checkpoint directory, or an exported folder: a path or URL."""
    package: Package = ""
    """Your own module that registers the model's objective and networks; its code is run."""
    data: Annotated[str, flag("URL")] = ""
    """Real samples: shards with an index.json, or a built-in dataset. Default: the run's own (held out, for a VAE)."""
    allow_remote_shards: Switch = False
    """Read shards of an index even if they are neither below nor beside it, e.g. in another bucket."""
    split: Annotated[Literal["train", "val"], flag("train|val")] = "train"
    """Split of a built-in dataset that --data names. Default: train."""
    metrics: Annotated[str, flag("NAME,...")] = ""
    """Metrics, listed below. Default: fid,kid,pr,dc,is, without those that the features cannot give."""
    samples: Annotated[int | None, flag("N")] = None
    """Generated samples. Default: as many as real samples, at most 50,000."""
    label_distribution: Annotated[Literal["", "data", "uniform"], flag("data|uniform")] = ""
    """Classes of a conditional model's samples: as frequent as in the real data, or equally frequent. Default: data."""
    references: Annotated[int | None, flag("N")] = None
    """Real samples, counted from the first. Default: all."""
    features: Annotated[str, flag("NETWORK")] = ""
    """Feature network, listed below. Default: inception with --weights, else classifier."""
    weights: Annotated[str, flag("URL")] = ""
    """Weights of the network, a safetensors file; for two networks: inception=URL,dinov2=URL."""
    weights_sha256: Annotated[str, flag("HASH")] = ""
    """Expected SHA-256 of that file, in the same form; the file is not read without it."""
    resize: Annotated[str, flag("FILTER")] = "tensorflow"
    """Resizing to Inception's input: tensorflow (as published) or bicubic (as clean-fid). Default: tensorflow."""
    kid_subset_size: Annotated[int | None, flag("N")] = None
    """Samples per subset of kid. Default: 1000, or all if there are fewer."""
    importance_samples: Annotated[int | None, flag("K")] = None
    """Importance samples of a VAE's log-likelihood, for each sample; 0: none. Default: the run's setting."""
    seed: Annotated[int, flag("N")] = 0
    """Seed of the generated samples and of kid's subsets. Default: 0."""
    workers: Annotated[int | None, flag("N")] = None
    """Ray tasks at once; 0: work in this process. Default: all CPU cores of the cluster, or 0 for little work."""
    cache: Annotated[str, flag("URL")] = ""
    """Where statistics of real samples are cached. Default: .cache beside the run."""
    out: Annotated[str, flag("FILE.json")] = ""
    """File for the figures. Default: one in evaluations/ of the run's directory."""


def parse(arguments: Sequence[str]) -> Options:
    """Read the job's arguments. Raises UsageError."""
    options = parse_flags(Options, JOB, arguments)
    if not options.model:
        raise UsageError(f"RUN is missing: the directory of a run or of a checkpoint (see {name_of(JOB)} --help)")
    several = (2, _MOST)
    check_range(options, samples=several, references=several, kid_subset_size=several, importance_samples=(0, _MOST))
    if not options.package:  # a package may register metrics
        asked_metrics(options.metrics, catalogue()["metrics"])
    check_tasks(options)
    return options


def asked_metrics(text: str, known: Mapping[str, object]) -> tuple[str, ...]:
    """The metrics named, each once; none for the default ones. Raises UsageError for one that is not known."""
    asked = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in asked:
        if name not in known:
            raise UsageError(f"--metrics {name}: no such metric; {config.nearest(name, known)}")
    return asked
