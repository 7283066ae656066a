"""Animations among picture files, by their headers: GIF, WebP, PNG and AVIF hold both under the same names."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from imagegen_dist.data.png import PNG_SIGNATURE

_GIF = (b"GIF87a", b"GIF89a")
_GIF_IMAGE, _GIF_EXTENSION, _GIF_CONTROL, _GIF_END = 0x2C, 0x21, 0xF9, b";"
_AVIF_SEQUENCE = b"avis"


ANIMATED = "is animated: --modality video packs clips, and --modality image takes the first frame"
"""What to say, after its name, of an animation where pictures are expected."""


def is_animated(data: bytes) -> bool:
    """True if a file shows more than one frame. The beginning of a PNG, WebP or AVIF is enough, but not of a GIF.

    A damaged file counts as still: decoding it finds the damage.
    """
    if data.startswith(PNG_SIGNATURE):
        return _png_frames(data) > 1
    if _is_webp(data):
        return data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & 0x02)
    if data.startswith(_GIF):
        return len(_gif_durations(data, 2)[0]) > 1
    return data[4:8] == b"ftyp" and _AVIF_SEQUENCE in data[8 : 8 + 64]


def frame_durations(data: bytes) -> tuple[list[int], bool]:
    """(milliseconds for which each frame of a GIF, WebP or PNG is shown, whether the file has its end).

    0 is what the file says for as fast as possible. No frames for another file, and none after damage.
    """
    if data.startswith(PNG_SIGNATURE):
        return _png_durations(data)
    if _is_webp(data):
        return _webp_durations(data)
    return _gif_durations(data) if data.startswith(_GIF) else ([], False)


def _is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _png_frames(data: bytes) -> int:
    """The number of frames in the acTL chunk, which stands before the first IDAT. (PNG 3rd edition, 11.3.5)"""
    for kind, at, _ in _png_chunks(data):
        if kind == b"acTL" and at + 4 <= len(data):
            return int(struct.unpack_from(">I", data, at)[0])
        if kind == b"IDAT":
            break
    return 1


def _png_durations(data: bytes) -> tuple[list[int], bool]:
    """By the fcTL chunks, whose delay is a fraction of a second."""
    durations, ended = list[int](), False
    for kind, at, length in _png_chunks(data):
        if kind == b"fcTL" and length >= 26 and at + 26 <= len(data):
            over, under = struct.unpack_from(">HH", data, at + 20)
            durations.append(round(1000 * over / (under or 100)))
        ended = kind == b"IEND"
    return durations, ended and (not durations or len(durations) >= _png_frames(data))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, offset of the data, their length) of each chunk."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, length
        at += 12 + length


def _webp_durations(data: bytes) -> tuple[list[int], bool]:
    """By the ANMF chunks, whose bytes 12 to 14 are the duration. (WebP container specification, "Animation")"""
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    at, durations = 12, list[int]()
    while at + 8 <= min(end, len(data)):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"ANMF":
            durations.append(int.from_bytes(data[at + 20 : at + 23], "little"))
        at += 8 + length + length % 2
    return durations, end <= len(data)


def _gif_durations(data: bytes, most: int = 1 << 30) -> tuple[list[int], bool]:
    """By a walk over the blocks: an extension for graphic control before an image has its delay. (GIF89a, 17 to 27)"""
    if len(data) < 13:
        return [], False
    at, delay, durations = 13 + _table_bytes(data[10]), 0, list[int]()
    while at + 9 < len(data) and data[at] in (_GIF_EXTENSION, _GIF_IMAGE) and len(durations) < most:
        if data[at] == _GIF_IMAGE:
            durations.append(delay)
            at, delay = at + 10 + _table_bytes(data[at + 9]) + 1, 0  # its colours, and the size of LZW's codes
        else:
            if data[at + 1] == _GIF_CONTROL:
                delay = 10 * struct.unpack_from("<H", data, at + 4)[0]
            at += 2
        while at < len(data) and data[at]:  # sub-blocks of up to 255 bytes
            at += 1 + data[at]
        at += 1
    return durations, data[at : at + 1] == _GIF_END


def _table_bytes(packed: int) -> int:
    """The size of a colour table by its descriptor's packed fields."""
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0
