"""Picture files as samples: decoded, upright, on white, cropped and resized; or kept where nothing would change."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from imagegen_dist.data.modality import MAX_PIXELS, DecodeError, Pixels, modality

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_STORED = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
_GREY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")
_REDUCING_GAP = 3.0  # halve and so on by boxes first, to 3 times the size: by Pillow's word hardly to be told apart
_NPY_SIGNATURE = b"\x93NUMPY"
_PNG_DEPTH_BYTE = 24


@dataclass(frozen=True)
class Conversion:
    """What pictures are made into. Raises ValueError where it is nothing."""

    size: tuple[int, int] | None = None  # (H, W); None keeps theirs
    channels: int | None = None  # 1 grey, 3 RGB; None keeps grey grey, and the rest RGB
    crop: bool = True  # cut to the aspect ratio of `size`, about the centre; else the whole is squeezed to it

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"pictures of {self.size[0]} × {self.size[1]} are empty")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels is {self.channels}; it must be 1 or 3")


class Encoded(NamedTuple):
    """A sample as a shard holds it."""

    data: bytes
    size: tuple[int, int]  # (H, W)


def convert_image(data: bytes, conversion: Conversion, extension: str) -> Encoded:
    """A picture file as a shard's member of that extension: png, jpg or webp.

    A file that is of this format already and needs no change is decoded, which finds damage, and kept byte for byte, so
    that a JPEG does not lose by it. Raises DecodeError as `decode_image` does.
    """
    if not data.startswith(_NPY_SIGNATURE):
        with _opened(data) as picture:
            if _is_kept(picture, data, conversion, extension):
                return Encoded(data, (picture.height, picture.width))
    pixels = decode_image(data, conversion)
    return Encoded(modality("image").encode(pixels, extension), (pixels.shape[1], pixels.shape[2]))


def decode_image(data: bytes, conversion: Conversion) -> Pixels:
    """A picture file as a sample, uint8 [C, H, W], C = 1 or 3, upright as its EXIF data say.

    What is transparent shows white; 16-bit grey keeps its high byte; of an animation the first frame is taken; colour
    profiles are not applied. Raises DecodeError for damaged bytes and for CMYK, Lab and float pictures.
    """
    if data.startswith(_NPY_SIGNATURE):
        return fit(_read_array(data), conversion)
    with _opened(data) as opened:
        if conversion.size is not None:
            side = int(_REDUCING_GAP) * max(conversion.size)
            opened.draft(None, (side, side))  # shrinks a JPEG while it is decoded, to no less than this
        picture = _plain(ImageOps.exif_transpose(opened))
    return fit(picture, conversion)


def fit(picture: Image.Image, conversion: Conversion) -> Pixels:
    """A picture of mode L or RGB, converted: uint8 [C, H, W]. Smaller ones are enlarged."""
    if conversion.channels is not None:
        picture = picture.convert("L" if conversion.channels == 1 else "RGB")
    if conversion.size is not None and conversion.size != (picture.height, picture.width):
        height, width = conversion.size
        box = _centre(picture.height, picture.width, height, width) if conversion.crop else None
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=_REDUCING_GAP)
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """A picture whose header was read; whatever a damaged one raises in the block comes as DecodeError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities in files that it reads well
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise DecodeError(f"is {picture.width}x{picture.height}: {MAX_PIXELS} pixels are allowed")
                yield picture
        except DecodeError:
            raise
        except Exception as error:  # from a damaged file Pillow raises whatever its parsers meet
            raise DecodeError(f"cannot be decoded: {_first_line(error)}") from error


def _is_kept(picture: Image.Image, data: bytes, conversion: Conversion, extension: str) -> bool:
    """Whether a file is the sample already: its format, size and channels, 8 bits, opaque, upright, one frame."""
    if (
        picture.format != _STORED.get(extension)
        or picture.mode not in ("L", "RGB")
        or picture.has_transparency_data
        or getattr(picture, "is_animated", False)
        or conversion.size not in (None, (picture.height, picture.width))
        or conversion.channels not in (None, len(picture.getbands()))
        or (extension == "png" and data[_PNG_DEPTH_BYTE] != 8)
    ):
        return False
    upright = picture.getexif().get(ExifTags.Base.Orientation, 1) not in range(2, 9)
    return upright and _is_sound(picture, data, extension)


def _is_sound(picture: Image.Image, data: bytes, extension: str) -> bool:
    """Whether the decoder that training uses, stricter than Pillow's, reads it."""
    out = np.empty((len(picture.getbands()), picture.height, picture.width), np.uint8)
    try:
        modality("image").decode_into(data, extension, out)
    except DecodeError:
        return False
    return True


def _read_array(data: bytes) -> Image.Image:
    """The picture in an .npy member of a shard."""
    kind = modality("image")
    shape = kind.shape_of(data, "npy")
    if shape.channels not in (1, 3):
        raise DecodeError(f"has {shape.channels} channels; 1 (grey) or 3 (RGB) are needed")
    out = np.empty(shape.dims, np.uint8)
    kind.decode_into(data, "npy", out)
    return Image.fromarray(out[0] if shape.channels == 1 else np.ascontiguousarray(np.moveaxis(out, 0, -1)))


def _centre(height: int, width: int, wanted_height: int, wanted_width: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the largest part about the centre that has the wanted aspect ratio."""
    if width * wanted_height > height * wanted_width:
        spare = (width - height * wanted_width / wanted_height) / 2
        return spare, 0, width - spare, height
    spare = (height - width * wanted_height / wanted_width) / 2
    return 0, spare, width, height - spare


def _plain(picture: Image.Image) -> Image.Image:
    """Grey (L) or RGB of 8 bits, on white."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode not in (*_GREY, *_COLOUR):
        raise DecodeError(f"has Pillow's mode {picture.mode}: convert it to grey or RGB of 8 bits")
    target = "L" if picture.mode in _GREY else "RGB"
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return picture.convert(target)


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return "it is no picture, or of an unknown format" if "cannot identify" in line else line or type(error).__name__
