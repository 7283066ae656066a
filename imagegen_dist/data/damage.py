"""Damage that Pillow's decoders do not report: overwritten coded pixels, and incomplete strips.

Formats with entropy coding and without checksums decode a run of zeros to some picture. Correctly coded data look
random, so a long run of one byte is suspicious: a lost disk block, or an incomplete download that was padded.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import simplejpeg
from PIL import Image

_HOLES = (bytes(64), b"\xff" * 64)
_SPARE_BYTES = 16  # more bytes than a decoder reads ahead
_FLAT_STEPS = 1  # of 255, largest range of the values of a channel
_WEBP_CODED = (b"VP8 ", b"VP8L", b"ALPH")
_BITS, _COMPRESSION, _SAMPLES, _PLANAR, _TABLES = 258, 259, 277, 284, 347
_STRIP_ROWS, _STRIP_AT, _STRIP_BYTES = 278, 273, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_AT, _TILE_BYTES = 322, 323, 324, 325
_DEFLATE, _PACKBITS, _JPEG = (8, 32946), 32773, 7


def check_coded(data: bytes, picture: Image.Image) -> str:
    """What is wrong with the coded pixels of a decoded WebP, AVIF or HEIC; "" if nothing."""
    if not _has_hole(data):
        return ""
    if data[:4] == b"RIFF":
        damaged = any(_has_hole(coded) and _has_spare(data, at, coded) for at, coded in _webp_pixels(data))
    else:
        damaged = _has_hole(_pixels_of_boxes(data, picture)) and not _is_flat(picture)
    return "a part of its coded pixels was overwritten" if damaged else ""


def _has_hole(coded: bytes) -> bool:
    return any(hole in coded for hole in _HOLES)


def _is_flat(picture: Image.Image) -> bool:
    """True for a picture of one colour, which may legitimately be coded as a run of one byte."""
    extrema = picture.convert("RGB").getextrema()
    return all(high - low <= _FLAT_STEPS for low, high in extrema)  # type: ignore[misc]


def _webp_pixels(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(position, content) of a WebP's chunks of coded pixels, without uncompressed transparency."""
    for at, kind, content in _riff_chunks(data):
        if kind in _WEBP_CODED and not (kind == b"ALPH" and content[:1] and content[0] & 3 == 0):
            yield at, content


def _has_spare(data: bytes, at: int, coded: bytes) -> bool:
    """True if the decoder needs fewer bytes than a chunk of a WebP has.

    An encoder writes exactly the bytes that are needed, also for runs of one byte that code large areas of one colour.
    Overwritten data need exactly as many bytes only by chance.
    """
    content = coded[:-_SPARE_BYTES]
    following = at + 8 + len(coded) + len(coded) % 2
    chunk = data[at : at + 4] + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    body = data[8:at] + chunk + data[following:]
    try:
        with Image.open(io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body), formats=("WEBP",)) as shorter:
            shorter.load()
            return True
    except (OSError, ValueError, SyntaxError):
        return False


def _pixels_of_boxes(data: bytes, picture: Image.Image) -> bytes:
    """The coded pixels of an AVIF or HEIC: its media data without metadata."""
    coded = b"".join(content for kind, content in _boxes(data) if kind == b"mdat")
    for name in ("exif", "xmp"):
        metadata = picture.info.get(name)
        if isinstance(metadata, bytes) and metadata:
            coded = coded.replace(metadata.removeprefix(b"Exif\0\0"), b"")
    return coded


def _riff_chunks(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(position, kind, content without padding) of the chunks. (WebP container specification)"""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield at, kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the outermost boxes. (ISO/IEC 14496-12, 4.2)"""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1 and at + 16 <= len(data):
            length, start = struct.unpack_from(">Q", data, at + 8)[0], at + 16
        end = len(data) if length == 0 else at + length
        if end < start:
            return
        yield kind, data[start:end]
        at = end


def check_tiff(data: bytes, tags: Any) -> str:
    """What is wrong with the strips or tiles of a TIFF; "" if nothing, or if its compression cannot be checked.

    tags: of the first page, by number. Deflate has a checksum, PackBits a known length, and JPEG is decoded strictly;
    libtiff checks none of them. (TIFF 6.0, sections 3, 9 and 15; Technical Note 2)
    """
    compression = tags.get(_COMPRESSION, 1)
    if compression not in (*_DEFLATE, _PACKBITS, _JPEG):
        return ""
    width, height = tags[256], tags[257]
    bits = sum(tags.get(_BITS, (1,))) if tags.get(_PLANAR, 1) == 1 else tags.get(_BITS, (1,))[0]
    planes = 1 if tags.get(_PLANAR, 1) == 1 else tags.get(_SAMPLES, 1)
    if _TILE_AT in tags:
        places = zip(tags[_TILE_AT], tags[_TILE_BYTES], strict=False)
        rows, row_bytes = [tags[_TILE_HEIGHT]] * len(tags[_TILE_AT]), -(-tags[_TILE_WIDTH] * bits // 8)
    else:
        places = zip(tags[_STRIP_AT], tags[_STRIP_BYTES], strict=False)
        each = min(tags.get(_STRIP_ROWS, height), height)
        per_plane = -(-height // each)
        rows = [min(each, height - each * number) for number in range(per_plane)] * planes
        row_bytes = -(-width * bits // 8)
    for (offset, length), count in zip(places, rows, strict=False):
        strip = data[offset : offset + length]
        if len(strip) < length or not _is_whole(strip, compression, count * row_bytes, tags):
            return "a strip of its pixels is damaged or cut off"
    return ""


def _is_whole(strip: bytes, compression: int, size: int, tags: Any) -> bool:
    """True if a strip decodes without an error to all bytes of its rows."""
    try:
        if compression in _DEFLATE:
            inflater = zlib.decompressobj()
            return len(inflater.decompress(strip, size + 1)) >= size and (inflater.eof or _ends_well(inflater))
        if compression == _PACKBITS:
            return _packbits_bytes(strip) == size
        if tags.get(_SAMPLES, 1) not in (1, 3):
            return True
        tables = tags.get(_TABLES, b"")
        simplejpeg.decode_jpeg(strip[:2] + tables[2:-2] + strip[2:], "RGB")
        return True
    except (zlib.error, ValueError):
        return False


def _ends_well(inflater: Any) -> bool:
    """True if compressed data end with the correct checksum after all required bytes."""
    inflater.decompress(inflater.unconsumed_tail, 1)
    return bool(inflater.eof)


def _packbits_bytes(strip: bytes) -> int:
    """Number of bytes that PackBits data decode to, as far as they are complete. (TIFF 6.0, section 9)"""
    at, size = 0, 0
    while at < len(strip):
        head = strip[at]
        if head < 128:
            size += min(head + 1, len(strip) - at - 1)
            at += head + 2
        else:
            size += 257 - head if head > 128 and at + 1 < len(strip) else 0
            at += 2 if head > 128 else 1
    return size
