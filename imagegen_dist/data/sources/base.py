"""What every source of pictures can do: tell its records, and hand out some of them, to be read anywhere."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.order import IntArray
from imagegen_dist.storage import Store

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_INFLATED = 128 << 20
"""Bytes above which a compressed picture is not unpacked: picture files hardly shrink, so that it would be a bomb."""

_AHEAD_BYTES = 512 << 20  # that requests under way may come to
_READERS = 16  # requests at once to remote storage, which each take their time and little else


class UnfitError(DatasetError):
    """Pictures or labels that do not fit together as they are: other flags, or another source, are needed."""


class Record(NamedTuple):
    """One picture as it is stored."""

    name: str  # below the source, for the user
    label: int | None
    data: bytes  # of the picture's file
    problem: str = ""  # why there are no bytes


class Records(ABC):
    """Some of a source's records, in order: a value that can be pickled and read in any process."""

    @abstractmethod
    def read(self) -> Iterator[Record]:
        """Each record's bytes. Raises DatasetError, ShardError, StorageError."""


@dataclass(frozen=True)
class Source(ABC):
    """The records of a place, which were listed and not yet read.

    labels: of every record, [N], where the listing tells; classes: None where only reading tells, or without labels.
    mixes: whether the records are taken in an order that mixes the classes; else as they are stored, since reading
    them out of order would cost a request each. listing: a SHA-256 over all that was listed.
    """

    place: str  # URL
    count: int  # records
    listing: str
    mixes: bool
    labels: IntArray | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()  # visible files that are no pictures by their extension
    notes: tuple[str, ...] = ()  # lines for the user: what was taken for what

    def name_of(self, row: int) -> str:
        """A record's name, as it has when it is read."""
        return next(iter(self.select(np.array([row])).read())).name

    @abstractmethod
    def select(self, rows: IntArray) -> Records:
        """The records of those numbers; ascending where the source does not mix."""


def listing_digest(listed: Iterable[Any]) -> str:
    """SHA-256 of what was listed, each a JSON value."""
    digest = hashlib.sha256()
    for each in listed:
        digest.update(json.dumps(each, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def touched(offsets: tuple[int, ...], rows: IntArray) -> list[int]:
    """Of stretches of records, each from one offset to the next, those that hold some of the rows."""
    return np.unique(np.searchsorted(offsets, rows, side="right") - 1).tolist()


def each_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], store: Store, largest: int = 0
) -> Iterator[Result]:
    """What the function returns for each item, in order; on remote storage several requests are under way at once.

    largest: bytes of the largest result, where that is known: fewer are under way where they would fill the memory.
    """
    if store.protocol in ("file", "memory"):
        yield from map(function, items)
        return
    readers = max(1, min(_READERS, _AHEAD_BYTES // (2 * max(1, largest))))
    with ThreadPoolExecutor(readers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * readers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
