"""Damage of every kind to one shard of a packed dataset: what the index says of it, and what training does.

Nothing is executed, nothing is lost without a word, and every count is exact.
"""

import io
import os
import pickle
import re
import struct
import tarfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.order import Plan
from imagegen_dist.data.pack import pack
from imagegen_dist.data.scanning import build_index
from imagegen_dist.data.stream import StreamConfig, read_samples, stream
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store

COUNT, DAMAGED = 30, 13
PLAN = Plan(seed=3, microbatches=1, microbatch_size=12, draws=1, lanes=1, block=3)  # an epoch is one block
STEPS = 5  # two epochs: every sample twice
SHARD = "shard-000001.tar"
PICTURE, LABEL = "000000013.png", "000000013.cls"
SPARE_BYTES = 20_480  # zeros after a shard's end mark, so that members can grow and the file keeps its size
MARKER = "imagegen-was-executed"


class Entry(NamedTuple):
    """A member of a shard."""

    name: str
    data: bytes
    kind: bytes = tarfile.REGTYPE


class Damage(NamedTuple):
    """What is done to the shard with samples 10 to 19, and what comes of it."""

    name: str
    make: Callable[[bytes], bytes | None]  # the shard's bytes before and after; None takes the file away
    index: str | int  # what refuses it while the index is built, or how many samples that finds
    training: str  # what is told in training with an older index; "" where nothing is wrong
    bad: range  # ids that training must not see
    pixels: NDArray[np.uint8] | None = None  # what sample 13 is now, where that is another picture


ONE, ALL, NONE = range(DAMAGED, DAMAGED + 1), range(10, 20), range(0)


def sample_of(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (3, 8, 10), dtype=np.uint8)


def parse(data: bytes) -> list[Entry]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [Entry(info.name, archive.extractfile(info).read()) for info in archive.getmembers()]


def edited(edit: Callable[[list[Entry]], list[Entry]]) -> Callable[[bytes], bytes]:
    """The shard with other members, filled up with zeros to the size that the index knows."""

    def make(data: bytes) -> bytes:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w") as archive:
            for entry in edit(parse(data)):
                info = tarfile.TarInfo(entry.name)
                info.size, info.type, info.linkname = len(entry.data), entry.kind, "/etc/passwd"
                archive.addfile(info, io.BytesIO(entry.data))
        assert len(target.getvalue()) <= len(data)
        return target.getvalue().ljust(len(data), b"\0")

    return make


def replaced(name: str, *entries: Entry) -> Callable[[bytes], bytes]:
    """The shard with other members in place of one."""
    return edited(lambda members: [new for old in members for new in (entries if old.name == name else (old,))])


def picture(data: bytes, extension: str = "png") -> Callable[[bytes], bytes]:
    return replaced(PICTURE, Entry(f"000000013.{extension}", data))


def cut(name: str, past: int) -> Callable[[bytes], bytes]:
    """The shard's bytes up to so many after the beginning of a member's header."""

    def make(data: bytes) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return data[: archive.getmember(name).offset + past]

    return make


def zeroed_from(name: str) -> Callable[[bytes], bytes]:
    """The shard with zeros from a member's header on, as a disk that lost them gives it."""
    return lambda data: cut(name, 0)(data).ljust(len(data), b"\0")


def interleave(members: list[Entry]) -> list[Entry]:
    """Sample 13's picture and label with sample 14 between them."""
    label = next(entry for entry in members if entry.name == LABEL)
    rest = [entry for entry in members if entry.name != LABEL]
    at = 1 + max(number for number, entry in enumerate(rest) if entry.name.startswith("000000014"))
    return [*rest[:at], label, *rest[at:]]


class Payload:
    """Creates a file in the working directory when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARKER,)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def rgb(number: int) -> Image.Image:
    return Image.fromarray(np.moveaxis(sample_of(number), 0, -1))


def png(width: int, height: int, depth: int, colours: int, interlaced: int, rows: bytes) -> bytes:
    """A PNG file of those header fields and scan lines. (PNG specification, third edition, 5.3 and 11.2)"""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def interlaced_png(pixels: NDArray[np.uint8]) -> bytes:
    """Seven passes over [3, H, W]. (PNG specification, 8.1, Adam7)"""
    passes = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
    lines = []
    for top, down, left, right in passes:
        part = np.moveaxis(pixels[:, top::down, left::right], 0, -1)
        lines += [b"\0" + line.tobytes() for line in part if line.size]
    return png(pixels.shape[2], pixels.shape[1], 8, 2, 1, b"".join(lines))


def deep_png(pixels: NDArray[np.uint8]) -> bytes:
    """16 bits, RGB, with `pixels` [3, H, W] in the high bytes and another value in the low ones."""
    deep = (np.moveaxis(pixels, 0, -1).astype(">u2") << 8 | 0x5A).astype(">u2")
    return png(pixels.shape[2], pixels.shape[1], 16, 2, 0, b"".join(b"\0" + line.tobytes() for line in deep))


def deep_grey_png(pixels: NDArray[np.uint8]) -> bytes:
    deep = (pixels.astype(">u2") << 8 | 0x5A).astype(">u2")
    return png(pixels.shape[1], pixels.shape[0], 16, 0, 0, b"".join(b"\0" + line.tobytes() for line in deep))


def paletted_png(pixels: NDArray[np.uint8]) -> bytes:
    """80 pixels [3, 8, 10] as 80 colours of a palette, the last one transparent."""
    image = Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10))
    image.putpalette(np.moveaxis(pixels, 0, -1).tobytes())
    return saved(image, "PNG", transparency=bytes([255] * 79 + [0]))


def white_at_the_end(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shown = pixels.copy()
    shown[:, -1, -1] = 255
    return shown


def huge_jpeg(side: int) -> bytes:
    """A small JPEG whose frame header says `side`². (ITU-T T.81, B.2.2)"""
    data = bytearray(saved(rgb(1), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def huge_webp(side: int) -> bytes:
    """A small WebP on a canvas of `side`². (WebP container specification, VP8X)"""
    small = saved(rgb(1), "WEBP", lossless=True)[12:]
    canvas = (side - 1).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas + small
    return b"RIFF" + struct.pack("<I", len(body)) + body


WRONG_SIZE = r"has [\d,]+ bytes, but the index says [\d,]+"
GREY = sample_of(99)[0]

DAMAGES = [
    Damage("cut at a member's edge", cut("000000015.cls", 0), "has no end mark after 5 samples", WRONG_SIZE, ALL),
    Damage("cut between label and picture", cut("000000015.png", 0), "no end mark|exactly one", WRONG_SIZE, ALL),
    Damage("cut in a header", cut("000000015.png", 100), r"cut in the header at byte \d+", WRONG_SIZE, ALL),
    Damage("cut in data", cut("000000015.png", 600), r"truncated in 000000015\.png", WRONG_SIZE, ALL),
    Damage("no file", lambda data: None, 20, "is missing", ALL),
    Damage("an empty file", lambda data: b"", "is empty: 0 bytes", WRONG_SIZE, ALL),
    Damage("only zeros", lambda data: bytes(len(data)), 20, "holds 0 samples, but its index says 10", ALL),
    Damage("zeros to the end", zeroed_from("000000015.cls"), 25, "holds 5 samples, but its index says 10", ALL),
    Damage("a label alone", replaced(PICTURE), *[r"sample 000000013 has \.cls; exactly one of"] * 2, ALL),
    Damage("a picture alone", replaced(LABEL), "1 of 10 samples have no label", "label of 000000013 is None", ONE),
    Damage(
        "a label that is no number", replaced(LABEL, Entry(LABEL, b"cat")), "numbers and names", "000000013 is cat", ONE
    ),
    Damage("an empty label", replaced(LABEL, Entry(LABEL, b"")), *["label of 000000013 is empty"] * 2, ONE),
    Damage("no picture's bytes", picture(b"no picture" * 9), *["sample 000000013 is not a picture"] * 2, ONE),
    Damage("an empty picture", picture(b""), *["sample 000000013 is not a picture"] * 2, ONE),
    Damage("an empty JPEG", picture(b"", "jpg"), *["sample 000000013 is not a picture"] * 2, ONE),
    Damage("half a PNG", picture(saved(rgb(13), "PNG")[:150]), 30, "sample 000000013 is a damaged PNG", ONE),
    Damage("half a JPEG", picture(saved(rgb(13), "JPEG")[:-20], "jpg"), 30, "000000013 is a damaged JPEG", ONE),
    Damage(
        "a key twice",
        replaced(PICTURE, Entry(PICTURE, b"first"), Entry(PICTURE, b"second")),
        *[r"has 000000013\.png twice"] * 2,
        ALL,
    ),
    Damage("a key that comes back", edited(interleave), *["has key 000000013 in two places"] * 2, ALL),
    Damage("a sample twice", edited(lambda members: members + members[:2]), *["has key 000000010 in two"] * 2, ALL),
    Damage("a sample less", edited(lambda members: members[:-2]), 29, "holds 9 samples, but its index says 10", ALL),
    Damage(
        "a symbolic link",
        replaced(PICTURE, Entry(PICTURE, b"", tarfile.SYMTYPE)),
        *[r"a symbolic link: 000000013\.png"] * 2,
        ALL,
    ),
    Damage(
        "a hard link",
        replaced(PICTURE, Entry(PICTURE, b"", tarfile.LNKTYPE)),
        *[r"a hard link: 000000013\.png"] * 2,
        ALL,
    ),
    Damage("a name above", replaced(PICTURE, Entry("../x.png", b"")), *[r"outside the archive: \.\./x\.png"] * 2, ALL),
    Damage("an absolute name", replaced(PICTURE, Entry("/x.png", b"")), *[r"outside the archive: /x\.png"] * 2, ALL),
    Damage("a huge PNG", picture(png(80_000, 80_000, 8, 2, 0, b"")), *["000000013 is 80000 × 80000: at most"] * 2, ONE),
    Damage("a huge JPEG", picture(huge_jpeg(65_500), "jpg"), *["sample 000000013 is 65500 × 65500"] * 2, ONE),
    Damage("a huge WebP", picture(huge_webp(65_500), "webp"), *["sample 000000013 is .*(pixels|65500)"] * 2, ONE),
    Damage(
        "another size",
        picture(saved(rgb(13).resize((9, 8)), "PNG")),
        "sample 000000013 is .*where others are",
        "sample 000000013 is 8 × 9 where the dataset's samples are 8 × 10",
        ONE,
    ),
    Damage(
        "pixels under a right JPEG header and end that are not there",
        picture(saved(rgb(13), "JPEG")[:-60] + b"\xff\xd9", "jpg"),
        *[30, "000000013 is a damaged JPEG"],
        ONE,
    ),
    Damage("16 bits", picture(deep_png(sample_of(99))), 30, "", NONE, sample_of(99)),
    Damage("16 bits of grey", picture(deep_grey_png(GREY)), 30, "", NONE, np.stack([GREY] * 3)),
    Damage("interlaced", picture(interlaced_png(sample_of(99))), 30, "", NONE, sample_of(99)),
    Damage("a palette with alpha", picture(paletted_png(sample_of(99))), 30, "", NONE, white_at_the_end(sample_of(99))),
    Damage(
        "animated",
        picture(saved(rgb(99), "PNG", save_all=True, append_images=[rgb(98), rgb(97)], duration=40)),
        30,
        "",
        NONE,
        sample_of(99),
    ),
    Damage(
        "members that are programs",
        replaced(
            LABEL,
            Entry(LABEL, b"3"),
            *(
                Entry(f"000000013.{extension}", pickle.dumps(Payload()))
                for extension in ("pyd", "pickle", "pkl", "pth", "py")
            ),
        ),
        30,
        "",
        NONE,
    ),
]

every_damage = pytest.mark.parametrize("damage", DAMAGES, ids=[damage.name for damage in DAMAGES])
harmful = [damage for damage in DAMAGES if damage.training]
every_harm = pytest.mark.parametrize("damage", harmful, ids=[damage.name for damage in harmful])


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """30 samples in three shards, and an index of them; the working directory is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = Store(tmp_path / "set")
    pack(((sample_of(number), number % 10) for number in range(COUNT)), store, shard_samples=10)
    path = store.local_path(SHARD)
    path.write_bytes(path.read_bytes() + bytes(SPARE_BYTES))
    yield build_index(store), store
    assert os.listdir() == []


def apply(damage, store):
    path = store.local_path(SHARD)
    after = damage.make(path.read_bytes())
    path.unlink() if after is None else path.write_bytes(after)


def expected(damage, number):
    return damage.pixels if damage.pixels is not None and number == DAMAGED else sample_of(number)


def assert_samples(damage, samples, ids):
    """Every sample is the one that its id names, to the last bit."""
    for sample, number in zip(samples, ids, strict=True):
        assert np.array_equal(sample.numpy(), expected(damage, number)), number


def config(**changes):
    return StreamConfig(decoded_bytes=0, **changes)


@every_damage
def test_an_index_is_made_of_what_is_whole_or_not_at_all(dataset, damage):
    _, store = dataset
    apply(damage, store)
    if isinstance(damage.index, str):
        with pytest.raises((DatasetError, ShardError), match=damage.index) as error:
            build_index(store)
        assert SHARD in str(error.value)
        assert "\n" not in str(error.value)
        return
    index = build_index(store)
    assert index.samples == damage.index
    if not damage.training:
        samples, labels = read_samples(index, store, range(COUNT))
        assert_samples(damage, samples, range(COUNT))
        assert labels.tolist() == [number % 10 for number in range(COUNT)]


@every_harm
def test_training_stops_at_damage_and_names_it(dataset, damage):
    index, store = dataset
    apply(damage, store)
    with pytest.raises(ShardError, match=damage.training) as error:
        list(stream(index, store, PLAN, range(1), 0, STEPS, config()))
    assert f"{store.url}/{SHARD}" in str(error.value)
    assert "\n" not in str(error.value)


@every_damage
def test_substitutes_come_for_what_is_damaged_and_for_nothing_else(dataset, damage):
    index, store = dataset
    whole = list(stream(index, store, PLAN, range(1), 0, STEPS, config()))
    apply(damage, store)
    items = list(stream(index, store, PLAN, range(1), 0, STEPS, config(on_bad="substitute", bad_limit=1.0)))
    wanted, came = (torch.cat([item.id.flatten() for item in found]) for found in (whole, items))
    assert sorted(wanted.tolist()) == sorted([*range(COUNT), *range(COUNT)])
    hit = torch.isin(wanted, torch.tensor(damage.bad, dtype=torch.int64))
    assert torch.equal(came[~hit], wanted[~hit])
    assert not set(came.tolist()) & set(damage.bad)
    assert_samples(damage, torch.cat([item.sample.flatten(0, 2) for item in items]), came.tolist())
    for item in items:
        assert torch.equal(item.label, item.id % 10)
        assert item.counters["bad"] == len(item.bad)
    lines = [line for item in items for line in item.bad]
    assert len(lines) == int(hit.sum()) == 2 * len(damage.bad)
    for line in lines:
        assert line.startswith(f"{store.url}/{SHARD}")
        assert re.search(damage.training, line)


@every_harm
def test_above_the_limit_training_stops_and_names_the_shard(dataset, damage):
    index, store = dataset
    apply(damage, store)
    with pytest.raises(ShardError, match=r"of \d+ samples were damaged, above --data\.bad-limit 0\.001: ") as error:
        list(stream(index, store, PLAN, range(1), 0, STEPS, config(on_bad="substitute")))
    assert SHARD in str(error.value)


def test_the_program_would_have_run(dataset):
    """What the test of programs guards against is real."""
    pickle.loads(pickle.dumps(Payload()))  # noqa: S301
    os.rmdir(MARKER)
