"""The walk of PNGs, beside Pillow's, on pictures that Pillow and the test write."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from skimage import data

from imagegen_dist.data.png import PNG_SIGNATURE, PngError, plain_pixels, read_png, without_metadata

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


def decoded(member):
    png = read_png(member)
    assert png.is_plain
    return plain_pixels(png)


STREAM = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PHOTO))


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("pixels", [PHOTO, PHOTO[..., 1]], ids=["rgb", "grey"])
def test_pixels_are_pillows(pixels, level):
    found = decoded(saved(pixels, compress_level=level))
    assert np.array_equal(found, pixels.reshape(HEIGHT, WIDTH, -1))


def test_pixels_may_lie_in_several_chunks_among_others():
    information = PngImagePlugin.PngInfo()
    information.add_text("Title", "a photograph")
    parts = [chunk(b"IDAT", STREAM[at : at + 100]) for at in range(0, len(STREAM), 100)]
    member = PNG_SIGNATURE + header() + b"".join(parts) + chunk(b"IEND", b"")
    for stored in (member, saved(PHOTO, pnginfo=information, dpi=(72, 72))):
        assert np.array_equal(decoded(stored), PHOTO)


def test_others_go_to_pillow_with_nothing_but_their_pixels():
    information = PngImagePlugin.PngInfo()
    information.add_text("Title", "a photograph")
    palette = Image.fromarray(PHOTO).quantize(9)
    for picture, options in (
        (Image.fromarray(np.dstack([PHOTO, PHOTO[..., :1]])), {}),
        (Image.fromarray(PHOTO[..., 0].astype(np.uint16)), {}),
        (palette, {"transparency": 3}),
        (Image.fromarray(PHOTO), {"transparency": (1, 2, 3)}),
    ):
        target = io.BytesIO()
        picture.save(target, "PNG", pnginfo=information, **options)
        png = read_png(target.getvalue())
        assert not png.is_plain
        bare = without_metadata(png)
        assert b"photograph" not in bare
        assert np.array_equal(
            np.asarray(Image.open(io.BytesIO(bare)).convert("RGBA")),
            np.asarray(Image.open(target).convert("RGBA")),
        )


def test_a_missing_end_or_a_comment_with_a_wrong_crc_costs_no_picture():
    plain = saved(PHOTO)
    comment = bytearray(chunk(b"tEXt", b"Title\0a photograph"))
    comment[-1] ^= 1
    after_header = len(PNG_SIGNATURE) + 25
    for member in (plain[:-12], plain[:-3], plain[:after_header] + bytes(comment) + plain[after_header:]):
        assert np.array_equal(decoded(member), PHOTO)


@pytest.mark.parametrize(
    "member", [b"", PNG_SIGNATURE, saved(PHOTO)[:40], PNG_SIGNATURE + header() + chunk(b"IEND", b"")]
)
def test_without_header_or_pixels_it_is_no_picture(member):
    with pytest.raises(PngError, match=r"not a PNG|has no pixels, or they are cut off"):
        read_png(member)


def test_every_changed_bit_of_the_pixels_is_seen():
    member = saved(PHOTO[:8, :8])
    start = member.index(b"IDAT")
    for bit in range(8 * start, 8 * (len(member) - 16)):
        damaged = bytearray(member)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PngError, match=r"is a damaged PNG: (the CRC of its IDAT is wrong|it has no pixels)"):
            read_png(bytes(damaged))


@pytest.mark.parametrize("stream", [STREAM[:-60], STREAM[:50], b"", STREAM[:60] + b"\xff" * 9 + STREAM[69:]])
def test_pixels_that_are_cut_or_damaged_are_refused(stream):
    member = PNG_SIGNATURE + header() + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
    with pytest.raises(PngError, match="is a damaged PNG: "):
        decoded(member)
