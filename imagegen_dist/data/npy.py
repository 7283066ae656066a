"""Samples as .npy members of shards: uint8 or uint16, in any order of bytes and axes. Nothing is unpickled.

(NumPy Enhancement Proposal 1)
"""

import io
import math
import struct
from ast import literal_eval
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.picture import DecodeError, times
from imagegen_dist.wording import counted

_KINDS = {"|u1": "u1", "<u2": "<u2", ">u2": ">u2"}
_FLAGS = "`imagegen data pack --modality voxels` takes other types with --window"


class _Header(NamedTuple):
    """What an .npy file says of its array."""

    start: int  # of its values
    kind: str
    in_columns: bool
    shape: tuple[int, ...]


def npy_shape(member: bytes, axes: int) -> tuple[int, tuple[int, ...], int]:
    """(C, *S, bits) of an array [C, *S], or of a grey one [*S], with that many spatial axes. Raises DecodeError."""
    header = _read_header(member)
    bits = 8 * np.dtype(header.kind).itemsize
    if len(header.shape) == axes:
        return 1, header.shape, bits
    if len(header.shape) == axes + 1:
        return header.shape[0], header.shape[1:], bits
    raise DecodeError(f"is an array {list(header.shape)}: {axes + 1} axes are needed, channels first")


def npy_dims(member: bytes) -> tuple[int, ...]:
    """The extents of all axes of an array. Raises DecodeError."""
    return _read_header(member).shape


def read_npy(member: bytes, spatial: tuple[int, ...], bits: int = 8) -> NDArray[Any]:
    """View the member's bytes as an array [C, *S] of so many bits. Raises DecodeError."""
    channels, found, stored = npy_shape(member, len(spatial))
    if found != spatial:
        raise DecodeError(f"is {times(found)} where the dataset's samples are {times(spatial)}")
    if stored != bits:
        raise DecodeError(f"has {stored} bits where the dataset's samples have {bits}")
    header = _read_header(member)
    size = channels * math.prod(found) * bits // 8
    if len(member) - header.start != size:
        raise DecodeError(f"has {counted(len(member) - header.start, 'byte')} of data where {size} are needed")
    flat = np.frombuffer(member, header.kind, offset=header.start)
    return flat.reshape(header.shape, order="F" if header.in_columns else "C").reshape(channels, *found)


def write_npy(sample: NDArray) -> bytes:
    """The file of an array of numbers; equal arrays give equal bytes."""
    target = io.BytesIO()
    np.lib.format.write_array(target, np.ascontiguousarray(sample), version=(1, 0), allow_pickle=False)
    return target.getvalue()


def npy_beginning(kind: type[np.generic], dims: tuple[int, ...]) -> bytes:
    """What stands before the values in the file that `write_npy` makes of arrays of this type and these extents."""
    target = io.BytesIO()
    fields = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": dims}
    np.lib.format.write_array_header_1_0(target, fields)
    return target.getvalue()


def _read_header(member: bytes) -> _Header:
    if len(member) < 12 or not member.startswith(b"\x93NUMPY") or member[6] not in (1, 2, 3):
        raise DecodeError("is not an .npy file")
    start, form = (10, "<H") if member[6] == 1 else (12, "<I")
    end = start + struct.unpack_from(form, member, 8)[0]
    if end > len(member) or end > 1 << 16:
        raise DecodeError("is an .npy file with a damaged header")
    return _Header(end, *_parse(member[start:end]))


@lru_cache(maxsize=64)
def _parse(header: bytes) -> tuple[str, bool, tuple[int, ...]]:
    """(type, order, shape) in an .npy header, cached because the samples of a dataset share it."""
    try:
        fields = literal_eval(header.decode("utf-8"))
        kind, in_columns, shape = fields["descr"], fields["fortran_order"], tuple(fields["shape"])
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise DecodeError("is an .npy file with a damaged header") from error
    if kind not in _KINDS or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise DecodeError(f"is an array of {_named(kind)} {list(shape)}: uint8 or uint16 is needed; {_FLAGS}")
    return _KINDS[kind], bool(in_columns), shape


def _named(kind: object) -> str:
    """A type as people call it: int16, pickled objects."""
    if not isinstance(kind, str):
        return "records"
    try:
        found = np.dtype(kind)
    except TypeError:
        return repr(kind[:40])
    return "pickled objects" if found.hasobject else found.name
