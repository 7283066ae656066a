"""Shards that are there, whoever wrote them, to be packed anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np

from imagegen_dist.data.index import INDEX_NAME, DatasetError, DatasetIndex
from imagegen_dist.data.labels import number_names
from imagegen_dist.data.modality import modality
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.shard import Shard
from imagegen_dist.data.sources.base import Record, Records, Source, UnfitError, listing_digest, touched
from imagegen_dist.storage import Store


class _Piece(NamedTuple):
    """Some samples of one shard."""

    shard: str
    samples: int  # that the shard has
    rows: tuple[int, ...]  # ascending


@dataclass(frozen=True)
class ShardSource(Source):
    """The samples of shards, in their order."""

    shards: tuple[str, ...] = ()
    offsets: tuple[int, ...] = ()  # number of each shard's first sample and, last, of samples

    def select(self, rows: IntArray) -> Records:
        """The records of those numbers, ascending."""
        pieces = []
        for at in touched(self.offsets, rows):
            first, end = self.offsets[at], self.offsets[at + 1]
            low, high = np.searchsorted(rows, [first, end]).tolist()
            pieces.append(_Piece(self.shards[at], end - first, tuple((rows[low:high] - first).tolist())))
        return _Samples(Store(self.place), tuple(pieces), number_names(self.class_names or ()))


@dataclass(frozen=True)
class _Samples(Records):
    store: Store
    pieces: tuple[_Piece, ...]
    numbers: dict[str, int]  # of the classes, by name

    def read(self) -> Iterator[Record]:
        for piece in self.pieces:
            with _opened(self.store, piece.shard, piece.samples) as shard:
                for row in piece.rows:
                    yield Record(f"{piece.shard} sample {row}", self._label(shard, row), shard.picture(row)[0])

    def _label(self, shard: Shard, row: int) -> int | None:
        label = shard.label(row)
        if isinstance(label, str) and label not in self.numbers:
            raise UnfitError(
                f"{shard.name}: the label of {shard.key(row)} is {label!r}, which is the name of no class; index the "
                "shards with --index-only, which numbers their names"
            )
        return self.numbers[label] if isinstance(label, str) else label


def open_shards(store: Store, names: list[str]) -> ShardSource:
    """The samples of a folder's shards, counted by its index where there is one, else by walking their headers.

    names: of the shards; none for all that the index lists.
    Raises ShardError for a damaged shard, DatasetError for a corrupt index and for shards of something else than
    images, StorageError.
    """
    index = DatasetIndex.load(store) if store.exists(INDEX_NAME) else None
    if index is not None:
        store = index.location(store)
        names = names or [shard.name for shard in index.shards]
    if index is not None and index.modality != "image":
        raise DatasetError(f"{store} holds {index.modality}, not images")
    if index is not None and not set(names) <= {shard.name for shard in index.shards}:
        raise DatasetError(f"{store} has shards that its {INDEX_NAME} does not list: remove one or the other")
    if index is not None:
        known = {shard.name: (shard.samples, shard.sha256) for shard in index.shards}
        counts = [known[name][0] for name in names]
        contents = [known[name][1] for name in names]
    else:
        counts = [_count(store, name) for name in names]
        contents = [str(store.size(name)) for name in names]
    if sum(counts) == 0:
        raise DatasetError(f"{store} has shards, but not one sample in them")
    return ShardSource(
        place=store.url,
        count=sum(counts),
        listing=listing_digest(zip(names, counts, contents, strict=True)),
        mixes=False,
        classes=None if index is None else index.classes,
        class_names=None if index is None else index.class_names,
        shards=tuple(names),
        offsets=(0, *np.cumsum(counts).tolist()),
    )


def _count(store: Store, name: str) -> int:
    with _opened(store, name, None) as shard:
        return len(shard)


@contextmanager
def _opened(store: Store, name: str, samples: int | None) -> Iterator[Shard]:
    """A shard to read in: in place on the local disk, else fetched whole, since its headers lie all over it."""
    extensions = modality("image").extensions
    if store.local_path(name) is None:
        data = store.read(name)
        yield Shard(lambda at, length: data[at : at + length], len(data), (store / name).url, extensions, samples)
        return
    with store.opened(name) as file:

        def read_at(offset: int, length: int, file: BinaryIO = file) -> bytes:
            file.seek(offset)
            return file.read(length)

        yield Shard(read_at, store.size(name), (store / name).url, extensions, samples)
