"""binvox files: run-length-coded solids. (https://www.patrickmin.com/binvox/binvox.html)"""

from __future__ import annotations

import re

import numpy as np

from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.volumes.volume import Volume, check_extent

_HEADER = re.compile(rb"#binvox 1\s(?:[^\n]*\n){0,16}?dim +(\d{1,6}) +(\d{1,6}) +(\d{1,6})\s")
_DATA = re.compile(rb"^data *\n", re.MULTILINE)
_LONGEST_HEADER = 4096


def read_binvox(data: bytes) -> Volume:
    """Read a binvox file as 0 and 255: H against y and D against z, as of a mesh. Raises DecodeError."""
    head = data[:_LONGEST_HEADER]
    found, begin = _HEADER.match(head), _DATA.search(head)
    if found is None or begin is None:
        raise DecodeError("is not a binvox file")
    x, z, y = int(found[1]), int(found[3]), int(found[2])
    check_extent((x, z, y))
    coded = np.frombuffer(data, np.uint8, offset=begin.end())
    if coded.size % 2:
        raise DecodeError("is a damaged binvox file: a run has no length")
    filled, lengths = coded[::2], coded[1::2]
    voxels = int(lengths.sum(dtype=np.int64))
    if voxels != x * y * z or (filled > 1).any():
        raise DecodeError(f"is a damaged binvox file: {voxels:,} of {x * y * z:,} voxels")
    # x varies slowest and y fastest.
    values = np.repeat(filled * np.uint8(255), lengths).reshape(x, z, y)
    return Volume(np.ascontiguousarray(values.transpose(1, 2, 0)[::-1, ::-1])[None], bits=8, kind="solid")
