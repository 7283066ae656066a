"""JPEG decoding by libjpeg-turbo, whose warnings count as damage unless all rows are complete.

A tolerant decoder silently fills missing pixels with grey. The strict decoder also refuses some files whose pixels are
complete: their metadata are damaged, their end mark is missing, or zeros precede it. Such a file is rewritten without
these faults and must then pass the strict decoder.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from imagegen_dist.data.exif import UPRIGHT, orientation_of

JPEG_SIGNATURE = b"\xff\xd8"

_EXIF, _ICC = b"Exif\0", b"ICC_PROFILE\0"
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # neither stuffing nor a restart marker
_NEXT_TABLE = re.compile(rb"\xff[\xc0-\xcf\xda\xdb\xdd\xe0-\xef\xfe]")
_SOI_EOI, _SOS, _APP1, _COMMENT = (0xD8, 0xD9), 0xDA, 0xE1, 0xFE
_EOI = b"\xff\xd9"
_ADOBE, _ADOBE_BYTES = b"Adobe", 12
_JFIF, _JFIF_BYTES = b"JFIF\0", 14
_SEQUENTIAL = (0xC0, 0xC1)
_PROGRESSIVE = (0xC2, 0xCA)


class JpegError(ValueError):
    """A JPEG that is damaged or of an unknown kind."""


class _JpegHeader(NamedTuple):
    """The frame header of a JPEG."""

    height: int  # as stored, before the orientation
    width: int
    colours: str  # Gray, RGB, YCbCr, CMYK or YCCK


class _Segment(NamedTuple):
    """A marker and what follows it: its content, and for a scan the coded data."""

    marker: int
    content: bytes
    coded: bytes = b""


def read_jpeg_header(data: bytes) -> _JpegHeader:
    """The frame header. Raises JpegError."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(_repaired(data))
        except ValueError as error:
            raise JpegError(f"is not a JPEG: {error}") from error
    return _JpegHeader(height, width, colours)


def size_of_plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """(H, W) of a sequential grey or colour JPEG without EXIF data; None for others and for unusual segments.

    Steps over the segments, which takes less time than libjpeg-turbo's header or a search for EXIF data.
    """
    at, size = len(JPEG_SIGNATURE), None
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _SOS:
            return size
        if marker in _SEQUENTIAL and data[at + 9] in (1, 3):
            size = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
        elif marker == _APP1 or marker < 0xC0 or marker == 0xFF:
            break
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


def decode_jpeg(
    data: bytes, colours: str, buffer: NDArray[np.uint8] | None = None, least: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """Pixels [H, W, C] as stored, before the orientation; `colours` is RGB, GRAY or, for CMYK and YCCK files, CMYK.

    buffer: contiguous memory for them. least: (height, width) to which the picture may be reduced while it is decoded.
    Raises JpegError if pixels are damaged or missing.
    """
    options = {"min_height": least[0], "min_width": least[1], "buffer": buffer}
    try:
        if buffer is not None:
            return simplejpeg.decode_jpeg(data, colours, buffer=buffer)
        return simplejpeg.decode_jpeg(data, colours, **options)
    except ValueError as strict:
        try:
            return simplejpeg.decode_jpeg(_repaired(data), colours, **options)
        except ValueError as error:
            said = strict if isinstance(error, JpegError) else error
            raise JpegError(f"is a damaged JPEG: {said}") from error


def orientation_of_jpeg(data: bytes) -> int:
    """The orientation in a JPEG's EXIF data, 1 to 8."""
    if _EXIF not in data:
        return UPRIGHT
    segments = (part.content for part in _header_segments(data) if part.marker == _APP1)
    return orientation_of(next((content for content in segments if content.startswith(_EXIF)), b""))


def check_scans(data: bytes) -> None:
    """Raise JpegError if a progressive JPEG is cut between two scans, which leaves a blurred picture of all rows.

    That is if the last scan of a coefficient has not its full precision. (ITU-T T.81, annex G.1.1.1)
    """
    progressive, missing_bits = False, dict[tuple[int, int], int]()
    for marker, content, _ in _segments(data):
        progressive |= marker in _PROGRESSIVE
        if progressive and marker == _SOS and len(content) >= 4 + 2 * content[0]:
            end = 1 + 2 * content[0]
            first, last, approximation = content[end : end + 3]
            coefficients = range(first, min(last, 63) + 1)
            missing_bits |= {(part, k): approximation & 15 for part in content[1:end:2] for k in coefficients}
    if any(missing_bits.values()):
        raise JpegError("is a damaged JPEG: its last scans are missing")


def profile_of_jpeg(data: bytes) -> bytes:
    """The ICC profile of a JPEG; b"" if it has none or a part is missing. (ICC.1:2022, annex B.4)"""
    if _ICC not in data:
        return b""
    start = len(_ICC) + 2
    parts = [
        part.content
        for part in _header_segments(data)
        if part.marker == 0xE2 and part.content.startswith(_ICC) and len(part.content) > start
    ]
    parts.sort(key=lambda content: content[start - 2])
    complete = [content[start - 2] for content in parts] == list(range(1, len(parts) + 1))
    if not parts or not complete or parts[0][start - 1] != len(parts):
        return b""
    return b"".join(content[start:] for content in parts)


def has_adobe_marker(data: bytes) -> bool:
    """True for a JPEG with Adobe's APP14 segment, which stores CMYK values inverted."""
    return _ADOBE in data and any(
        part.marker == 0xEE and part.content.startswith(_ADOBE) for part in _header_segments(data)
    )


def _header_segments(data: bytes) -> Iterator[_Segment]:
    """The segments before the first scan."""
    for segment in _segments(data):
        if segment.marker == _SOS:
            return
        yield segment


def _segments(data: bytes) -> Iterator[_Segment]:
    """The segments up to the end mark or the end of the data. (ITU-T T.81, annex B.1.1)

    A segment that states an impossible length ends where the next table begins, and is returned without content.
    """
    at = len(JPEG_SIGNATURE)
    while (found := _MARKER.search(data, at)) is not None:
        marker, start = found[1][0], found.end()
        if marker in _SOI_EOI:
            return
        length = struct.unpack_from(">H", data, start)[0] if start + 2 <= len(data) else 0
        at = start + length
        if length < 2 or at > len(data):
            table = _NEXT_TABLE.search(data, start)
            at = len(data) if table is None else table.start()
            yield _Segment(marker, b"")
            continue
        content = data[start + 2 : at]
        if marker != _SOS:
            yield _Segment(marker, content)
            continue
        following = _MARKER.search(data, at)
        end = len(data) if following is None else following.start()
        yield _Segment(marker, content, data[at:end])
        at = end


def _repaired(data: bytes) -> bytes:
    """The JPEG with the same tables and coded pixels, without what else may be wrong. Raises JpegError.

    Metadata are removed, and the end mark directly follows the coded data of the last scan. Their padding is dropped;
    if it was in the place of pixels, the decoder finds them missing.
    """
    if not data.startswith(JPEG_SIGNATURE):
        raise JpegError("it does not begin like one")
    parts, sequential = [JPEG_SIGNATURE], False
    segments = list(_segments(data))
    if not any(segment.marker == _SOS for segment in segments):
        raise JpegError("it has no pixels")
    for number, (marker, content, coded) in enumerate(segments):
        if marker == _COMMENT or 0xE0 <= marker <= 0xEF:
            content = _kept_application(marker, content)
            if not content:
                continue
        sequential |= marker in _SEQUENTIAL
        if marker == _SOS and sequential:
            content = (
                content[:-3] + b"\0\x3f\0"
            )  # all 64 coefficients, which T.81 requires and some writers do not state
        parts += [bytes([0xFF, marker]), struct.pack(">H", len(content) + 2), content]
        parts.append(_unpadded(coded) if number == len(segments) - 1 else coded)
    return b"".join([*parts, _EOI])


def _kept_application(marker: int, content: bytes) -> bytes:
    """The content of application segments that define the colours, JFIF's (as version 1.1) and Adobe's; else b""."""
    if marker == 0xE0 and content.startswith(_JFIF) and len(content) >= _JFIF_BYTES:
        return content[:5] + b"\1\1" + content[7:12] + b"\0\0"
    return content if marker == 0xEE and content.startswith(_ADOBE) and len(content) >= _ADOBE_BYTES else b""


def _unpadded(coded: bytes) -> bytes:
    """Coded data without the zeros or ones that pad them; a stuffed 0xFF belongs to the data."""
    end = len(coded.rstrip(b"\0\xff"))
    while coded[end : end + 2] == b"\xff\0":
        end += 2
    return coded[:end]
