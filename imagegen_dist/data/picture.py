"""Decode picture files of any format. Packing and streaming both do it here, so that a file looks the same in both.

A decoded picture is upright according to its EXIF data, has 8 bits a channel, and is grey or RGB with transparency
drawn on white, or RGBA if transparency is kept. Damaged pixels are an error, even if a tolerant decoder would fill them
in; damaged metadata are not. The format is determined from the bytes and not from the name of the file.
"""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from imagegen_dist.data.damage import check_coded, check_tiff
from imagegen_dist.data.exif import TRANSPOSED, UPRIGHT, orientation_of, upright
from imagegen_dist.data.jpeg import (
    JPEG_SIGNATURE,
    JpegError,
    check_scans,
    decode_jpeg,
    has_adobe_marker,
    orientation_of_jpeg,
    profile_of_jpeg,
    read_jpeg_header,
    size_of_plain_jpeg,
)
from imagegen_dist.data.png import (
    PNG_SIGNATURE,
    Png,
    PngError,
    plain_pixels,
    profile_of_png,
    read_png,
    without_metadata,
)
from imagegen_dist.data.profiles import to_srgb
from imagegen_dist.wording import first_line

Pixels = NDArray[np.uint8]

MAX_PIXELS = 1 << 28
"""Number of positions (H·W, T·H·W, D·H·W) above which a sample is refused without decoding."""

DEEPEST_WHITE = (1 << 16) - 1
"""The largest value of 16 bits, which is white by default."""

_FORMATS = ("PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
_WEBP = ("WEBP",)
_GREY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "CMYK")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _EXIF_TAGS = 258, 262, (34665, 34853, 40965)
_WHITE_IS_ZERO = 0
_PNG_SIZE = struct.Struct(">16sII")


class DecodeError(ValueError):
    """Bytes that cannot be decoded to a sample of the dataset, described in one line."""


class Reading(NamedTuple):
    """How the values of a file become pixels."""

    channels: int | None = None  # 1 grey, 3 RGB, 4 RGBA; None keeps grey and converts everything else to RGB
    least: tuple[int, int] = (0, 0)  # (H, W) to which a JPEG may be reduced while it is decoded
    srgb: bool = False  # apply colour profiles
    white: int = DEEPEST_WHITE  # value of 16-bit grey that is mapped to 255
    size: tuple[int, int] | None = None  # required (H, W) of the upright picture; None accepts any


class Picture(NamedTuple):
    """A decoded file."""

    image: Image.Image  # of mode L, RGB or RGBA
    form: str  # the file's format, as Pillow names it
    as_stored: bool  # whether these are exactly the pixels of the file, which has no others
    deepest: int = 0  # largest value of 16-bit grey; 0 for other pictures


def picture_shape(data: bytes) -> tuple[int, tuple[int, int]]:
    """(1 or 3 channels, (H, W) upright) of a picture from its header, without transparency. Raises DecodeError."""
    if data.startswith(JPEG_SIGNATURE):
        try:
            height, width, colours = read_jpeg_header(data)
        except JpegError as error:
            raise DecodeError(str(error)) from error
        check_pixels(height, width)
        return (1 if colours == "Gray" else 3), _turned((height, width), orientation_of_jpeg(data))
    if data.startswith(PNG_SIGNATURE):
        try:
            png = _checked_png(data, header_alone=True)
        except PngError as error:
            raise DecodeError(str(error)) from error
        return png.channels, _turned((png.height, png.width), png.orientation)
    with _opened(data) as picture:
        grey = picture.mode in _GREY or picture.mode.startswith("I")
        return (1 if grey else 3), _turned((picture.height, picture.width), _orientation(picture))


def decode_into(data: bytes, out: Pixels) -> None:
    """Decode a picture into `out`, uint8 [C, H, W], as grey, RGB or RGBA according to C; its size must be (H, W).

    Raises DecodeError.
    """
    if len(out) not in _MODES:
        raise DecodeError(f"is a picture, which has 1, 3 or 4 channels, not {len(out)}")
    if data.startswith(JPEG_SIGNATURE):
        if _decode_usual_jpeg(data, out):
            return
    elif data.startswith(PNG_SIGNATURE) and _decode_plain_png(data, out):
        return
    pixels = np.asarray(decode_picture(data, Reading(channels=len(out), size=(out.shape[1], out.shape[2]))).image)
    out[:] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def decode_picture(data: bytes, reading: Reading) -> Picture:
    """Decode a picture file.

    16-bit grey keeps its high byte, or is divided by `reading.white`; 16-bit colours keep their high byte. The first
    frame of an animation is taken. Raises DecodeError for damaged bytes and for unsupported kinds (Lab, floats).
    """
    if data.startswith(JPEG_SIGNATURE):
        try:
            return _decode_jpeg(data, reading)
        except JpegError as error:
            raise DecodeError(str(error)) from error
    if data.startswith(PNG_SIGNATURE):
        try:
            return _decode_png(data, reading)
        except PngError as error:
            raise DecodeError(str(error)) from error
    with _opened(data) as picture:
        return _decode_other(data, picture, reading)


def _decode_usual_jpeg(data: bytes, out: Pixels) -> bool:
    """Decode a grey or RGB JPEG directly into `out`; False for CMYK, and if `out` has transparency."""
    if len(out) == 4:
        return False
    try:
        orientation = UPRIGHT
        if size_of_plain_jpeg(data) != out.shape[1:]:
            height, width, colours = read_jpeg_header(data)
            if colours in ("CMYK", "YCCK"):
                return False
            orientation = orientation_of_jpeg(data)
            check_pixels(height, width)
            _check_size((height, width), orientation, out.shape[1:])
            check_scans(data)
        interleaved = out.transpose(1, 2, 0)
        direct = orientation == UPRIGHT and interleaved.flags.c_contiguous
        pixels = decode_jpeg(data, "GRAY" if len(out) == 1 else "RGB", interleaved if direct else None)
    except JpegError as error:
        raise DecodeError(str(error)) from error
    if not direct:
        _copy(upright(pixels, orientation), out)
    return True


def _decode_plain_png(data: bytes, out: Pixels) -> bool:
    """Decode an 8-bit grey or RGB PNG into `out`; False for others, and if channels must be converted."""
    try:
        png = read_png(data)
        if not png.is_plain or not (png.channels == len(out) or (png.channels, len(out)) == (1, 3)):
            return False
        if png.orientation != UPRIGHT or (png.height, png.width) != out.shape[1:]:
            check_pixels(png.height, png.width)
            _check_size((png.height, png.width), png.orientation, out.shape[1:])
        pixels = plain_pixels(png)
    except PngError as error:
        _check_png_size(data)
        raise DecodeError(str(error)) from error
    if png.orientation == UPRIGHT:
        out[:] = pixels.transpose(2, 0, 1)
    else:
        _copy(upright(pixels, png.orientation), out)
    return True


def _copy(pixels: Pixels, out: Pixels) -> None:
    """Copy [H, W, C'] to [C, H, W] channel by channel, which is three times as fast for transposed pictures."""
    for number, channel in enumerate(out):
        channel[:] = pixels[..., number if pixels.shape[2] > 1 else 0]


def _decode_jpeg(data: bytes, reading: Reading) -> Picture:
    header, orientation = read_jpeg_header(data), orientation_of_jpeg(data)
    check_pixels(header.height, header.width)
    _check_size(header[:2], orientation, reading.size)
    check_scans(data)
    profile = profile_of_jpeg(data) if reading.srgb else b""
    inks = header.colours in ("CMYK", "YCCK")
    grey = header.colours == "Gray" or (reading.channels == 1 and not profile)
    least = _least_of(header, orientation, reading.least)
    pixels = decode_jpeg(data, "CMYK" if inks else "GRAY" if grey else "RGB", None, least)
    shrunk = pixels.shape[:2] != header[:2]
    if inks:
        # Adobe stores inks inverted, as practically all CMYK JPEGs do.
        inked = Image.fromarray(255 - pixels if has_adobe_marker(data) else pixels, "CMYK")
        image = _turn_image(_with_profile(inked, profile)[0].convert("RGB"), orientation)
        return Picture(_to_mode(image, reading), "JPEG", False)
    turned = np.ascontiguousarray(upright(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, orientation))
    image, changed = _with_profile(Image.fromarray(turned), profile)
    same = not changed and not shrunk and orientation == UPRIGHT and grey == (header.colours == "Gray")
    return _finished(image, reading, "JPEG", same)


def _decode_png(data: bytes, reading: Reading) -> Picture:
    png = _checked_png(data)
    _check_size((png.height, png.width), png.orientation, reading.size)
    profile = profile_of_png(png) if reading.srgb and png.profile else b""
    still = not png.animated and png.orientation == UPRIGHT
    if png.is_plain:
        pixels = upright(plain_pixels(png), png.orientation)
        pixels = np.ascontiguousarray(pixels[..., 0] if png.channels == 1 else pixels)
        image, changed = _with_profile(Image.fromarray(pixels), profile)
        return _finished(image, reading, "PNG", still and not changed)
    with _opened(without_metadata(png)) as picture:
        picture.load()
        plain, deepest = _plain(picture, reading)
        image, changed = _with_profile(plain, profile)
        same = still and not changed and png.depth == 8 and _is_plain(picture, plain)
        return _finished(_turn_image(image, png.orientation), reading, "PNG", same, deepest)


def _checked_png(data: bytes, header_alone: bool = False) -> Png:
    """The chunks of a PNG. Raises PngError, and DecodeError for a huge one before anything else is read."""
    _check_png_size(data)
    return read_png(data, header_alone)


def _check_png_size(data: bytes) -> None:
    if len(data) >= _PNG_SIZE.size:
        _, width, height = _PNG_SIZE.unpack_from(data)
        check_pixels(height, width)


def _decode_other(data: bytes, picture: Image.Image, reading: Reading) -> Picture:
    form, orientation, profile = picture.format or "HEIF", _orientation(picture), b""
    _check_size((picture.height, picture.width), orientation, reading.size)
    if reading.srgb and isinstance(picture.info.get("icc_profile"), bytes):
        profile = picture.info["icc_profile"]
    tags = _load_tiff(picture) if form == "TIFF" else None
    picture.load()
    wrong = ""
    if tags is not None:
        wrong = check_tiff(data, tags)
    elif form in ("WEBP", "AVIF", "HEIF"):
        wrong = check_coded(data, picture)
    if wrong:
        raise DecodeError(f"is a damaged {form}: {wrong}")
    if picture.mode == "CMYK" and profile:
        image, changed, deepest = _with_profile(picture, profile)[0].convert("RGB"), True, 0
    else:
        plain, deepest = _plain(picture, reading, tags)
        image, changed = _with_profile(plain, profile)
    same = not changed and orientation == UPRIGHT and _is_plain(picture, image)
    same = same and not getattr(picture, "is_animated", False)
    return _finished(_turn_image(image, orientation), reading, form, same, deepest)


def _finished(image: Image.Image, reading: Reading, form: str, same: bool, deepest: int = 0) -> Picture:
    """Convert to the requested channels. same: whether the pixels are still those of the file."""
    wanted = _to_mode(image, reading)
    return Picture(wanted, form, same and wanted.mode == image.mode, deepest)


def _to_mode(image: Image.Image, reading: Reading) -> Image.Image:
    mode = image.mode if reading.channels is None else _MODES[reading.channels]
    return image if image.mode == mode else image.convert(mode)


def _with_profile(image: Image.Image, profile: bytes) -> tuple[Image.Image, bool]:
    """(the picture in sRGB, whether that changed it)."""
    converted = to_srgb(image, profile) if profile else None
    return (image, False) if converted is None else (converted, True)


def _plain(picture: Image.Image, reading: Reading, tags: Any = None) -> tuple[Image.Image, int]:
    """(the picture in 8 bits as grey, RGB or, if transparency is kept, RGBA; the largest value of 16-bit grey).

    tags: of a TIFF, by number.
    """
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        return _from_deep_grey(picture, reading.white, tags)
    if picture.mode not in (*_GREY, *_COLOUR):
        raise DecodeError(f"has Pillow's mode {picture.mode}: convert it to grey or RGB of 8 bits")
    if not picture.has_transparency_data:
        mode = "L" if picture.mode in _GREY else "RGB"
        return picture if picture.mode == mode else picture.convert(mode), 0
    seen = picture.convert("LA").convert("RGBA") if picture.mode == "La" else picture.convert("RGBA")
    if reading.channels == 4:
        return seen, 0
    shown = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return shown.convert("L" if picture.mode in _GREY else "RGB"), 0


def _is_plain(picture: Image.Image, plain: Image.Image) -> bool:
    """True if `_plain` did not change the picture."""
    return picture.mode == plain.mode and (plain.mode == "RGBA" or not picture.has_transparency_data)


def _from_deep_grey(picture: Image.Image, white: int, tags: Any) -> tuple[Image.Image, int]:
    """Convert grey of more than 8 bits. A TIFF states how many it has, and whether 0 is white."""
    values = np.asarray(picture).astype(np.uint32)
    deepest = int(values.max(initial=0))
    bits = 16 if tags is None else tags.get(_BITS_PER_SAMPLE, (16,))[0]
    largest = (1 << bits) - 1
    if tags is not None and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = largest - values
    if white == DEEPEST_WHITE and bits == 16:
        shown = values >> 8
    else:
        white = min(white, largest)
        shown = np.minimum((values * 255 + white // 2) // white, 255)
    if isinstance(key := picture.info.get("transparency"), int):
        shown[np.asarray(picture) == key] = 255
    return Image.fromarray(shown.astype(np.uint8)), deepest if bits == 16 else 0


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """A picture whose header was read; everything that a damaged one raises in the block becomes DecodeError."""
    # Pillow warns about oddities in files that it reads correctly, but not in WebP, which is frequent in shards, and
    # where suppressing warnings would take a third of the time of a small picture.
    with nullcontext() if data.startswith(b"RIFF") else warnings.catch_warnings(action="ignore"):
        try:
            with _open(data) as picture:
                check_pixels(picture.height, picture.width)
                yield picture
        except DecodeError:
            raise
        except UnidentifiedImageError as error:
            raise DecodeError("is not a picture, or has an unknown format") from error
        except Image.DecompressionBombError as error:
            raise DecodeError(f"is too large: {first_line(error)}") from error
        except Exception as error:  # Pillow raises errors of any kind for damaged files
            raise DecodeError(f"cannot be decoded: {first_line(error)}") from error


def _open(data: bytes) -> Image.Image:
    if data[4:8] == b"ftyp" and b"avif" not in data[8:64] and data[8:12] in _HEIC_BRANDS:
        return _open_heic(data)
    try:
        return Image.open(io.BytesIO(data), formats=_WEBP if data.startswith(b"RIFF") else _FORMATS)
    except (OSError, SyntaxError, ValueError):
        head, start, rest = data.partition(b"mdat")
        if data[4:8] != b"ftyp" or b"Exif" not in head:
            raise
        # Renaming damaged EXIF data keeps Pillow from reading them.
        return Image.open(io.BytesIO(head.replace(b"Exif", b"none") + start + rest), formats=_FORMATS)


def _open_heic(data: bytes) -> Image.Image:
    """An upright HEIC, which needs an optional package. Raises DecodeError if that is missing."""
    try:
        import pillow_heif
    except ImportError as error:
        raise DecodeError("is a HEIC, which pillow-heif reads: pip install pillow-heif") from error
    return pillow_heif.open_heif(data, convert_hdr_to_8bit=True).to_pillow()


def _load_tiff(picture: Image.Image) -> Any:
    """Decode a TIFF, which Pillow turns upright, without its EXIF data. Returns the tags before the rotation."""
    tags: Any = picture.tag_v2  # type: ignore[attr-defined]
    for tag in _EXIF_TAGS:
        if tag in tags:
            del tags[tag]
    found = dict(tags)
    picture.load()
    return found


def _orientation(picture: Image.Image) -> int:
    """The orientation of a picture that Pillow does not turn upright itself."""
    exif = picture.info.get("exif")
    if picture.format not in ("WEBP", "AVIF") or not isinstance(exif, bytes):
        return UPRIGHT
    return orientation_of(exif)


def _turn_image(image: Image.Image, orientation: int) -> Image.Image:
    if orientation == UPRIGHT:
        return image
    return Image.fromarray(np.ascontiguousarray(upright(np.asarray(image), orientation)))


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in TRANSPOSED else (size[0], size[1])


def _least_of(header: tuple[int, int, str], orientation: int, least: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a JPEG reduced by 2, 4 or 8 to no less than `least`; (0, 0) for its full size."""
    height, width = header[:2]
    needed_height, needed_width = _turned(least, orientation)
    if min(needed_height, needed_width) < 1:
        return 0, 0
    scale = min(height // needed_height, width // needed_width)
    shrink = next((by for by in (8, 4, 2) if by <= scale), 1)
    return (0, 0) if shrink == 1 else (-(-height // shrink), -(-width // shrink))


def check_pixels(height: int, width: int) -> None:
    if min(height, width) < 1:
        raise DecodeError(f"is {height} × {width}: it has no pixels")
    if height * width > MAX_PIXELS:
        raise DecodeError(f"is {height} × {width}: at most {MAX_PIXELS} pixels are allowed")


def _check_size(stored: tuple[int, int], orientation: int, wanted: tuple[int, ...] | None) -> None:
    found = _turned(stored, orientation)
    if wanted is not None and found != wanted:
        raise DecodeError(f"is {times(found)} where the dataset's samples are {times(wanted)}")


def times(extents: tuple[int, ...]) -> str:
    """A size in words, such as 64 × 48."""
    return " × ".join(str(extent) for extent in extents)
