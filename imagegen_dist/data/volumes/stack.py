"""A volume as a stack of pictures: a TIFF of several pages, or a folder of slices."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from imagegen_dist.data.picture import DecodeError, times
from imagegen_dist.data.volumes.volume import Volume, check_extent
from imagegen_dist.wording import first_line

_FORMATS = ("TIFF", "PNG", "JPEG", "BMP", "WEBP", "PPM")
_BITS = {"uint8": 8, "uint16": 16}


def read_pages(data: bytes) -> Volume:
    """Read a TIFF with a slice a page, the lowest first. Raises DecodeError."""
    return _stacked(_pages(data), _count(data))


def read_slices(files: Sequence[tuple[str, bytes]]) -> Volume:
    """Read pictures as the slices of a volume, (name, content) each, the lowest first. Raises DecodeError."""
    return _stacked(((name, _picture(name, data)) for name, data in files), len(files))


def _stacked(slices: Iterator[tuple[str, NDArray]], count: int) -> Volume:
    """Slices [H, W] or [H, W, 3] of one size and type as a volume."""
    values: NDArray | None = None
    first = ""
    for at, (name, pixels) in enumerate(slices):
        if values is None:
            check_extent((count, *pixels.shape[:2]))
            values, first = np.empty((count, *pixels.shape), pixels.dtype), name
        if (pixels.shape, pixels.dtype) != (values.shape[1:], values.dtype):
            raise DecodeError(
                f"has slices that differ: {first} is {times(values.shape[1:])} of {values.dtype}, {name} "
                f"{times(pixels.shape)} of {pixels.dtype}"
            )
        values[at] = pixels
    if values is None or count < 2:
        raise DecodeError("has one slice: a stack of at least 2 is needed")
    channels_first = values[None] if values.ndim == 3 else np.ascontiguousarray(np.moveaxis(values, -1, 0))
    return Volume(channels_first, bits=_BITS.get(values.dtype.name, 0), kind=values.dtype.name)


def _count(data: bytes) -> int:
    with _opened(data, "it", ("TIFF",)) as picture:
        return int(getattr(picture, "n_frames", 1))


def _pages(data: bytes) -> Iterator[tuple[str, NDArray]]:
    with _opened(data, "it", ("TIFF",)) as picture:
        for page in range(int(getattr(picture, "n_frames", 1))):
            try:
                picture.seek(page)
            except (OSError, ValueError, EOFError, SyntaxError) as error:
                raise DecodeError(f"has a damaged page {page}: {first_line(error)}") from error
            yield f"page {page}", _values(picture, f"page {page}")


def _picture(name: str, data: bytes) -> NDArray:
    with _opened(data, name, _FORMATS) as picture:
        return _values(picture, name)


def _opened(data: bytes, name: str, formats: tuple[str, ...]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DecodeError(f"has a slice that cannot be opened as a picture: {name}: {first_line(error)}") from error


def _values(picture: Image.Image, name: str) -> NDArray:
    """The values of a slice: grey of 8, 16 or 32 bits as it is, and other pictures as RGB."""
    check_extent((picture.height, picture.width), f"has a slice, {name}, which is")
    try:
        if picture.mode in ("L", "F", "I", "I;16", "I;16B", "I;16L", "I;16N"):
            values = np.asarray(picture)
            return values.astype(values.dtype.newbyteorder("="), copy=False)
        return np.asarray(picture.convert("L" if picture.mode in ("1", "LA") else "RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, TypeError) as error:
        raise DecodeError(f"has a slice that cannot be decoded, {name}: {first_line(error)}") from error
