"""The command line of the evaluation job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import tyro

from imagegen_dist import config
from imagegen_dist.cli.command import Switch, flag, flags_help, listing, parse_flags
from imagegen_dist.commands import name_of
from imagegen_dist.errors import UsageError
from imagegen_dist.evaluation.feature_networks import CLASSIFIER, FEATURES, FeatureSource
from imagegen_dist.evaluation.figures import DEFAULT_METRICS, METRICS, OF_A_CLASSIFIER

JOB = "evaluate"
MOST_BY_DEFAULT = 50_000
"""Generated samples where the user does not say: as many as there are real ones, and no more than published figures."""

_SUMMARY = (
    "Measure a trained model: its samples beside real ones, and what a VAE makes of real ones. Every figure is printed "
    "and stored with its settings."
)
_WEIGHTED = ("inception", "dinov2")


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    model: Annotated[str, tyro.conf.Positional, flag("RUN|CHECKPOINT")] = ""
    """A run's directory (its newest checkpoint), that of one checkpoint, or an exported folder: a path, s3://..."""
    data: Annotated[str, flag("URL")] = ""
    """Real samples: shards with an index.json, or a built-in dataset. Default: the run's own (held out, for a VAE)."""
    allow_remote_shards: Switch = False
    """Read shards of an index that says they lie neither below nor beside it, e.g. in another bucket."""
    split: Annotated[Literal["train", "val"], flag("train|val")] = "train"
    """Of a built-in dataset named by --data. Default: train."""
    metrics: Annotated[str, flag("NAME,...")] = ""
    """Figures, see below. Default: fid,kid,pr,dc,is, less what the features cannot give."""
    samples: Annotated[int | None, flag("N")] = None
    """Generated samples. Default: as many as real ones, at most 50,000."""
    label_distribution: Annotated[Literal["", "data", "uniform"], flag("data|uniform")] = ""
    """Classes of a conditional model's samples: in the frequencies of the real data, or all alike. Default: data."""
    references: Annotated[int | None, flag("N")] = None
    """Real samples: the first so many. Default: all."""
    features: Annotated[str, flag("NETWORK")] = ""
    """In whose features, see below. Default: inception where --weights are given, else classifier."""
    weights: Annotated[str, flag("URL")] = ""
    """The network's weights, a safetensors file; of two networks: inception=URL,dinov2=URL."""
    weights_sha256: Annotated[str, flag("HASH")] = ""
    """What the file's SHA-256 has to be, likewise; it is not looked into otherwise."""
    resize: Annotated[str, flag("FILTER")] = "tensorflow"
    """To Inception's size: tensorflow (as published) or bicubic (as clean-fid). Default: tensorflow."""
    kid_subset_size: Annotated[int | None, flag("N")] = None
    """Samples of a subset of kid. Default: 1000, or all where there are fewer."""
    importance_samples: Annotated[int | None, flag("K")] = None
    """Of a VAE's log-likelihood, for each sample; 0: none. Default: the run's setting."""
    seed: Annotated[int, flag("N")] = 0
    """Of the generated samples, and of kid's subsets. Default: 0."""
    workers: Annotated[int | None, flag("N")] = None
    """Ray tasks at once; 0: all work in this process. Default: all of the cluster; where there is little work, 0."""
    cache: Annotated[str, flag("URL")] = ""
    """Where statistics of real samples are kept. Default: .cache beside the run."""
    out: Annotated[str, flag("FILE.json")] = ""
    """Where the figures are written. Default: evaluations/ in the run's directory."""


def parse(arguments: Sequence[str]) -> Options:
    """Read the job's arguments. Raises UsageError."""
    options = parse_flags(Options, JOB, arguments)
    if not options.model:
        raise UsageError(f"RUN is missing: the directory of a run or of a checkpoint (see {name_of(JOB)} --help)")
    for name, least in (("samples", 2), ("references", 2), ("kid_subset_size", 2), ("importance_samples", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} {value}: {least} or more")
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers {options.workers}: a number of tasks from 1, or 0 for this process")
    return options


def help_text(words: Sequence[str] = ()) -> str:
    """What --help prints."""
    networks = "\n".join(f"  {name}" for name in FEATURES)
    return f"{flags_help(Options, JOB, _SUMMARY)}\n\n{listing('metrics', METRICS)}\n\nfeatures\n{networks}"


def asked_metrics(text: str) -> tuple[str, ...]:
    """The metrics named, each once; the default ones where none is. Raises UsageError."""
    asked = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in asked:
        if name not in METRICS:
            raise UsageError(f"--metrics {name}: no such metric; {config.nearest(name, METRICS)}")
    return asked or DEFAULT_METRICS


def feature_sources(options: Options, metrics: Sequence[str]) -> dict[FeatureSource, tuple[str, ...]]:
    """The networks that are needed, each with the metrics in its features; a classifier still without weights.

    Raises UsageError, ValueError.
    """
    weights, hashes = _by_network(options.weights), _by_network(options.weights_sha256)
    only_dinov2 = set(metrics) == {"fd-dinov2"}
    asked = options.features or (
        "inception" if weights.keys() & {"", "inception"} and not only_dinov2 else "classifier"
    )
    found: dict[FeatureSource, tuple[str, ...]] = {}
    main = FeatureSource.parse(asked, options.resize)
    if first := tuple(name for name in metrics if name not in ("fd-dinov2", *OF_A_CLASSIFIER)):
        found[main] = first
    if of_labels := tuple(name for name in metrics if name in OF_A_CLASSIFIER):
        classifier = main if main.kind == CLASSIFIER else FeatureSource.parse(CLASSIFIER)
        found[classifier] = (*found.get(classifier, ()), *of_labels)
    if "fd-dinov2" in metrics:
        dinov2 = main if main.kind.startswith("dinov2") else FeatureSource.parse("dinov2")
        found[dinov2] = (*found.get(dinov2, ()), "fd-dinov2")
    weighted = [source for source in found if source.has_weights]
    for given, name in ((weights, "--weights"), (hashes, "--weights-sha256")):
        if "" in given and len(weighted) > 1:
            raise UsageError(f"{name} {given['']}: of which network? give inception=...,dinov2=...")
        unused = given.keys() - {"", *(_family(source) for source in weighted)}
        if unused or (given and not weighted):
            raise UsageError(f"{name} {','.join(given.values())}: --features {asked} takes none of it; leave it out")
    return {
        _with_file(source, weights, hashes) if source.has_weights else source: named for source, named in found.items()
    }


def _with_file(source: FeatureSource, weights: dict[str, str], hashes: dict[str, str]) -> FeatureSource:
    family = _family(source)
    return replace(
        source, weights=weights.get(family, weights.get("", "")), sha256=hashes.get(family, hashes.get("", ""))
    )


def _family(source: FeatureSource) -> str:
    return source.kind.partition("-")[0]


def _by_network(text: str) -> dict[str, str]:
    """NAME=VALUE,... by name, or one value under no name."""
    named: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, given, value = part.partition("=")
        if given and name in _WEIGHTED:
            named[name] = value
        else:
            return {"": text}
    return named
