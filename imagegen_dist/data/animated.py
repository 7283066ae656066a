"""Tell animations from still pictures by their headers: GIF, WebP, PNG and AVIF hold both under the same names."""

from __future__ import annotations

import struct

from imagegen_dist.data.png import PNG_SIGNATURE

_GIF = (b"GIF87a", b"GIF89a")
_GIF_IMAGE, _GIF_EXTENSION = 0x2C, 0x21
_AVIF_SEQUENCE = b"avis"


def is_animated(data: bytes) -> bool:
    """True if a file shows more than one frame. The beginning of a PNG, WebP or AVIF is enough, but not of a GIF.

    A damaged file counts as still: decoding it finds the damage.
    """
    if data.startswith(PNG_SIGNATURE):
        return _png_frames(data) > 1
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & 0x02)
    if data.startswith(_GIF):
        return _gif_has_several(data)
    return data[4:8] == b"ftyp" and _AVIF_SEQUENCE in data[8 : 8 + 64]


def _png_frames(data: bytes) -> int:
    """The number of frames in the acTL chunk, which stands before the first IDAT. (PNG 3rd edition, 11.3.5)"""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"acTL":
            return int(struct.unpack_from(">I", data, at + 8)[0])
        if kind == b"IDAT":
            return 1
        at += 12 + length
    return 1


def _gif_has_several(data: bytes) -> bool:
    """True if a GIF has two images; a walk over its blocks. (GIF89a specification, 17 to 26)"""
    if len(data) < 13:
        return False
    at, images = 13 + _table_bytes(data[10]), 0
    while at < len(data):
        if data[at] == _GIF_EXTENSION:
            at += 2
        elif data[at] == _GIF_IMAGE and at + 9 < len(data):
            images += 1
            if images > 1:
                return True
            at += 10 + _table_bytes(data[at + 9]) + 1  # the descriptor, its colours, and the size of LZW's codes
        else:
            return False
        while at < len(data) and data[at]:  # sub-blocks of up to 255 bytes
            at += 1 + data[at]
        at += 1
    return False


def _table_bytes(packed: int) -> int:
    """The size of a colour table by its descriptor's packed fields."""
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0
