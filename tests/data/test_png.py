"""The walk of plain PNGs, beside Pillow's, on pictures that Pillow and the test write."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from skimage import data

from imagegen_dist.data.png import PNG_SIGNATURE, PngError, read_plain_png

PHOTO = np.ascontiguousarray(data.astronaut()[60:101, 200:253])
HEIGHT, WIDTH, _ = PHOTO.shape


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(kind=2, depth=8, interlaced=0, width=WIDTH, height=HEIGHT):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))


def saved(pixels, **options):
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", **options)
    return target.getvalue()


STREAM = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PHOTO))


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("pixels", [PHOTO, PHOTO[..., 1]], ids=["rgb", "grey"])
def test_pixels_are_pillows(pixels, level):
    found = read_plain_png(saved(pixels, compress_level=level), HEIGHT, WIDTH)
    assert np.array_equal(found, pixels.reshape(HEIGHT, WIDTH, -1))


def test_pixels_may_lie_in_several_chunks_among_others():
    information = PngImagePlugin.PngInfo()
    information.add_text("Title", "a photograph")
    parts = [chunk(b"IDAT", STREAM[at : at + 100]) for at in range(0, len(STREAM), 100)]
    member = PNG_SIGNATURE + header() + b"".join(parts) + chunk(b"IEND", b"")
    for stored in (member, saved(PHOTO, pnginfo=information, dpi=(72, 72))):
        assert np.array_equal(read_plain_png(stored, HEIGHT, WIDTH), PHOTO)


def test_others_are_left_to_pillow():
    rgba = np.dstack([PHOTO, PHOTO[..., :1]])
    plain = saved(PHOTO)
    for member in (
        *(saved(rgba), saved(PHOTO[..., 0].astype(np.uint16))),
        *(b"", b"no picture", plain[:40], plain[:-20], plain.replace(b"IDAT", b"IDAX")[:8]),
        PNG_SIGNATURE + header(interlaced=1) + chunk(b"IDAT", STREAM),
        PNG_SIGNATURE + header() + chunk(b"acTL", bytes(8)) + chunk(b"IDAT", STREAM),
        PNG_SIGNATURE + header() + chunk(b"IEND", b""),
    ):
        assert read_plain_png(member, HEIGHT, WIDTH) is None
    assert read_plain_png(plain, WIDTH, HEIGHT) is None


def test_every_changed_bit_of_the_pixels_is_seen():
    member = saved(PHOTO[:8, :8])
    start = member.index(b"IDAT")
    for bit in range(8 * start, 8 * (len(member) - 16)):
        damaged = bytearray(member)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PngError, match=r"is a damaged PNG: the CRC of its .{4} is wrong"):
            read_plain_png(bytes(damaged), 8, 8)


@pytest.mark.parametrize("stream", [STREAM[:-60], STREAM[:50], b"", STREAM[:60] + b"\xff" * 9 + STREAM[69:]])
def test_pixels_that_are_cut_or_damaged_are_refused(stream):
    member = PNG_SIGNATURE + header() + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
    with pytest.raises(PngError, match="is a damaged PNG: "):
        read_plain_png(member, HEIGHT, WIDTH)
