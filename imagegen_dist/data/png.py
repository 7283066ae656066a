"""PNGs as most datasets have them, 8-bit grey or RGB: chunks are walked here, pixels are Pillow's zip decoder's.

Pillow's own walk takes a fifth of the time of a small picture, and checks the CRC of no pixels. What is not plain
(palettes, alpha, 16 bits, interlacing, animation) is left to it.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MODES = {0: "L", 2: "RGB"}
_LENGTH_AND_KIND = struct.Struct(">I4s")
_HEADER = struct.Struct(">IIBBBBB")
_CRC = struct.Struct(">I")


class PngError(ValueError):
    """Bytes that are a damaged PNG, in one line."""


def read_plain_png(member: bytes, height: int, width: int) -> NDArray[np.uint8] | None:
    """Pixels [H, W, 1 or 3] of a plain PNG of that size; None for any other file.

    Raises PngError where a chunk's CRC is wrong, or the compressed pixels are damaged or cut off.
    (Portable Network Graphics, third edition, sections 5 and 10)
    """
    if not member.startswith(PNG_SIGNATURE):
        return None
    view, at, mode = memoryview(member), len(PNG_SIGNATURE), None
    pixels: list[memoryview] = []
    while at + 12 <= len(member):
        length, kind = _LENGTH_AND_KIND.unpack_from(member, at)
        end = at + 8 + length
        if end + 4 > len(member):
            return None
        if zlib.crc32(view[at + 4 : end]) != _CRC.unpack_from(member, end)[0]:
            raise PngError(f"is a damaged PNG: the CRC of its {kind.decode('ascii', 'replace')} is wrong")
        if kind == b"IDAT":
            pixels.append(view[at + 8 : end])
        elif kind == b"IHDR" and length == _HEADER.size:
            found = _HEADER.unpack_from(member, at + 8)
            mode = _MODES.get(found[3]) if found == (width, height, 8, found[3], 0, 0, 0) else None
        elif kind == b"IEND":
            break
        elif kind == b"acTL":
            return None
        at = end + 4
    if mode is None or not pixels:
        return None
    stream = pixels[0] if len(pixels) == 1 else b"".join(pixels)
    try:
        picture = Image.frombytes(mode, (width, height), stream, "zip", mode)
    except ValueError as error:
        raise PngError(f"is a damaged PNG: {error}") from error
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(height, width, -1)
