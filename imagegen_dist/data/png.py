"""PNGs: chunks are walked and their CRCs checked here; pixels are Pillow's.

Pillow's own walk takes a fifth of the time of a small picture, checks the CRC of no pixels, and refuses pictures for
their metadata: texts and profiles above its limits, a wrong CRC in a comment. Here pixels and metadata fail apart.
Plain PNGs (8-bit grey or RGB, as most datasets have them) go to Pillow's zip decoder at once; of others Pillow gets a
file with nothing but the pixels.
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
_OF_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")  # a wrong CRC of others costs no picture
_PROFILE_BYTES = 8 << 20  # that a profile may inflate to


class PngError(ValueError):
    """Bytes that are a damaged PNG, in one line."""


class Png(NamedTuple):
    """A PNG's chunks that matter."""

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
        """1 for grey, 3 for colours; transparency does not count."""
        return 1 if self.colours in (_GREY, _GREY_ALPHA) else 3

    @property
    def is_plain(self) -> bool:
        """True for 8-bit grey or RGB in one pass, without transparency."""
        return self.depth == 8 and self.colours in _MODES and not self.interlaced and not self.extra


def read_png(data: bytes, header_alone: bool = False) -> Png:
    """Walk a PNG's chunks.

    header_alone: do not look whether the pixels are there and whole. Raises PngError where the header or the pixels are
    missing, and where the CRC of a chunk of these, of the palette or of transparency is wrong.
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
        raise PngError("is no PNG")
    if not pixels and not header_alone:
        raise PngError("is a damaged PNG: it has no pixels, or they are cut off")
    width, height, depth, colours, _, _, interlaced = header
    stream = pixels[0] if len(pixels) == 1 else b"".join(pixels)
    return Png(width, height, depth, colours, interlaced, stream, tuple(extra), orientation, profile, animated)


def plain_pixels(png: Png) -> NDArray[np.uint8]:
    """Pixels [H, W, 1 or 3] of a plain PNG as stored. Raises PngError where they are damaged or cut off."""
    mode = _MODES[png.colours]
    try:
        picture = Image.frombytes(mode, (png.width, png.height), png.pixels, "zip", mode)
    except ValueError as error:
        raise PngError(f"is a damaged PNG: {error}") from error
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(png.height, png.width, -1)


def without_metadata(png: Png) -> bytes:
    """A PNG file of the same pixels and nothing else."""
    header = _HEADER.pack(png.width, png.height, png.depth, png.colours, 0, 0, png.interlaced)
    chunks = [(b"IHDR", header), *png.extra, (b"IDAT", bytes(png.pixels)), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(
        _LENGTH_AND_KIND.pack(len(content), kind) + content + _CRC.pack(zlib.crc32(kind + content))
        for kind, content in chunks
    )


def profile_of_png(png: Png) -> bytes:
    """The ICC profile of a PNG; b"" where there is none or a damaged one."""
    _, _, rest = png.profile.partition(b"\0")
    try:
        inflater = zlib.decompressobj()
        profile = inflater.decompress(rest[1:], _PROFILE_BYTES)
        return profile if inflater.eof else b""
    except zlib.error:
        return b""
