"""The orientation in EXIF data, the only field that changes how a picture looks.

Nothing else is read, so that other fields may be damaged, of a wrong type or cut off.
"""

import struct

import numpy as np
from numpy.typing import NDArray

UPRIGHT = 1
TRANSPOSED = (5, 6, 7, 8)
"""Orientations that exchange height and width."""

_TAG = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT (the type in the standard), LONG
_PREFIX = b"Exif\0"


def orientation_of(exif: bytes) -> int:
    """The orientation in EXIF data, 1 to 8; 1 (upright) if they have none or are damaged.

    exif: with or without the `Exif` prefix of JPEG. (CIPA DC-008, 4.6.2 and 4.6.4; TIFF 6.0, section 2)
    """
    if exif.startswith(_PREFIX):
        exif = exif[len(_PREFIX) + 1 :]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return UPRIGHT
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(order + "HHI", exif, entry)
            if tag == _TAG:
                (found,) = struct.unpack_from(order + _INTEGERS.get(kind, "H"), exif, entry + 8)
                return found if found in range(1, 9) else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A view of pixels [H, W, ...], rotated and mirrored to upright from an orientation of 1 to 8."""
    if orientation in TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
