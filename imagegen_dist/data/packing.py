"""Pack a source into datasets: which of its records go to which dataset, then shards and an index of each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from imagegen_dist.data.builtin import SPLITS, builtin_dataset, is_builtin
from imagegen_dist.data.contents import Contents, Copies, contents_of, find_copies
from imagegen_dist.data.conversion import Conversion
from imagegen_dist.data.labels import empty_classes
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.pack_shards import (
    UNDECODABLE,
    UNDECODABLE_LIMIT,
    PackedDatasets,
    Target,
    UndecodableError,
    find_packed_datasets,
    pack_shards,
)
from imagegen_dist.data.pack_tasks import Recipe
from imagegen_dist.data.sample_conversion import SampleConversion
from imagegen_dist.data.sources.base import Source, SourceOptions
from imagegen_dist.data.sources.detect import open_source, resolve_source
from imagegen_dist.data.sources.relabelled import check_classes, relabelled
from imagegen_dist.data.sources.shards import open_dataset
from imagegen_dist.data.split import mixed_rows, split_rows
from imagegen_dist.errors import UsageError
from imagegen_dist.storage import Store, temporary_folder
from imagegen_dist.tasks import ShowProgress, TaskRunner, no_progress
from imagegen_dist.wording import counted, one_line

_DUPLICATES = "duplicates.txt"
"""Names the copies that were left out and the pictures that they equal, a line each."""

_SHARD_BYTES = 128 * 10**6

_LISTED = 20  # undecodable pictures that are named


@dataclass(frozen=True)
class PackConfig:
    """How files become datasets. Raises ValueError for values that do not fit together."""

    conversion: SampleConversion = Conversion()
    """The modality of the samples, their size and values, and the files that hold them."""
    format: str = ""
    """Extension in which samples are stored, one of the conversion's formats; "" for the first. A picture that has this
    format and needs no change is copied byte for byte."""
    shard_bytes: int = _SHARD_BYTES
    """Approximate bytes of a shard."""
    max_bad: float = UNDECODABLE_LIMIT
    """Share of the files that may be left out because they cannot be decoded, from 0 to 1."""
    split: Mapping[str, float] = field(default_factory=dict)
    """Share of the files by name of the dataset, e.g. {"train": 0.95, "val": 0.05}; {} makes one dataset."""
    dedup: bool = False
    """Leave out files that have the same bytes as another one."""
    relabel: bool = False
    """Number the classes that have pictures from 0; their old names or numbers become their names."""
    source: SourceOptions = SourceOptions()
    """Which of the source's pictures and labels to take."""

    def __post_init__(self) -> None:
        self.conversion.check_format(self.stored_as)

    @property
    def stored_as(self) -> str:
        """The extension of the samples."""
        return self.format or self.conversion.formats[0]


def pack_dataset(
    source: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    config: PackConfig | None = None,
    *,
    workers: int | None = None,
    run_tasks: TaskRunner | None = None,
    progress: ShowProgress = no_progress,
    tell: Callable[[str], None] = print,
) -> PackedDatasets:
    """Pack the files of a source into shards with an index; the same call continues an interrupted one.

    source: a folder of pictures or of files of another modality, a zip, parquet files or shards, as a path or URL
    (`open_source`), or the name of a built-in dataset. dest: folder for the shards and their index.json, or with
    `config.split` for a folder of each.
    workers: tasks at a time; None uses all CPU cores, or this process if there is little work; 0 uses this process.
    run_tasks: runs tasks, e.g. `imagegen_dist.ray.tasks.run_tasks`; None uses this process alone. progress: shows how
    much is done. tell: takes lines for the user about what was found and left out.

    Raises UsageError, DatasetError, UndecodableError if more than `config.max_bad` of the pictures cannot be decoded,
    ShardError, StorageError, TaskError, and PackingInterrupted for Ctrl-C.

        pack_dataset("photos/", "shards/", PackConfig(Conversion(size=(64, 64)), split={"train": 0.9, "val": 0.1}))
    """
    config, name, store = config or PackConfig(), os.fspath(source), Store(dest)
    name = name if is_builtin(name) else resolve_source(name)
    made_by = _made_by(name, config)
    if is_builtin(name):
        workers = 0  # its shards are in a temporary folder of this machine
    with _divided(name, store, config, made_by, workers, run_tasks, progress, tell) as division:
        opened = division.targets[0].source
        conversion = config.conversion.of_samples(opened.space)
        records, noun = sum(target.rows.size for target in division.targets), config.conversion.files.noun
        try:
            packed = division.packed or pack_shards(
                store,
                division.targets,
                Recipe(conversion, config.stored_as, modality=conversion.modality),
                made_by,
                config.shard_bytes,
                config.max_bad,
                {name: kind for name, kind in config.source.conditions.items() if kind},
                workers=workers,
                run_tasks=run_tasks,
                progress=progress,
                tell=tell,
            )
        except UndecodableError as error:
            _tell_left_out(error.lines, records, noun, opened, store, tell)
            raise
        _tell_left_out(packed.undecodable, records, noun, opened, store, tell)
        indexes = list(packed.indexes.values())
        if line := empty_classes((index.class_counts for index in indexes), indexes[0].class_names):
            tell(line)
        if packed.copies and not config.split and not config.dedup:  # otherwise they were reported before
            tell(_copies(packed.copies, records, noun, "--dedup leaves them out"))
        if division.duplicates:
            lines = "".join(f"{line}\n" for line in division.duplicates)
            store.write(_DUPLICATES, lines.encode(errors="backslashreplace"))
    return packed


class _Division(NamedTuple):
    """Which records go to which dataset."""

    targets: list[Target]
    duplicates: tuple[str, ...] = ()  # a line for each copy that is left out
    packed: PackedDatasets | None = None  # if everything is complete already


@contextlib.contextmanager
def _divided(
    name: str,
    dest: Store,
    config: PackConfig,
    made_by: Mapping[str, str],
    workers: int | None,
    run_tasks: TaskRunner | None,
    progress: ShowProgress,
    tell: Callable[[str], None],
) -> Iterator[_Division]:
    """Open a source and divide its records among datasets. Raises UsageError, DatasetError, StorageError."""
    if is_builtin(name):
        if config.split or config.relabel or config.dedup or config.source != SourceOptions():
            raise UsageError(
                f"{name} comes split, in a form of its own: give neither --split, --subset, --member, "
                "--dedup, columns nor what changes labels"
            )
        with temporary_folder("builtin") as cache:
            sources = {
                split: open_dataset(builtin_dataset(name, split, Store(cache), progress), config.conversion.files)
                for split in SPLITS
            }
            yield _Division([Target(split, source, np.arange(source.count)) for split, source in sources.items()])
        return
    source = open_source(name, replace(config.source, files=config.conversion.files))
    for note in source.notes:
        tell(note)
    if source.is_folder and f"{dest}/".startswith(f"{source.place}/"):
        raise UsageError(f"DEST {dest} is inside SOURCE {source.place}, which packing would change")
    source = relabelled(source) if config.relabel else check_classes(source)
    rows, names = mixed_rows(source.count) if source.mixes else np.arange(source.count), list(config.split) or [""]
    if not config.split and not config.dedup:
        yield _Division([Target("", source, rows)])
    elif packed := find_packed_datasets(dest, names, source, made_by):
        yield _Division([Target(each, source, rows[:0]) for each in names], (), packed)
    else:
        yield _divide(source, rows, config, contents_of(source, workers, run_tasks, progress), tell)


def _divide(
    source: Source, rows: IntArray, config: PackConfig, contents: Contents, tell: Callable[[str], None]
) -> _Division:
    """Divide records by their contents, so that copies are left out or fall into one dataset."""
    copies = find_copies(contents.digests)
    labels = source.labels if source.labels is not None else contents.labels
    _tell_copies(source, copies, labels, config, tell)
    duplicates: tuple[str, ...] = ()
    if config.dedup:
        later = copies.later()
        rows = rows[~np.isin(rows, later)]
        pairs = zip(later.tolist(), copies.first[copies.group[later]].tolist(), strict=True)
        duplicates = tuple(f"{source.name_of(row)} is {source.name_of(kept)}" for row, kept in pairs)
    if not config.split:
        return _Division([Target("", source, rows)], duplicates)
    parts = split_rows(rows, list(config.split.values()), labels, copies)
    targets = [Target(name, source, part) for name, part in zip(config.split, parts, strict=True)]
    for target in targets:
        if target.rows.size == 0:
            some = f", {copies.total:,} of them copies" if copies.total else ""
            raise UsageError(
                f"--split {_shares(config)}: {target.name} would get none of "
                f"{counted(source.count, config.conversion.files.noun)}{some}"
            )
    return _Division(targets, duplicates)


def _made_by(source: str, config: PackConfig) -> dict[str, str]:
    """Everything that determines the bytes of the datasets, by the names that the user knows."""
    conversion, options = config.conversion, config.source
    return {
        "SOURCE": source,
        "--modality": "" if conversion.modality == "image" else conversion.modality,
        "--format": config.stored_as,
        "--shard-size": f"{config.shard_bytes}",
        **conversion.flags(),
        "--member": options.member,
        "--split": _shares(config),
        "--image-column": options.image_column,
        "--dedup": "yes" if config.dedup else "",
        "--label-column": options.label_column,
        "--labels": "" if options.labelled else "none",
        "--relabel": "yes" if config.relabel else "",
        "--subset": options.subset,
        "--attributes": Store(options.attributes).url if options.attributes else "",
        "--conditions": ",".join(f"{name}:{kind}" if kind else name for name, kind in options.conditions.items()),
        "--folders": options.folders,
    }


def _shares(config: PackConfig) -> str:
    return ",".join(f"{name}:{share:g}" for name, share in config.split.items())


def _copies(copies: int, records: int, noun: str, remedy: str) -> str:
    are = "is a copy of another" if copies == 1 else "are copies of others"
    return f"{copies:,} of {counted(records, noun)} {are}, byte for byte: {remedy}"


def _tell_copies(
    source: Source, copies: Copies, labels: IntArray | None, config: PackConfig, tell: Callable[[str], None]
) -> None:
    """Tell how many records are copies, and which of these have several labels."""
    if not copies.total:
        return
    remedy = f"{_DUPLICATES} names those left out" if config.dedup else "they fall on one side; --dedup leaves them out"
    tell(_copies(copies.total, source.count, config.conversion.files.noun, remedy))
    conflicts = copies.conflicts(labels) if labels is not None else np.empty(0, np.int64)
    if conflicts.size:
        row = int(conflicts[0])
        first = int(copies.first[copies.group[row]])
        tell(
            f"{conflicts.size:,} of them have another label than the first of their kind: {source.name_of(row)} and "
            f"{source.name_of(first)}"
        )


def _tell_left_out(
    undecodable: Sequence[str], records: int, noun: str, source: Source, dest: Store, tell: Callable[[str], None]
) -> None:
    for line in undecodable[:_LISTED]:
        tell(f"left out: {one_line(line)}")
    if len(undecodable) > _LISTED:
        tell(f"... and {len(undecodable) - _LISTED:,} more: {dest / UNDECODABLE}")
    if undecodable:
        tell(f"{len(undecodable):,} of {counted(records, noun)} cannot be decoded")
    if source.left_out:
        some = ", ".join(source.left_out[:5]) + (", ..." if len(source.left_out) > 5 else "")
        tell(f"{counted(len(source.left_out), 'file')} left out, not named as {noun}s are: {one_line(some)}")
