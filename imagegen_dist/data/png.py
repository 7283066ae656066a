"""PNG decoding: chunks are read and their CRCs checked here, and Pillow decodes the pixels.

Pillow's own reading of chunks takes a fifth of the time of a small picture, does not check the CRC of the pixels, and
refuses pictures because of their metadata: texts and profiles above its limits, a wrong CRC in a comment. Here, damaged
metadata do not affect the pixels. Plain PNGs (8-bit grey or RGB, as in most datasets) go directly to Pillow's zip
decoder; for others Pillow gets a file with nothing but the pixels.
"""

import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagegen_dist.data.exif import UPRIGHT, orientation_of

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GREY, _RGB, _PALETTE, _GREY_ALPHA = 0, 2, 3, 4
_MODES = {_GREY: "L", _RGB: "RGB"}
_LENGTH_AND_KIND = struct.Struct(">I4s")
_HEADER = struct.Struct(">IIBBBBB")
_CRC = struct.Struct(">I")
_OF_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")  # a wrong CRC in other chunks is ignored
_PROFILE_BYTES = 8 << 20  # largest size of an inflated profile


class PngError(ValueError):
    """A damaged PNG."""


class Png(NamedTuple):
    """The chunks of a PNG that determine the picture."""

    width: int
    height: int
    depth: int  # bits of a channel
    colours: int  # the header's colour type
    interlaced: int
    pixels: bytes | memoryview  # compressed
    extra: tuple[tuple[bytes, bytes], ...] = ()  # (kind, content) of the palette and of transparency
    orientation: int = UPRIGHT
    profile: bytes = b""  # the content of iCCP
    animated: bool = False

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colours, without transparency."""
        return 1 if self.colours in (_GREY, _GREY_ALPHA) else 3

    @property
    def is_plain(self) -> bool:
        """True for 8-bit grey or RGB in one pass, without transparency."""
        return self.depth == 8 and self.colours in _MODES and not self.interlaced and not self.extra


def read_png(data: bytes, header_alone: bool = False) -> Png:
    """Read the chunks of a PNG.

    header_alone: do not check that the pixels are complete. Raises PngError if the header or the pixels are missing,
    and if the CRC of one of their chunks, of the palette or of transparency is wrong.
    (Portable Network Graphics, third edition, sections 5, 10 and 11)
    """
    header: tuple[int, ...] | None = None
    view, at = memoryview(data), len(PNG_SIGNATURE)
    pixels: list[memoryview] = []
    extra: list[tuple[bytes, bytes]] = []
    orientation, profile, animated = UPRIGHT, b"", False
    while at + 12 <= len(data):
        length, kind = _LENGTH_AND_KIND.unpack_from(data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        if not header_alone and zlib.crc32(view[at + 4 : end]) != _CRC.unpack_from(data, end)[0]:
            if kind in _OF_PIXELS:
                raise PngError(f"is a damaged PNG: the CRC of its {kind.decode('ascii', 'replace')} is wrong")
        elif kind == b"IDAT":
            pixels.append(view[at + 8 : end])
        elif kind == b"IHDR" and length == _HEADER.size:
            header = _HEADER.unpack_from(data, at + 8)
        elif kind == b"IEND":
            break
        elif kind == b"tRNS" or (kind == b"PLTE" and header is not None and header[3] == _PALETTE):
            extra.append((kind, bytes(view[at + 8 : end])))
        elif kind == b"eXIf":
            orientation = orientation_of(bytes(view[at + 8 : end]))
        elif kind == b"iCCP":
            profile = bytes(view[at + 8 : end])
        elif kind == b"acTL":
            animated = True
        at = end + 4
    if header is None:
        raise PngError("is not a PNG")
    if not pixels and not header_alone:
        raise PngError("is a damaged PNG: it has no pixels, or they are cut off")
    width, height, depth, colours, _, _, interlaced = header
    stream = pixels[0] if len(pixels) == 1 else b"".join(pixels)
    return Png(width, height, depth, colours, interlaced, stream, tuple(extra), orientation, profile, animated)


def plain_pixels(png: Png) -> NDArray[np.uint8]:
    """Pixels [H, W, 1 or 3] of a plain PNG as stored. Raises PngError if they are damaged or cut off."""
    mode = _MODES[png.colours]
    try:
        picture = Image.frombytes(mode, (png.width, png.height), png.pixels, "zip", mode)
    except ValueError as error:
        raise PngError(f"is a damaged PNG: {error}") from error
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(png.height, png.width, -1)


def without_metadata(png: Png) -> bytes:
    """A PNG file with the same pixels and no metadata."""
    header = _HEADER.pack(png.width, png.height, png.depth, png.colours, 0, 0, png.interlaced)
    chunks = [(b"IHDR", header), *png.extra, (b"IDAT", bytes(png.pixels)), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(
        _LENGTH_AND_KIND.pack(len(content), kind) + content + _CRC.pack(zlib.crc32(kind + content))
        for kind, content in chunks
    )


def profile_of_png(png: Png) -> bytes:
    """The ICC profile of a PNG; b"" if it has none or a damaged one."""
    _, _, rest = png.profile.partition(b"\0")
    try:
        inflater = zlib.decompressobj()
        profile = inflater.decompress(rest[1:], _PROFILE_BYTES)
        return profile if inflater.eof else b""
    except zlib.error:
        return b""
