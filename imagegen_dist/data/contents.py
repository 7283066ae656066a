"""What pictures are by their bytes: copies fall on one side of a split, and are counted or left out."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import Records

_DIGEST_BYTES = 16  # so that no two of a billion pictures share one by chance

SHORT_DIGEST_BYTES = 8
"""Of digests by which copies are counted and not told apart."""

_NO_LABEL = -1


class Contents(NamedTuple):
    """Some records, by number."""

    digests: NDArray[np.uint64]  # of the bytes of each picture, [N, 2]
    labels: IntArray | None  # of each, [N]; None where they have none


class Copies(NamedTuple):
    """Which records have the same bytes."""

    group: IntArray  # of each record, [N], numbered in the order of the digests
    first: IntArray  # number of each group's first record, [G]

    @property
    def total(self) -> int:
        """Records that are copies of an earlier one."""
        return self.group.size - self.first.size

    def later(self) -> IntArray:
        """The records that are copies of an earlier one, ascending."""
        kept = np.zeros(self.group.size, dtype=np.bool_)
        kept[self.first] = True
        return np.flatnonzero(~kept)

    def conflicts(self, labels: IntArray) -> IntArray:
        """The copies whose label is another than the earlier one's, ascending."""
        later = self.later()
        return later[labels[later] != labels[self.first[self.group[later]]]]


def content_digest(data: bytes, size: int) -> bytes:
    """`size` bytes that tell a picture's bytes from others."""
    return hashlib.blake2b(data, digest_size=size).digest()


def count_copies(digests: bytes) -> int:
    """How many of the pictures with these short digests, one after the other, are copies of others."""
    words = np.frombuffer(digests, dtype=f"V{SHORT_DIGEST_BYTES}").view("<u8")
    return words.size - np.unique(words).size


def read_contents(records: Records, tell: Callable[[int], None]) -> Contents:
    """Read records for their digests and labels. tell: takes the number done since it was told last.

    What cannot be read is like nothing else. Raises what reading raises.
    """
    digests, labels = bytearray(), list[int]()
    for record in records.read():
        data = record.data or f"{record.name}\0{record.problem}".encode(errors="backslashreplace")
        digests += content_digest(data, _DIGEST_BYTES)
        labels.append(_NO_LABEL if record.label is None else record.label)
        tell(1)
    words = np.frombuffer(bytes(digests), dtype="<u8").astype(np.uint64).reshape(-1, 2)
    return Contents(words, None if _NO_LABEL in labels else np.array(labels, dtype=np.int64))


def join_contents(parts: list[Contents]) -> Contents:
    """The contents of all records, of parts in their order."""
    labels = [part.labels for part in parts]
    known = [label for label in labels if label is not None]
    return Contents(
        np.concatenate([part.digests for part in parts]), np.concatenate(known) if len(known) == len(labels) else None
    )


def find_copies(digests: NDArray[np.uint64]) -> Copies:
    """Group records by the digests of their bytes, [N, 2]."""
    order = np.lexsort((np.arange(len(digests)), digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.cumsum(begins) - 1
    return Copies(group, order[begins])
