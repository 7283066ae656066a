"""Arrays of .npy files: any order in memory, any type of number, channels first or last. Nothing is unpickled."""

from __future__ import annotations

import io
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.volumes.volume import Volume, check_extent
from imagegen_dist.wording import counted, first_line

Layout = Literal["auto", "first", "last"]
"""Where an array with one axis more than a sample has its channels."""

_FEW = 4  # channels, at most, of an axis that is taken for channels without a word of the user


def read_array(data: bytes, axes: int, layout: Layout = "auto") -> Volume:
    """Read an .npy file as values [C, *S]. axes: number of spatial axes.

    uint8 and uint16 are levels and bool is black and white; other numbers are real values. Raises DecodeError for
    other types, among them pickled objects, and for an array whose axes are not clear.
    """
    values = _channels_first(read_numbers(data), axes, layout)
    if values.dtype == np.bool_:
        return Volume(values.astype(np.uint8) * np.uint8(255), bits=8, kind="bool")
    bits = {"uint8": 8, "uint16": 16}.get(values.dtype.name, 0)
    return Volume(values, bits=bits, kind=values.dtype.name)


def read_numbers(data: bytes) -> NDArray:
    """The numbers in an .npy file in any layout, after its header is checked. Raises DecodeError."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, kind = read_header(file)
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError, UnicodeError) as error:
        raise DecodeError(f"is not an .npy file: {first_line(error)}") from error
    if kind.hasobject:
        raise DecodeError("holds pickled objects, which are never read: numbers are needed")
    if kind.kind not in "buif":
        raise DecodeError(f"is an array of {kind}: whole numbers, floats or bool are needed")
    check_extent(shape, "is an array of")
    size = prod(shape) * kind.itemsize
    if len(data) - file.tell() != size:
        raise DecodeError(f"has {counted(len(data) - file.tell(), 'byte')} of data where {size:,} are needed")
    flat = np.frombuffer(data, kind, offset=file.tell())
    values = flat.reshape(shape, order="F" if in_columns else "C")
    return values.astype(kind.newbyteorder("="), copy=False)


def _channels_first(values: NDArray, axes: int, layout: Layout) -> NDArray:
    """[*S], [C, *S] or [*S, C] -> [C, *S]. Raises DecodeError."""
    if values.ndim == axes:
        return values[None]
    if values.ndim != axes + 1:
        raise DecodeError(
            f"is an array {list(values.shape)}: {axes} axes are needed, or {axes + 1} with the channels' one"
        )
    if layout == "auto":
        first, last = values.shape[0] <= _FEW, values.shape[-1] <= _FEW
        if first == last:
            raise DecodeError(
                f"is an array {list(values.shape)}, and it is not clear which axis is that of the channels: give "
                "--array-layout first or last"
            )
        layout = "first" if first else "last"
    return values if layout == "first" else np.moveaxis(values, -1, 0)
