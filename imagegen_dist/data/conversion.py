"""Convert picture files to samples: decode, crop and resize them, or keep files that need no change."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from imagegen_dist.data.animated import ANIMATED, is_animated
from imagegen_dist.data.deep_picture import read_deep
from imagegen_dist.data.modality import modality
from imagegen_dist.data.picture import DEEPEST_WHITE, DecodeError, Picture, Pixels, Reading, decode_picture
from imagegen_dist.data.sample_conversion import Encoded, SampleConversion
from imagegen_dist.data.sources.base import UnfitError
from imagegen_dist.data.sources.files import PICTURE_FILES, FileKinds
from imagegen_dist.wording import counted

_STORED = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
_REDUCING_GAP = 3.0  # reduce by boxes to 3 times the size first: hardly distinguishable, according to Pillow
_NPY_SIGNATURE = b"\x93NUMPY"

Filter = Literal["fast", "lanczos", "box", "bilinear", "bicubic"]
"""How pictures are resized: Lanczos after a fast reduction, or one of Pillow's filters on all pixels of the file."""

_EXACT = {
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Conversion(SampleConversion):
    """The size and values of converted pictures. Raises ValueError for unusable values."""

    modality: ClassVar[str] = "image"
    files: ClassVar[FileKinds] = PICTURE_FILES
    formats: ClassVar[tuple[str, ...]] = ("png", "jpg", "webp", "npy")

    size: tuple[int, int] | None = None  # (H, W); None keeps the size of the pictures
    channels: int | None = None  # 1 grey, 3 RGB, 4 RGBA; None keeps grey and converts everything else to RGB
    crop: bool = True  # crop centrally to the aspect ratio of `size`; else distort the whole picture to it
    icc: Literal["srgb", "keep"] = "srgb"  # convert pictures with a colour profile to sRGB, or keep their values
    white: int = DEEPEST_WHITE  # value of 16-bit grey that is white
    first_frame: bool = False  # take the first frame of an animated file, which is refused otherwise
    bits: int = 8  # of a stored value; 16 for grey pictures alone
    filter: Filter = "fast"  # of resizing; all but "fast" equal Pillow's crop and resize bit for bit

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"pictures of {self.size[0]} × {self.size[1]} are empty")
        if self.channels not in (None, 1, 3, 4):
            raise ValueError(f"channels is {self.channels}; it must be 1, 3 or 4")
        if not 1 <= self.white <= DEEPEST_WHITE:
            raise ValueError(f"white is {self.white}; it must be from 1 to {DEEPEST_WHITE}")
        if self.filter != "fast" and self.filter not in _EXACT:
            raise ValueError(f"filter is {self.filter}; it must be fast or one of {', '.join(_EXACT)}")
        if self.bits not in (8, 16):
            raise ValueError(f"--bits {self.bits}: pictures are stored in 8 or 16")
        if self.bits == 16 and self.channels not in (None, 1):
            raise ValueError(f"--bits 16 with --channels {self.channels}: pictures of 16 bits are grey")

    @property
    def stored_bits(self) -> int:
        """The bits of the samples."""
        return self.bits

    @property
    def is_sized(self) -> bool:
        """True if all pictures are resized."""
        return self.size is not None

    @property
    def is_transparent(self) -> bool:
        """True for RGBA."""
        return self.channels == 4

    def check_format(self, extension: str) -> None:
        """Raise ValueError for a format that cannot hold the pictures."""
        super().check_format(extension)
        if self.bits == 16 and extension not in ("png", "npy"):
            raise ValueError(f"--bits 16 with --format {extension}: png and npy alone hold 16 bits")
        if self.channels == 4 and extension == "jpg":
            raise ValueError("--channels 4 with --format jpg: JPEG has no transparency; take png or webp")
        if self.channels == 1 and extension == "webp":
            raise ValueError(
                "--channels 1 with --format webp: WebP has no grey and would be read as RGB; take png, jpg or npy"
            )

    def convert(self, data: bytes, name: str, extension: str) -> Iterator[Encoded]:
        """The one sample of a picture. Raises DecodeError, and UnfitError for an animation."""
        if not self.first_frame and is_animated(data):
            raise UnfitError(f"{name} {ANIMATED}")
        yield convert_picture(data, self, extension)

    def flags(self) -> dict[str, str]:
        """Everything that determines the bytes of the samples, by flags."""
        return {
            "--size": "" if self.size is None else f"{self.size[1]}x{self.size[0]}",
            "--crop": "center" if self.crop else "none",
            "--channels": "" if self.channels is None else f"{self.channels}",
            "--icc": self.icc,
            "--modality": "image" if self.first_frame else "",
            "--bits": "" if self.bits == 8 else f"{self.bits}",
            "--white-level": "" if self.white == DEEPEST_WHITE else f"{self.white}",
            "--filter": "" if self.filter == "fast" else self.filter,
        }

    def describe_size(self, size: tuple[int, ...]) -> str:
        """A size in the form of --size."""
        return f"{size[1]}x{size[0]}"


def convert_picture(data: bytes, conversion: Conversion, extension: str) -> Encoded:
    """`convert_deep` or `convert_image`, according to the bits. Raises DecodeError."""
    convert = convert_deep if conversion.bits == 16 else convert_image
    return convert(data, conversion, extension)


def convert_image(data: bytes, conversion: Conversion, extension: str) -> Encoded:
    """Convert a picture file to a member of a shard with the extension png, jpg, webp or npy.

    A file that has this format already and needs no change is decoded, which finds damage, and kept byte for byte, so
    that a JPEG loses no quality. Raises DecodeError.
    """
    if data.startswith(_NPY_SIGNATURE):
        pixels, deepest = fitted(_read_array(data, conversion), conversion), 0
    else:
        picture = _decode(data, conversion)
        size = (picture.image.height, picture.image.width)
        if picture.as_stored and picture.form == _STORED.get(extension) and conversion.size in (None, size):
            return Encoded(data, size)
        pixels, deepest = fitted(picture.image, conversion), picture.deepest
    return Encoded(modality("image").encode(pixels, extension), (pixels.shape[1], pixels.shape[2]), deepest)


def convert_deep(data: bytes, conversion: Conversion, extension: str) -> Encoded:
    """Convert a grey picture to a PNG or array of 16 bits. Raises DecodeError."""
    if data.startswith(_NPY_SIGNATURE):
        shape = modality("image").shape_of(data, "npy")
        values = np.empty(shape.dims, np.uint16)
        modality("image").decode_into(data, "npy", values)
        if shape.channels != 1:
            raise DecodeError(f"has {counted(shape.channels, 'channel')}: 16-bit pictures are grey")
        values = values[0]
    else:
        values = read_deep(data)
    picture = Image.fromarray(values.astype(np.float32) * np.float32(DEEPEST_WHITE / conversion.white))
    if conversion.size is not None and conversion.size != values.shape:
        picture = _resized(picture, conversion, conversion.size)
    levels = np.clip(np.rint(np.asarray(picture)), 0, DEEPEST_WHITE).astype(np.uint16)[None]
    return Encoded(modality("image").encode(levels, extension), levels.shape[1:])


def _resized(picture: Image.Image, conversion: Conversion, size: tuple[int, int]) -> Image.Image:
    height, width = size
    box = _centre(picture.height, picture.width, height, width) if conversion.crop else None
    if conversion.filter != "fast":
        # Cropped first, since with a box Pillow's filters also weigh pixels beyond its edges.
        return (picture.crop(_whole(box)) if box else picture).resize((width, height), _EXACT[conversion.filter])
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=_REDUCING_GAP)


def fitted(picture: Image.Image, conversion: Conversion) -> Pixels:
    """Convert a picture of mode L, RGB or RGBA to uint8 [C, H, W]. Smaller pictures are enlarged."""
    if conversion.channels is not None:
        picture = picture.convert({1: "L", 3: "RGB", 4: "RGBA"}[conversion.channels])
    if conversion.size is not None and conversion.size != (picture.height, picture.width):
        picture = _resized(picture, conversion, conversion.size)
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def picture_of(data: bytes, conversion: Conversion) -> Image.Image:
    """A decoded picture, which `fitted` converts; a large JPEG may be reduced already. Raises DecodeError."""
    return _decode(data, conversion).image


def _decode(data: bytes, conversion: Conversion) -> Picture:
    side = 0
    if conversion.size is not None and conversion.filter == "fast":
        side = int(_REDUCING_GAP) * max(conversion.size)
    return decode_picture(data, Reading(conversion.channels, (side, side), conversion.icc == "srgb", conversion.white))


def _read_array(data: bytes, conversion: Conversion) -> Image.Image:
    """Decode the picture in an .npy member of a shard."""
    kind = modality("image")
    shape = kind.shape_of(data, "npy")
    if shape.channels not in (1, 3, *((4,) if conversion.channels == 4 else ())):
        raise DecodeError(f"has {counted(shape.channels, 'channel')}; 1 (grey) or 3 (RGB) is needed")
    out = np.empty(shape.dims, np.uint8)
    kind.decode_into(data, "npy", out)
    return Image.fromarray(out[0] if shape.channels == 1 else np.ascontiguousarray(np.moveaxis(out, 0, -1)))


def _centre(height: int, width: int, wanted_height: int, wanted_width: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the largest central part with the requested aspect ratio."""
    if width * wanted_height > height * wanted_width:
        spare = (width - height * wanted_width / wanted_height) / 2
        return spare, 0, width - spare, height
    spare = (height - width * wanted_height / wanted_width) / 2
    return 0, spare, width, height - spare


def _whole(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """The box in whole pixels: its size rounded, its left and upper edge rounded down."""
    left, top, right, bottom = box
    whole_left, whole_top = int(left), int(top)
    return whole_left, whole_top, whole_left + round(right - left), whole_top + round(bottom - top)
