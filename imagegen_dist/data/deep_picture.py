"""Grey pictures of 16 bits a value, kept as they are; `picture` reads the same files with 8."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from imagegen_dist.data.exif import UPRIGHT
from imagegen_dist.data.picture import DecodeError, check_pixels, times
from imagegen_dist.data.png import PNG_SIGNATURE, PngError, read_png
from imagegen_dist.wording import counted, first_line

_FORMATS = ("PNG", "TIFF", "PPM")
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_DEPTH, _GREY = 16, 0  # bits of a channel and colour type in a PNG's header
_WIDEN = 257  # 255 of 8 bits is 65535 of 16


def is_deep(data: bytes) -> bool:
    """True for a PNG of grey in 16 bits that is upright and opaque, so that its stored values are the picture."""
    if not data.startswith(PNG_SIGNATURE):
        return False
    try:
        png = read_png(data, header_alone=True)
    except PngError:
        return False
    plain = png.orientation == UPRIGHT and not png.extra and not png.animated
    return (png.depth, png.colours) == (_DEPTH, _GREY) and plain


def read_deep(data: bytes) -> NDArray[Any]:
    """A grey picture, uint16 [H, W]; one of 8 bits is widened to all levels. Raises DecodeError."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            check_pixels(picture.height, picture.width)
            if picture.mode not in (*_DEEP, "L"):
                raise DecodeError(f"is a picture of mode {picture.mode}: 16-bit samples are grey")
            values = np.asarray(picture)
    except UnidentifiedImageError as error:
        raise DecodeError("is not a PNG, TIFF or PGM, which hold 16 bits") from error
    except DecodeError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DecodeError(f"is damaged: {first_line(error)}") from error
    if picture.mode == "L":
        return values.astype(np.uint16) * np.uint16(_WIDEN)
    if values.min() < 0 or values.max() > 65535:
        raise DecodeError(f"has values from {values.min()} to {values.max()}: 16 bits hold 0 to 65,535")
    return values.astype(np.uint16)


def decode_deep_into(data: bytes, out: NDArray[Any]) -> None:
    """Decode a grey picture into `out`, uint16 [C, H, W], in each channel. Raises DecodeError."""
    values = read_deep(data)
    if values.shape != out.shape[1:]:
        raise DecodeError(f"is {times(values.shape)} where the dataset's samples are {times(out.shape[1:])}")
    out[:] = values


def encode_deep(sample: NDArray[Any], extension: str) -> bytes:
    """A PNG of a sample uint16 [1, H, W]; equal samples give equal bytes. Raises ValueError."""
    if extension != "png":
        raise ValueError(f"samples of 16 bits are stored as .png or .npy, not .{extension}")
    if len(sample) != 1:
        raise ValueError(f".png holds 16 bits in 1 channel, not {counted(len(sample), 'channel')}: use .npy")
    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(sample[0])).save(target, "PNG")
    return target.getvalue()
