"""Digests of pictures' bytes: copies are counted, left out, or kept on the same side of a split."""

from __future__ import annotations

import hashlib
import time
from contextlib import closing
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import Records, Source
from imagegen_dist.tasks import Advance, ShowProgress, TaskRunner, run_in_process

SHORT_DIGEST_BYTES = 8
"""Size of the digests by which copies are counted only."""

IN_PROCESS_S = 10.0
"""Seconds of work up to which one process finishes sooner than tasks, which take time to start."""

_DIGEST_BYTES = 16  # no two of a billion pictures share a digest by chance
_NO_LABEL = -1
_CHUNK = 5_000  # records of a task
_TIMED = 100  # records by which the pace is measured


class Contents(NamedTuple):
    """What some records contain, by number."""

    digests: NDArray[np.uint64]  # of the bytes of each picture, [N, 2]
    labels: IntArray | None  # [N]; None if they have none


class Copies(NamedTuple):
    """Which records have the same bytes."""

    group: IntArray  # group of equal records that each record belongs to, [N]
    first: IntArray  # number of each group's first record, [G]

    @property
    def total(self) -> int:
        """Number of records that are copies of an earlier one."""
        return self.group.size - self.first.size

    def later(self) -> IntArray:
        """The records that are copies of an earlier one, ascending."""
        kept = np.zeros(self.group.size, dtype=np.bool_)
        kept[self.first] = True
        return np.flatnonzero(~kept)

    def conflicts(self, labels: IntArray) -> IntArray:
        """The copies whose label differs from that of the earlier record, ascending."""
        later = self.later()
        return later[labels[later] != labels[self.first[self.group[later]]]]


def content_digest(data: bytes, size: int) -> bytes:
    """A digest of `size` bytes."""
    return hashlib.blake2b(data, digest_size=size).digest()


def count_copies(digests: bytes) -> int:
    """How many of the pictures with these concatenated short digests are copies of others."""
    words = np.frombuffer(digests, dtype=f"V{SHORT_DIGEST_BYTES}").view("<u8")
    return words.size - np.unique(words).size


def contents_of(source: Source, workers: int | None, run_tasks: TaskRunner | None, progress: ShowProgress) -> Contents:
    """Read all records of a source once for their digests and labels. Arguments are those of `pack_shards`.

    Raises whatever reading the source raises.
    """
    with progress("looking for copies") as shown:
        shown.start(source.count, 0, "looking for copies")
        began, first = time.monotonic(), min(_TIMED, source.count)
        parts = {-1: _read_contents(source.select(np.arange(first)), shown.advance)}
        left = (time.monotonic() - began) / first * (source.count - first)
        chunks = -(-(source.count - first) // _CHUNK)
        rows = np.array_split(np.arange(first, source.count), chunks) if chunks else []
        parallel = workers != 0 and not source.place.startswith("memory://") and left > IN_PROCESS_S
        run = run_tasks if parallel and run_tasks is not None else run_in_process
        with closing(run(_read_contents, [source.select(each) for each in rows], workers, shown.advance)) as results:
            parts.update(results)
    return _join_contents([parts[number] for number in sorted(parts)])


def _read_contents(records: Records, advance: Advance) -> Contents:
    """Read records for their digests and labels. A record that cannot be read equals no other one."""
    digests, labels = bytearray(), list[int]()
    for record in records.read():
        data = record.data or f"{record.name}\0{record.problem}".encode(errors="backslashreplace")
        digests += content_digest(data, _DIGEST_BYTES)
        labels.append(_NO_LABEL if record.label is None else record.label)
        advance(1)
    words = np.frombuffer(bytes(digests), dtype="<u8").astype(np.uint64).reshape(-1, 2)
    return Contents(words, None if _NO_LABEL in labels else np.array(labels, dtype=np.int64))


def _join_contents(parts: list[Contents]) -> Contents:
    known = [part.labels for part in parts if part.labels is not None]
    labels = np.concatenate(known) if len(known) == len(parts) else None
    return Contents(np.concatenate([part.digests for part in parts]), labels)


def find_copies(digests: NDArray[np.uint64]) -> Copies:
    """Group records by the digests of their bytes, [N, 2]."""
    order = np.lexsort((np.arange(len(digests)), digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.cumsum(begins) - 1
    return Copies(group, order[begins])
