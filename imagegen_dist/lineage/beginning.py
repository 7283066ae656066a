"""Begin with the weights of a source: what fits is taken over, the rest stays as initialised."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.config import kind
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.errors import UsageError
from imagegen_dist.experiment import Experiment, Labels
from imagegen_dist.lineage.matching import Match, match, take_
from imagegen_dist.lineage.record import INIT, Lineage
from imagegen_dist.lineage.source import Source, read_source
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.training.loop import Trainer
from imagegen_dist.training.state import below
from imagegen_dist.wording import counted

_NAMED = 3
"""Modules that are named where several are new."""

_MODULE = re.compile(r"[^.]+(\.\d+)?")


def plan(
    given: str, source: Source, experiment: Experiment, index: DatasetIndex, networks: Mapping[str, nn.Module]
) -> Lineage:
    """What a run will take over. given: what the user named; networks: with their initial weights, by role.

    Raises UsageError if the source is of another family, or if nothing fits.
    """
    model = kind(type(experiment.model))
    if source.model != model:
        raise UsageError(
            f"--{INIT} {given} is a {source.model}, and this run trains a {model}: give a source of the same --model"
        )
    matches = _matches(source, index, networks)
    if not any(found.taken for found in matches.values()):
        raise UsageError(f"--{INIT} {given}: none of its weights fits the networks of this run, by name and shape")
    return Lineage(
        INIT,
        given,
        source.url,
        source.fingerprint,
        source.images,
        tuple(f"{name} {len(found.taken)} of {found.size} tensors" for name, found in matches.items() if found.taken),
        tuple(_new(source, index, matches)),
        scaling_factor=source.scaling_factor,
    )


def begin_(trainer: Trainer, lineage: Lineage, index: DatasetIndex) -> None:
    """Give a trainer at its first step the source's weights, averages included.

    Raises CheckpointError if the source is no longer what it was when the run was started.
    """
    source = read_source(lineage.source)
    if source.fingerprint != lineage.fingerprint:
        raise CheckpointError(f"{lineage.source} has changed since the run was started: choose another --run")
    modules = trainer.objective.modules()
    networks = {name: module for name, module in modules.items() if any(True for _ in module.parameters())}
    matches = _matches(source, index, networks)
    averages = trainer.averages.modules()
    for name, found in matches.items():
        take_(networks[name], found.taken)
        if name in averages:
            take_(averages[name], found.taken)


def _matches(source: Source, index: DatasetIndex, networks: Mapping[str, nn.Module]) -> dict[str, Match]:
    same = _same_labels(source, index)
    return {name: match(network, below(source.tensors, name), same) for name, network in networks.items()}


def _same_labels(source: Source, index: DatasetIndex) -> bool:
    """True if a class table of the source holds the data's classes or conditions, as far as both say.

    Another library's weights do not say: their table is taken if it has as many classes.
    """
    if source.experiment is None:
        return True
    if isinstance(source.labels, Conditions) or isinstance(index.labels, Conditions):
        return _parts(source.labels) == _parts(index.labels)
    named = source.class_names is None or index.class_names is None or source.class_names == tuple(index.class_names)
    return source.labels == index.labels and named


def _parts(labels: Labels) -> list[tuple[object, ...]]:
    """What the places of a condition's vector mean; of numbers, deviations from the mean of their data."""
    if not isinstance(labels, Conditions):
        return [(labels,)]
    return [(part.name, part.kind, part.size, part.names) for part in labels.parts]


def _described(labels: Labels) -> str:
    return labels.describe() if isinstance(labels, Conditions) else counted(labels or 0, "class")


def _new(source: Source, index: DatasetIndex, matches: Mapping[str, Match]) -> Iterable[str]:
    """What stays as initialised, and why, in a line for each reason."""
    tables = [f"{name}/{table}" for name, found in matches.items() for table in found.tables]
    if tables:
        there, here = _described(source.labels), _described(index.labels)
        differ = f"{there} there, {here} here" if there != here else "their classes have other names"
        yield f"{', '.join(tables)}: {differ}"
    for name, found in matches.items():
        if not found.taken:
            yield f"{name}: the source has none that fits"
        for of_z in found.of_z:
            yield f"{name}/{of_z}: the columns of z are taken, those of the class vector are not"
        if found.taken and found.missing:
            yield f"{name}/{_modules(found.missing)}: no tensor of that name and shape there"


def _modules(names: Iterable[str]) -> str:
    """The modules that tensors belong to; a stage of a list is one: "stages.3, to_pixels"."""
    modules = list(dict.fromkeys(match[0] for name in names if (match := _MODULE.match(name))))
    shown = ", ".join(modules[:_NAMED])
    return shown if len(modules) <= _NAMED else f"{shown} and {len(modules) - _NAMED} more"
