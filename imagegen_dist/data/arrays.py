"""Samples that are arrays of a dataset's shape: the system writes their values where a step has them, undecoded."""

from __future__ import annotations

import os
from collections.abc import Sequence

from imagegen_dist.data.labels import Label
from imagegen_dist.data.modality import ARRAY, stored_type
from imagegen_dist.data.npy import npy_beginning
from imagegen_dist.data.shard import NEAR, Shard
from imagegen_dist.shape import SampleShape

_LONGEST = 1 << 16  # bytes of a label that is read with its array


class ArrayReads:
    """Reads .npy members that begin as NumPy begins every array of this shape, each by a single system call.

    extensions: of the members that hold samples, in the order of the index.
    """

    def __init__(self, shape: SampleShape, extensions: Sequence[str]) -> None:
        self._begin = npy_beginning(stored_type(shape), shape.dims)
        self._found = bytearray(len(self._begin))
        self._whole = len(self._begin) + shape.bytes
        self._kinds = {number for number, name in enumerate(extensions) if name.rpartition(".")[2] == ARRAY}
        self._beside = memoryview(bytearray(NEAR + _LONGEST))

    def read(self, shard: Shard, row: int, out: memoryview, labelled: bool) -> tuple[int, Label | None] | None:
        """Write a sample's values to `out`: (bytes that were read, its label), None if this is no such array.

        `out` is overwritten in either case. Raises ShardError for a label that cannot be read.
        """
        start, size, kind, label_start, label_size, label_kind = shard.columns
        first = start[row]
        if size[row] != self._whole or kind[row] not in self._kinds:
            return None
        if not labelled:
            read = os.preadv(shard.descriptor, (self._found, out), first)
            return (read, None) if read == self._whole and self._found == self._begin else None
        length, between = label_size[row], label_start[row] - first
        if label_kind[row] < 0 or length > _LONGEST:
            return None
        gap = between - self._whole
        if 0 <= gap <= NEAR:
            beside = self._beside[: gap + length]
            read = os.preadv(shard.descriptor, (self._found, out, beside), first)
            text = beside[gap:]
        elif -NEAR <= between < 0:
            beside = self._beside[:-between]
            read = os.preadv(shard.descriptor, (beside, self._found, out), first + between)
            text = beside[:length]
        else:
            return None
        if read != self._whole + len(beside) or self._found != self._begin:
            return None
        return read, shard.parse_label(row, bytes(text), label_kind[row])
