"""Shards of any writer as a source, to be packed again."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from imagegen_dist.data.conditioned_shard import ConditionedShard
from imagegen_dist.data.index import INDEX_NAME, DatasetError, DatasetIndex
from imagegen_dist.data.labels import Label, number_labels, number_names
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.shard import Shard
from imagegen_dist.data.shard_file import opened
from imagegen_dist.data.sources.base import (
    Record,
    Records,
    Source,
    SourceFiles,
    SourceOptions,
    UnfitError,
    intervals,
    listing_digest,
    register_source,
)
from imagegen_dist.data.sources.files import PICTURE_FILES, FileKinds
from imagegen_dist.data.sources.subsets import Subset
from imagegen_dist.data.sources.tar_classes import CLASS_NAMES, Survey, class_names_beside, classes_of_tars, survey
from imagegen_dist.storage import PATIENCE_S, Store
from imagegen_dist.wording import counted


class _Piece(NamedTuple):
    """Some samples of one shard."""

    shard: str
    samples: int  # number of samples in the shard
    rows: tuple[int, ...]  # ascending
    labels: tuple[int, ...] | None  # of these rows, if known


@dataclass(frozen=True)
class ShardSource(Source):
    """The samples of shards, in their order.

    stored: True if the labels are in the shards and were not read yet, which is possible with an index.
    """

    shards: tuple[str, ...] = ()
    offsets: tuple[int, ...] = ()  # number of each shard's first sample, followed by the number of samples
    stored: bool = False
    class_counts: tuple[int, ...] | None = None  # samples of each class according to the index
    extensions: tuple[str, ...] = PICTURE_FILES.members  # of the pictures

    def name_of(self, row: int) -> str:
        """The name of a record."""
        at, _, inside = next(intervals(self.offsets, np.array([row])))
        return _name(self.shards[at], int(inside[0]))

    def select(self, rows: IntArray) -> Records:
        """The records with these numbers, which are ascending."""
        pieces = []
        for at, some, inside in intervals(self.offsets, rows):
            labels = None if self.labels is None else tuple(self.labels[rows[some]].tolist())
            samples = self.offsets[at + 1] - self.offsets[at]
            pieces.append(_Piece(self.shards[at], samples, tuple(inside.tolist()), labels))
        numbers = number_names(self.class_names or ()) if self.stored else None
        store = Store(self.place, PATIENCE_S)
        if self.parts:
            return _ConditionedSamples(store, tuple(pieces), self.extensions)
        return _Samples(store, tuple(pieces), numbers, self.extensions)


@dataclass(frozen=True)
class _Samples(Records):
    store: Store
    pieces: tuple[_Piece, ...]
    numbers: dict[str, int] | None  # of the classes by name, if labels are read from the shards
    extensions: tuple[str, ...] = PICTURE_FILES.members  # of the pictures

    def read(self) -> Iterator[Record]:
        for piece in self.pieces:
            with opened(self.store, piece.shard) as (read_at, size):
                shard = Shard(read_at, size, (self.store / piece.shard).url, self.extensions, piece.samples)
                for row, label in zip(piece.rows, piece.labels or (None,) * len(piece.rows), strict=True):
                    known = label if self.numbers is None else _number(shard, row, self.numbers)
                    yield Record(_name(piece.shard, row), known, shard.picture(row)[0])


@dataclass(frozen=True)
class _ConditionedSamples(Records):
    store: Store
    pieces: tuple[_Piece, ...]
    extensions: tuple[str, ...]  # of the pictures

    def read(self) -> Iterator[Record]:
        for piece in self.pieces:
            with opened(self.store, piece.shard) as (read_at, size):
                url = (self.store / piece.shard).url
                shard = ConditionedShard(read_at, size, url, self.extensions, piece.samples)
                for row in piece.rows:
                    data, _, condition = shard.sample(row)
                    if not condition:
                        raise UnfitError(f"{url}: {shard.key(row)} has no condition, which other samples have")
                    yield Record(_name(piece.shard, row), None, data, condition=condition)


def _name(shard: str, row: int) -> str:
    return f"{shard} sample {row}"


def _number(shard: Shard, row: int, numbers: dict[str, int]) -> int | None:
    """The label of a sample in a shard, as a number. Raises UnfitError for a name that is not a class."""
    label = shard.label(row)
    if isinstance(label, str) and label not in numbers:
        raise UnfitError(f"{shard.name}: the label of {shard.key(row)} is {label!r}, which the index does not name")
    return numbers[label] if isinstance(label, str) else label


def open_dataset(store: Store, files: FileKinds = PICTURE_FILES) -> ShardSource:
    """List all samples of a dataset. Raises as `open_shards`."""
    return open_shards(SourceFiles(store.url, [], SourceOptions(files=files), Subset()))


@register_source(".tar", accepts=("member",))
def open_shards(files: SourceFiles) -> ShardSource:
    """List the samples of shards, by their index if there is one, else by reading headers and labels.

    Without names, all shards that the index lists are taken. Without an index, shards of pictures alone have classes if
    there is one tar for each class, or if the tars hold folders. Raises ShardError for a damaged shard; DatasetError
    for a corrupt index, for samples of another modality, for shards of several splits, and for labels that cannot be
    classes; StorageError.
    """
    store, names, options = files.folder, files.names, files.options
    index = DatasetIndex.load(store, options.remote_shards) if store.exists(INDEX_NAME) else None
    if index is None:
        return _open_unindexed(store, files.subset.files(names, "shards", store.url), options)
    listed = index.location(store)
    names = names or [shard.name for shard in index.shards]
    if options.subset:
        names = files.subset.files(names, "shards", store.url)
    if index.modality != options.files.modality:
        raise DatasetError(f"{listed} holds {index.modality}: say so with --modality {index.modality}")
    if not set(names) <= {shard.name for shard in index.shards}:
        raise DatasetError(f"{listed} has shards that its {INDEX_NAME} does not list: remove one or the other")
    known = {shard.name: (shard.samples, shard.sha256) for shard in index.shards}
    labelled = options.labelled and index.classes is not None
    conditions = index.conditions if options.labelled else None
    return _source(
        listed,
        names,
        [known[name][0] for name in names],
        [known[name][1] for name in names],
        classes=index.classes if labelled else None,
        class_names=index.class_names if labelled else None,
        stored=labelled,
        class_counts=index.class_counts if labelled else None,
        extensions=(options.member,) if options.member else index.extensions,
        parts=tuple(part.name for part in conditions.parts) if conditions is not None else (),
        space=index.space,
    )


def _open_unindexed(store: Store, names: list[str], options: SourceOptions) -> ShardSource:
    extensions = (options.member,) if options.member else options.files.members
    surveys = [_survey(store, name, options.labelled, extensions) for name in names]
    sizes = [str(store.size(name)) for name in names]
    counts = [each.samples for each in surveys]
    parts = next((each.parts for each in surveys if each.parts), ())
    with_labels = options.labelled and not parts
    labels, class_names, notes = _labels(store, names, surveys) if with_labels else (None, None, ())
    classes = None if labels is None else len(class_names) if class_names else int(labels.max()) + 1
    found = {"labels": labels, "classes": classes, "class_names": class_names, "notes": notes}
    return _source(store, names, counts, sizes, **found, extensions=extensions, parts=parts)


def _source(store: Store, names: list[str], counts: list[int], contents: list[str], **more: Any) -> ShardSource:
    if sum(counts) == 0:
        raise DatasetError(f"{store} has shards, but no samples in them")
    return ShardSource(
        place=store.url,
        count=sum(counts),
        listing=listing_digest(zip(names, counts, contents, strict=True)),
        mixes=False,
        shards=tuple(names),
        offsets=(0, *np.cumsum(counts).tolist()),
        **more,
    )


def _labels(
    store: Store, names: list[str], surveys: list[Survey]
) -> tuple[IntArray | None, tuple[str, ...] | None, tuple[str, ...]]:
    """(the label of each sample, the names of the classes, lines for the user). Raises DatasetError."""
    found = [label for each in surveys for label in each.labels]
    known = [label for label in found if label is not None]
    named = class_names_beside(store)
    if not known:
        told = classes_of_tars(names, surveys, store.url)
        if named is not None and told is None:
            raise DatasetError(f"{store} names {counted(len(named), 'class')}, but the samples have no labels")
        if told is None:
            return None, None, ()
        if named is None or named == told[1]:
            return told
        raise DatasetError(f"{store / CLASS_NAMES} names other classes than the tars do ({', '.join(told[1][:9])})")
    if len(known) < len(found):
        raise DatasetError(f"{store}: {len(found) - len(known):,} of {counted(len(found), 'sample')} have no label")
    try:
        return (*_numbered(known, named), ())
    except ValueError as error:
        raise DatasetError(f"{store}: {error}") from error


def _numbered(labels: list[Label], named: tuple[str, ...] | None) -> tuple[IntArray, tuple[str, ...] | None]:
    """(labels as numbers, the names of the classes). Raises ValueError for labels that are not among given names."""
    if named is not None and all(isinstance(label, str) for label in labels):
        number = number_names(named)
        if unknown := next((label for label in labels if label not in number), None):
            raise ValueError(f"there is the label {unknown!r}, which is none of the {counted(len(named), 'name')}")
        return np.array([number[str(label)] for label in labels], dtype=np.int64), named
    numbers, names = number_labels(labels)
    if named is not None and numbers.max() >= len(named):
        raise ValueError(f"there is the label {numbers.max()}, but there are names for {counted(len(named), 'class')}")
    return numbers, named or names


def _survey(store: Store, name: str, labelled: bool, extensions: tuple[str, ...]) -> Survey:
    with opened(store, name) as (read_at, size):
        return survey(read_at, size, (store / name).url, extensions, labelled)
