"""Every format, mode, depth and orientation, intact and damaged: packing, streaming and Pillow show one picture.

Where ours differs from Pillow's `ImageOps.exif_transpose(picture).convert(...)`, docs/data.md says so in its table.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageOps

from imagegen_dist.data.conversion import Conversion, convert_image
from imagegen_dist.data.exif import upright
from imagegen_dist.data.modality import DecodeError, modality

IMAGE = modality("image")
PHOTO = Image.fromarray(skimage.data.astronaut()[40:64, 200:232])
LARGE = Image.fromarray(skimage.data.astronaut()[40:140, 180:300])
ORIENTATION = 0x0112
DOCUMENTED = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
ALPHA, GREY_16, FEW_BITS, WHITE_IS_ZERO = "transparency", "16-bit grey", "10 or 12 bits", "0 is white"
RAW = "raw pixels overwritten"


class Case(NamedTuple):
    """A kind of file, how it is written, and what it shows where that is not what Pillow says."""

    name: str
    write: Callable[..., bytes]  # takes a picture in RGB, and EXIF data or nothing
    turns: bool = False  # whether the format has an orientation
    difference: str = ""
    shown: Callable[[Image.Image], np.ndarray] | None = None  # by Pillow's picture, upright


def saved(form: str, mode: str = "RGB", **options) -> Callable[..., bytes]:
    def write(picture: Image.Image, exif: Image.Exif | None = None) -> bytes:
        target = io.BytesIO()
        turned = {} if exif is None else {"exif": exif}
        picture.convert(mode).save(target, form, **options, **turned)
        return target.getvalue()

    return write


def with_alpha(picture: Image.Image) -> Image.Image:
    seen = picture.convert("RGBA")
    seen.putalpha(
        Image.fromarray(
            np.linspace(0, 255, picture.width * picture.height).reshape(picture.height, picture.width).astype(np.uint8)
        )
    )
    return seen


def changed(change: Callable[[Image.Image], Image.Image], form: str, **options) -> Callable[..., bytes]:
    def write(picture: Image.Image, exif: Image.Exif | None = None) -> bytes:
        target = io.BytesIO()
        made = change(picture)
        made.save(target, form, **options, **({} if exif is None else {"exif": exif}))
        return target.getvalue()

    return write


def palette(picture: Image.Image) -> Image.Image:
    return picture.quantize(32)


def deep(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) << 8 | 0x5A)


def on_white(picture: Image.Image) -> np.ndarray:
    seen = picture.convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return np.asarray(shown.convert("L" if picture.mode in ("L", "LA") else "RGB"))


def high_byte(picture: Image.Image) -> np.ndarray:
    return (np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth: int, colours: int, rows: Callable[[Image.Image], np.ndarray]) -> Callable[..., bytes]:
    """A PNG of packed rows, uint8 [H, bytes], with the EXIF data in its own chunk. (PNG, third edition, 5 and 11)"""

    def write(picture: Image.Image, exif: Image.Exif | None = None) -> bytes:
        header = struct.pack(">IIBBBBB", picture.width, picture.height, depth, colours, 0, 0, 0)
        turned = b"" if exif is None else chunk(b"eXIf", exif.tobytes()[6:])
        lines = b"".join(b"\0" + line.tobytes() for line in rows(picture))
        pixels = chunk(b"IDAT", zlib.compress(lines))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + turned + pixels + chunk(b"IEND", b"")

    return write


def nibbles(picture: Image.Image) -> np.ndarray:
    grey = np.asarray(picture.convert("L")) >> 4
    return grey[:, ::2] << 4 | grey[:, 1::2]


def deep_rgb(picture: Image.Image) -> np.ndarray:
    values = (np.asarray(picture).astype(">u2") << 8 | 0x5A).astype(">u2")
    return np.frombuffer(values.tobytes(), np.uint8).reshape(picture.height, -1)


def tiff(bits: int, photometric: int, pack: Callable[[np.ndarray], bytes]) -> Callable[..., bytes]:
    """A TIFF of one strip of grey. (TIFF 6.0, sections 2 and 4)"""

    def write(picture: Image.Image, exif: Image.Exif | None = None) -> bytes:
        pixels = pack(np.asarray(picture.convert("L")))
        turned = 1 if exif is None else exif[ORIENTATION]
        tags = [
            *((256, picture.width), (257, picture.height), (258, bits), (259, 1), (262, photometric), (273, 8)),
            *((274, turned), (277, 1), (278, picture.height), (279, len(pixels))),
        ]
        at = 8 + len(pixels)
        entries = b"".join(struct.pack("<HHII", tag, 3 if value < 65536 else 4, 1, value) for tag, value in tags)
        return struct.pack("<2sHI", b"II", 42, at) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)

    return write


def twelve_bits(grey: np.ndarray) -> bytes:
    values = grey.astype(np.uint16) << 4
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    return packed.astype(np.uint8).tobytes()


def pgm(largest: int, values: Callable[[np.ndarray], np.ndarray]) -> Callable[..., bytes]:
    def write(picture: Image.Image, exif: None = None) -> bytes:
        grey = values(np.asarray(picture.convert("L")).astype(np.uint16))
        return b"P5 %d %d %d\n" % (*picture.size, largest) + grey.astype(">u2").tobytes()

    return write


CASES = [
    *(Case(f"PNG {mode}", saved("PNG", mode), True) for mode in ("1", "L", "RGB")),
    Case("PNG palette", changed(palette, "PNG"), True),
    Case("PNG palette, transparent", changed(palette, "PNG", transparency=3), True, ALPHA, on_white),
    Case(
        "PNG key, transparent",
        changed(lambda picture: picture, "PNG", transparency=PHOTO.getpixel((5, 5))),
        True,
        ALPHA,
        on_white,
    ),
    Case("PNG LA", changed(lambda picture: with_alpha(picture).convert("LA"), "PNG"), True, ALPHA, on_white),
    Case("PNG RGBA", changed(with_alpha, "PNG"), True, ALPHA, on_white),
    Case("PNG 16-bit grey", changed(deep, "PNG"), True, GREY_16, high_byte),
    Case("PNG 16-bit RGB", png(16, 2, deep_rgb), True),
    Case("PNG 4-bit grey", png(4, 0, nibbles), True),
    *(Case(f"JPEG {sub}", saved("JPEG", subsampling=sub), True) for sub in ("4:4:4", "4:2:2", "4:2:0")),
    Case("JPEG L", saved("JPEG", "L"), True),
    Case("JPEG progressive", saved("JPEG", progressive=True), True),
    Case("JPEG RGB", saved("JPEG", keep_rgb=True), True),
    Case("JPEG CMYK", saved("JPEG", "CMYK"), True),
    Case("WebP", saved("WEBP"), True),
    Case("WebP lossless", saved("WEBP", lossless=True), True),
    Case("WebP RGBA", changed(with_alpha, "WEBP"), True, ALPHA, on_white),
    Case("AVIF", saved("AVIF"), True),
    Case("AVIF RGBA", changed(with_alpha, "AVIF"), True, ALPHA, on_white),
    *(Case(f"TIFF {mode}", saved("TIFF", mode), True) for mode in ("1", "L", "RGB", "CMYK")),
    *(Case(f"TIFF {how}", saved("TIFF", compression=how), True) for how in ("tiff_lzw", "tiff_deflate", "packbits")),
    Case("TIFF jpeg", saved("TIFF", compression="jpeg"), True),
    Case("TIFF palette", changed(palette, "TIFF"), True),
    Case("TIFF RGBA", changed(with_alpha, "TIFF"), True, ALPHA, on_white),
    Case("TIFF 16-bit grey", changed(deep, "TIFF"), True, GREY_16, high_byte),
    Case("TIFF 8-bit, 0 is white", tiff(8, 0, lambda grey: (255 - grey).tobytes()), True),
    Case(
        "TIFF 16-bit, 0 is white",
        tiff(16, 0, lambda grey: (0xFFFF - (grey.astype("<u2") << 8)).astype("<u2").tobytes()),
        *(True, WHITE_IS_ZERO, lambda picture: ((0xFFFF - np.asarray(picture).astype(int)) >> 8).astype(np.uint8)),
    ),
    Case(
        "TIFF 12-bit",
        tiff(12, 1, twelve_bits),
        *(True, FEW_BITS, lambda picture: np.rint(np.asarray(picture) * (255 / 4095)).astype(np.uint8)),
    ),
    *(Case(f"BMP {mode}", saved("BMP", mode)) for mode in ("1", "L", "RGB")),
    Case("BMP palette", changed(palette, "BMP")),
    Case("BMP of 32 bits", changed(with_alpha, "BMP")),
    Case("GIF L", saved("GIF", "L")),
    Case("GIF palette", changed(palette, "GIF")),
    Case("GIF transparent", changed(palette, "GIF", transparency=3), False, ALPHA, on_white),
    Case("GIF animated", changed(palette, "GIF", save_all=True, append_images=[PHOTO.rotate(180)])),
    *(Case(f"PPM {mode}", saved("PPM", mode)) for mode in ("1", "L", "RGB")),
    Case("PGM 16-bit", pgm(65535, lambda grey: grey << 8 | 0x5A), False, GREY_16, high_byte),
    Case("PGM 10-bit", pgm(1023, lambda grey: grey << 2), False, FEW_BITS, high_byte),
]
TURNED = [(case, turn) for case in CASES for turn in (range(1, 9) if case.turns else (1,))]


def exif_of(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    return exif


def by_pillow(data: bytes, shown: Callable[[Image.Image], np.ndarray] | None) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as opened:
            picture = ImageOps.exif_transpose(opened)
            if shown is not None:
                return shown(picture)
            return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))


def streamed(data: bytes, name: str = "jpg") -> np.ndarray:
    shape = IMAGE.shape_of(data, name)
    out = IMAGE.empty(1, shape)[0]
    IMAGE.decode_into(data, name, out)
    return out[0] if len(out) == 1 else np.moveaxis(out, 0, -1)


def packed(data: bytes, **conversion) -> np.ndarray:
    return streamed(convert_image(data, Conversion(**conversion), "png").data, "png")


def test_the_matrix_is_large_enough():
    assert len(TURNED) >= 200


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_packing_streaming_and_pillow_show_one_picture(case):
    """In each of the format's orientations."""
    for turn in range(1, 9) if case.turns else (1,):
        data = case.write(PHOTO, exif_of(turn) if case.turns else None)
        reference = by_pillow(data, case.shown)
        assert np.array_equal(streamed(data), reference), turn
        assert np.array_equal(packed(data), reference), turn
        if case.difference:
            assert not np.array_equal(by_pillow(data, None), reference), "nothing to be documented"


@pytest.mark.parametrize("difference", [*sorted({case.difference for case in CASES} - {""}), RAW])
def test_each_difference_is_documented(difference):
    assert re.search(rf"^\| {re.escape(difference)}\b.*\|.*\|.*\|$", DOCUMENTED, re.MULTILINE)


def halves(data: bytes) -> dict[str, bytes]:
    """Damage of the second half, by name: what disks, downloads and truncated files leave behind."""
    middle, length = len(data) // 2, len(data)
    return {
        "cut": data[:middle],
        "cut, with a JPEG's end": data[:middle] + b"\xff\xd9",
        "zeros": data[:middle] + bytes(length - middle),
        "zeros, with a JPEG's end": data[:middle] + bytes(length - middle - 2) + b"\xff\xd9",
        "ones": data[:middle] + b"\xff" * (length - middle),
        "a hole": data[:middle] + bytes(256) + data[middle + 256 :],
        "the last bytes missing": data[:-5],
    }


def verdict(function: Callable[[bytes], np.ndarray], data: bytes) -> np.ndarray | None:
    try:
        return function(data)
    except DecodeError:
        return None


def pillows(data: bytes) -> np.ndarray | None:
    try:
        return by_pillow(data, None)
    except Exception:
        return None


def is_raw(name: str) -> bool:
    return name.startswith(("BMP", "PPM", "PGM")) or name in {
        *(f"TIFF {mode}" for mode in ("1", "L", "RGB", "CMYK", "RGBA", "palette", "16-bit grey", "12-bit")),
        *("TIFF 8-bit, 0 is white", "TIFF 16-bit, 0 is white"),
    }


def test_damaged_pixels_are_refused_by_packing_and_streaming_alike():
    """Or, where both show a picture, then all of it. Raw formats have nothing to tell zeros from black."""
    hidden = []
    for case in CASES:
        data = case.write(LARGE)
        whole = streamed(data)
        for damage, bad in halves(data).items():
            found, made, small = (
                verdict(function, bad) for function in (streamed, packed, lambda data: packed(data, size=(8, 8)))
            )
            name = f"{case.name}: {damage}"
            assert (found is None) == (made is None) == (small is None), name
            if found is not None and not is_raw(case.name):
                assert np.array_equal(found, whole), name
                assert np.array_equal(made, whole), name
            elif found is None and pillows(bad) is not None:
                hidden.append(name)
    assert len(hidden) >= 40  # which Pillow shows as if nothing were wrong with them
    assert {name.partition(":")[0].partition(" ")[0] for name in hidden} >= {"JPEG", "PNG", "WebP", "AVIF", "TIFF"}


def test_a_progressive_jpeg_that_is_cut_between_its_scans_is_refused():
    """All its rows are there, but blurred, and decoders do not object."""
    for mode in ("RGB", "L"):
        data = saved("JPEG", mode, progressive=True)(LARGE)
        assert streamed(data).shape == packed(data).shape
        scans = [found.start() for found in re.finditer(rb"\xff\xda\0[\x08\x0a\x0c]", data)]
        assert len(scans) > 3
        for at in scans[1:]:
            bad = data[:at] + b"\xff\xd9"
            assert pillows(bad) is not None
            for function in (streamed, packed):
                with pytest.raises(DecodeError, match="is a damaged JPEG: its last scans are missing"):
                    function(bad)


FLAT = [
    saved("WEBP", method=0),
    saved("WEBP", method=0, quality=100),
    saved("WEBP", lossless=True, quality=0, method=0),
    saved("AVIF", speed=10),
    saved("JPEG", optimize=True),
]


@pytest.mark.parametrize("write", FLAT)
def test_large_areas_of_one_colour_are_not_taken_for_damage(write):
    """Fast encoders write thousands of zeros in a row for them."""
    half = np.zeros((640, 640, 3), np.uint8)
    half[:320] = np.random.default_rng(0).integers(0, 256, (320, 640, 3))
    drawn = Image.new("RGB", (1200, 900), "white")
    drawn.paste("blue", (300, 200, 700, 600))
    for picture in (Image.fromarray(half), drawn, Image.new("RGB", (800, 800)), Image.new("RGB", (16, 16), "red")):
        assert streamed(write(picture)).shape == (*picture.size[::-1], 3)


def odd_exif(random: np.random.Generator, turn: int) -> bytes:
    """EXIF data with the orientation among tags of any number, type, length and value. (TIFF 6.0, section 2)"""
    count = int(random.integers(1, 12))
    entries = [
        struct.pack(">HHI", *random.integers(0, 1 << 16, 2).tolist(), int(random.integers(0, 1 << 32)))
        + random.bytes(4)
        for _ in range(count)
    ]
    wrong = (0x8769, 0x8825, 0xA005, 0x010E, 0x011A, 0x0213, 0x8298)  # sub-folders, texts, ratios
    entries += [struct.pack(">HHI", tag, int(random.integers(0, 14)), 7) + random.bytes(4) for tag in wrong]
    entries = [entry for entry in entries if entry[:2] != b"\x01\x12"]
    entries.insert(int(random.integers(0, len(entries) + 1)), struct.pack(">HHIHH", ORIENTATION, 3, 1, turn, 0))
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + b"".join(entries)


def with_exif(data: bytes, form: str, exif: bytes) -> bytes:
    if form == "JPEG":
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    if form == "PNG":
        return data[:33] + chunk(b"eXIf", exif[6:]) + data[33:]
    size = struct.unpack("<2H", data[26:30])
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in size)
    extended = b"VP8X" + struct.pack("<IB3x", 10, 8) + canvas + data[12:]
    extended += b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2)
    return b"RIFF" + struct.pack("<I", len(extended) + 4) + b"WEBP" + extended


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_odd_exif_data_cost_no_picture_and_keep_their_orientation(form):
    random, data = np.random.default_rng(7), saved(form)(PHOTO)
    plain = streamed(data)
    for number in range(130):
        turn = number % 8 + 1
        odd = with_exif(data, form, odd_exif(random, turn))
        for found in (streamed(odd), packed(odd)):
            assert np.array_equal(found, upright(plain, turn)), number
    cut = with_exif(data, form, odd_exif(random, 6)[:20])
    assert np.array_equal(packed(cut), plain)
    assert np.array_equal(streamed(cut), plain)


def test_exif_data_of_a_jpeg_are_found_after_any_other_segments():
    plain, exif = saved("JPEG")(PHOTO), odd_exif(np.random.default_rng(0), 6)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    expected = upright(streamed(plain), 6)
    before = (
        b"\xff\xe2\0\4\xff\xda",  # content that looks like the start of a scan
        b"\xff\xfe\0\2",
        b"\xff\xe1\0\5XMP",
        b"\xff\xff",  # fill bytes before a marker
        b"\xff\xe3\0\1",  # an impossible length
        *(plain[2:at] for at in (plain.index(b"\xff\xdb"), plain.index(b"\xff\xc0"), plain.index(b"\xff\xda"))),
    )
    for number, other in enumerate(before):
        cut = len(other) if number > 4 else 0
        data = plain[:2] + other + segment + plain[2 + cut :]
        assert np.array_equal(streamed(data), expected), number


def test_texts_and_profiles_above_pillows_limits_cost_no_picture():
    plain = saved("PNG")(PHOTO)
    bomb = zlib.compress(bytes(80 << 20))
    for metadata in (
        chunk(b"iTXt", b"Title\0\1\0\0\0" + bomb),
        chunk(b"zTXt", b"Title\0\0" + bomb),
        chunk(b"iCCP", b"profile\0\0" + bomb),
        chunk(b"iCCP", b"profile\0\0no profile"),
        chunk(b"tEXt", b"Title\0text")[:-1] + b"?",
    ):
        data = plain[:33] + metadata + plain[33:]
        assert np.array_equal(packed(data), np.asarray(PHOTO))
        assert np.array_equal(streamed(data), np.asarray(PHOTO))


def test_odd_segments_of_a_jpeg_cost_no_picture():
    plain = saved("JPEG")(PHOTO)
    expected, end = streamed(plain), plain[:-2]
    for odd in (
        *(plain[:2] + segment + plain[2:] for segment in (b"\xff\xe1\0\2", b"\xff\xe1\0\0", b"\xff\xee\0\5Ado")),
        plain.replace(b"JFIF\0\1\1", b"JFIF\0\7\1"),
        *(end, end + bytes(3) + b"\xff\xd9", end + bytes(5000), plain + b"junk" * 9),
    ):
        assert np.array_equal(streamed(odd), expected)
        assert np.array_equal(packed(odd), expected)
