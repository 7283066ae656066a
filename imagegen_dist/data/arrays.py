"""Samples that are arrays of a dataset's shape: the system writes their values where a step has them, undecoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import preadv

from imagegen_dist.data.labels import Label
from imagegen_dist.data.modality import ARRAY, stored_type
from imagegen_dist.data.npy import npy_beginning
from imagegen_dist.data.shard import NEAR, ReadRow, Shard
from imagegen_dist.shape import SampleShape

_LONGEST = 1 << 16  # bytes of a label that is read with its array
_UNLABELLED = (None,)


class ArrayReads:
    """Reads .npy members that begin as NumPy begins every array of this shape, each by a single system call.

    extensions: of the members that hold samples, in the order of the index.
    """

    def __init__(self, shape: SampleShape, extensions: Sequence[str]) -> None:
        self._begin = npy_beginning(stored_type(shape), shape.dims)
        self._found = bytearray(len(self._begin))
        self.whole = len(self._begin) + shape.bytes
        """Bytes of each member that is read."""
        self._kinds = {number for number, name in enumerate(extensions) if name.rpartition(".")[2] == ARRAY}
        self._uniform = {(self.whole, kind) for kind in self._kinds}
        self._beside = memoryview(bytearray(NEAR + _LONGEST))

    def of_shard(self, shard: Shard, labelled: bool) -> ReadRow:
        """What reads the rows of a shard, with their labels or without."""
        if labelled or shard.uniform not in self._uniform:
            return partial(self._read_any, shard, labelled)
        shard.read_array = self._plain(shard)
        return shard.read_array

    def _plain(self, shard: Shard) -> ReadRow:
        """What reads rows without labels, of samples that have the right size."""
        descriptor, start = shard.descriptor, shard.columns[0]
        found, begin, whole = self._found, self._begin, self.whole

        def read(row: int, out: memoryview) -> tuple[None] | None:
            is_whole = preadv(descriptor, (found, out), start[row]) == whole
            return _UNLABELLED if is_whole and found == begin else None

        return read

    def _read_any(self, shard: Shard, labelled: bool, row: int, out: memoryview) -> tuple[Label | None] | None:
        start, size, kind, label_start, label_size, label_kind = shard.columns
        first = start[row]
        if size[row] != self.whole or kind[row] not in self._kinds:
            return None
        if not labelled:
            return self._plain(shard)(row, out)
        length, between = label_size[row], label_start[row] - first
        if label_kind[row] < 0 or length > _LONGEST:
            return None
        gap = between - self.whole
        if 0 <= gap <= NEAR:
            beside = self._beside[: gap + length]
            read = preadv(shard.descriptor, (self._found, out, beside), first)
            text = beside[gap:]
        elif -NEAR <= between < 0:
            beside = self._beside[:-between]
            read = preadv(shard.descriptor, (beside, self._found, out), first + between)
            text = beside[:length]
        else:
            return None
        if read != self.whole + len(beside) or self._found != self._begin:
            return None
        return (shard.parse_label(row, bytes(text), label_kind[row]),)
