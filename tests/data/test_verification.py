"""Shards of others are indexed as they are, and a check finds every damage: with real archives in real places."""

import dataclasses
import functools
import hashlib
import io
import json
import re
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import webdataset

from imagegen_dist.cli.make_shards import check_table
from imagegen_dist.data import shard_file, trust, verification
from imagegen_dist.data.cache import CacheConfig
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetError, DatasetIndex
from imagegen_dist.data.modality import modality
from imagegen_dist.data.order import Plan
from imagegen_dist.data.pack import pack
from imagegen_dist.data.packing import pack_dataset
from imagegen_dist.data.stream import StreamConfig, read_samples, stream
from imagegen_dist.data.verification import CheckReport, check_dataset, index_shards
from imagegen_dist.storage import Store
from tests.tars import tar_of


def picture(number: int, *shape: int, extension: str = "png") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, shape or (3, 8, 8), np.uint8)
    return modality("image").encode(pixels, extension)


def put_shard(store: Store, name: str, files: list[tuple[str, bytes]]) -> None:
    store.write(name, tar_of(files))


def put_dataset(store: Store, shards: int = 3) -> DatasetIndex:
    """Five samples a shard, four classes."""
    samples = ((np.full((3, 8, 8), number, np.uint8), number % 4) for number in range(5 * shards))
    return pack(samples, store, shard_samples=5)


@pytest.fixture(params=["{}/set", "memory://test-inspection/{}"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    place = Store(request.param.format(tmp_path))
    yield place
    place.remove()


class Served(NamedTuple):
    """A dataset without an index that a web server shows and nobody can write to."""

    url: Store
    folder: Path
    faults: dict[str, Callable[[bytes], bytes]]  # what becomes of a file's bytes the next time it is sent


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(trust, "check_public", lambda url: None)  # the server stands for one on another machine
    folder, faults = tmp_path / "served", dict[str, Callable[[bytes], bytes]]()
    put_dataset(Store(folder))
    (folder / "index.json").unlink()

    class Handler(SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            outputfile.write(faults.pop(self.path[1:], bytes)(source.read()))

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield Served(Store(f"http://127.0.0.1:{server.server_port}"), folder, faults)
        server.shutdown()
        thread.join()


def findings(report: CheckReport) -> dict[str, tuple[str, ...]]:
    return {shard.name: shard.findings for shard in report.shards if shard.findings}


# Indexing


def test_an_index_is_what_packing_wrote(store: Store) -> None:
    packed = put_dataset(store)
    written = store.read("index.json")
    store.remove("index.json")
    assert index_shards(store) == packed
    assert store.read("index.json") == written


@pytest.mark.parametrize("is_sorted", [True, False])
def test_an_order_that_follows_the_classes_is_told(tmp_path: Path, is_sorted: bool) -> None:
    labels = [number // 20 if is_sorted else number % 4 for number in range(80)]
    shards, told, again = Store(tmp_path / "shards"), list[str](), list[str]()
    samples = ((np.full((3, 8, 8), number, np.uint8), label) for number, label in enumerate(labels))
    pack(samples, shards, shard_samples=30)
    shards.remove("index.json")
    index_shards(shards, tell=told.append)
    pack_dataset(tmp_path / "shards", tmp_path / "packed", workers=0, tell=again.append)
    found = [line for line in [*told, *again] if "in the order of their classes" in line]
    assert len(found) == (2 if is_sorted else 0)


def test_an_index_is_not_replaced(store: Store) -> None:
    put_dataset(store)
    with pytest.raises(DatasetError, match=r"has an index\.json already: remove it"):
        index_shards(store)


def test_shards_of_a_place_that_cannot_be_written_are_indexed_elsewhere(served: Served, tmp_path: Path) -> None:
    index_at = Store(tmp_path / "index")
    with pytest.raises(DatasetError, match=r"cannot write http://.*--index-at URL keeps the index in another folder"):
        index_shards(served.url)
    index = index_shards(served.url, index_at)
    assert (index.samples, index.shards_url) == (15, served.url.url)
    assert Dataset.open(index_at.url, StreamConfig(allow_remote_shards=True)).store == served.url
    report = check_dataset(index_at, remote_shards=True)
    assert (report.damaged, len(report.shards)) == (0, 3)


def test_an_index_elsewhere_streams_the_same_samples(served: Served, tmp_path: Path) -> None:
    index_shards(served.url, Store(tmp_path / "index"))
    index_shards(Store(served.folder), Store(served.folder))

    def steps(url: Path) -> list[bytes]:
        config = StreamConfig(cache=CacheConfig(directory=str(tmp_path / "cache")), allow_remote_shards=True)
        dataset = Dataset.open(str(url), config)
        items = stream(dataset.index, dataset.store, Plan(0, 1, 5, 1, 1, 2), range(1), 0, 6, config)
        return [item.sample.numpy().tobytes() for item in items]

    assert steps(tmp_path / "index") == steps(served.folder)
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 3


def test_a_shard_that_comes_in_part_is_fetched_again(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_file, "_FIRST_PAUSE_S", 0.01)
    served.faults["shard-000001.tar"] = lambda data: data[:5000]
    assert index_shards(served.url, Store(tmp_path / "index")).counts.tolist() == [5, 5, 5]
    assert served.faults == {}


def test_an_index_goes_to_no_folder_with_other_shards(store: Store, tmp_path: Path) -> None:
    put_dataset(store)
    other = Store(tmp_path / "other")
    put_dataset(other)
    other.remove("index.json")
    with pytest.raises(DatasetError, match=r"/other has shards of its own: choose another folder"):
        index_shards(store, other)


def test_a_place_without_shards_is_refused(store: Store, tmp_path: Path) -> None:
    for place, told in ((store, "has no shards"), (Store(tmp_path / "none"), "does not exist")):
        store.write("notes.txt", b"")
        with pytest.raises(DatasetError, match=told):
            index_shards(place, place)


def test_a_damaged_shard_is_named_and_no_index_is_left(store: Store) -> None:
    put_dataset(store)
    store.remove("index.json")
    store.write("shard-000001.tar", store.read("shard-000001.tar")[:5652])
    with pytest.raises(DatasetError, match=rf"^{store}: shard-000001\.tar is truncated in 000000007\.png: "):
        index_shards(store)
    assert not store.exists("index.json")


def test_pictures_of_several_sizes_name_the_command_that_packs_them_again(store: Store) -> None:
    put_shard(store, "a.tar", [("0.png", picture(0)), ("1.png", picture(1))])
    put_shard(store, "b.tar", [("2.png", picture(2, 3, 8, 9))])
    command = f"python jobs/make_shards.py {store} DEST --size 64x64"
    with pytest.raises(DatasetError, match=rf"b\.tar is 8 × 9 × 3 where others are 8 × 8 × 3; .*`{command}`$"):
        index_shards(store)


def test_a_link_that_leads_nowhere_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tar").symlink_to(tmp_path / "gone")
    with pytest.raises(DatasetError, match=r"^cannot read .*/a\.tar: it does not exist$"):
        index_shards(Store(tmp_path))


# Shards that others wrote


def test_shards_of_webdatasets_writer(tmp_path: Path) -> None:
    with webdataset.ShardWriter(f"{tmp_path}/a-%06d.tar", maxcount=4, verbose=0) as writer:
        for number in range(10):
            pixels = np.full((8, 8, 3), number, np.uint8)
            writer.write({"__key__": f"{number:05}", "png": pixels, "cls": number % 3, "json": {"caption": "a cat"}})
    index = index_shards(Store(tmp_path))
    assert (index.counts.tolist(), index.classes, index.shape.dims) == ([4, 4, 2], 3, (3, 8, 8))


def test_labels_in_json(tmp_path: Path) -> None:
    with webdataset.ShardWriter(f"{tmp_path}/a-%06d.tar", verbose=0) as writer:
        for number in range(3):
            writer.write({"__key__": f"{number}", "jpg": np.zeros((8, 8, 3), np.uint8), "json": {"label": number}})
    assert index_shards(Store(tmp_path)).classes == 3


@pytest.mark.parametrize("record", [{"caption": "a cat", "key": "0", "label": None}, ["a", "cat"]])
def test_captions_are_no_labels(tmp_path: Path, record: object) -> None:
    with webdataset.ShardWriter(f"{tmp_path}/a-%06d.tar", verbose=0) as writer:
        writer.write({"__key__": "0", "jpg": np.zeros((8, 8, 3), np.uint8), "json": record})
    assert index_shards(Store(tmp_path)).classes is None


def test_names_in_json_are_classes_in_their_natural_order(tmp_path: Path) -> None:
    labels = ["10", "2", "cat 10", "cat 9", "2"]
    with webdataset.ShardWriter(f"{tmp_path}/a-%06d.tar", maxcount=2, verbose=0, mtime=0) as writer:
        for number, label in enumerate(labels):
            writer.write({"__key__": f"{number}", "png": np.zeros((8, 8, 3), np.uint8), "json": {"label": label}})
    index = index_shards(Store(tmp_path))
    assert index.class_names == ("2", "10", "cat 9", "cat 10")
    assert index.class_counts == (2, 1, 1, 1)
    assert read_samples(index, Store(tmp_path), range(5))[1].tolist() == [1, 0, 3, 2, 0]  # type: ignore[union-attr]
    assert check_dataset(Store(tmp_path)).damaged == 0
    dataclasses.replace(index, class_names=("2", "10", "a", "b")).save(Store(tmp_path))
    found = findings(check_dataset(Store(tmp_path)))["a-000001.tar"]
    assert found == (
        "2 samples have a bad label, the first: sample 2 has the label 'cat 10', which is none of the classes' names",
    )


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([-1], r"a-000000\.tar: the label of 0 is -1, which is not a whole number from 0"),
        ([[1]], r"the label of 0 is \[1\], which is a list"),
        ([0, "cat"], r"a-000000\.tar: labels are numbers and names \('cat'\)"),
        ([0, None], r"1 of 2 samples have no label"),
        ([4_000_000_000], r"the largest label is 4,000,000,000, .* look like ids or hashes"),
        ([f"caption {number}" for number in range(30)], r"30 different texts label 30 samples: .* captions"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, labels: list[object], told: str) -> None:
    with webdataset.ShardWriter(f"{tmp_path}/a-%06d.tar", verbose=0) as writer:
        for number, label in enumerate(labels):
            writer.write({"__key__": f"{number}", "jpg": np.zeros((8, 8, 3), np.uint8), "json": {"label": label}})
    with pytest.raises(DatasetError, match=told) as error:
        index_shards(Store(tmp_path))
    assert "\n" not in str(error.value)


def test_shards_of_img2dataset(store: Store) -> None:
    for shard in range(2):
        files = []
        for number in range(3):
            key = f"{shard:05}{number:04}"
            facts = {
                **{"caption": "a cat", "url": "http://example.org/cat.jpg", "key": key, "status": "success"},
                **{"error_message": None, "width": 8, "height": 8, "exif": "{}", "sha256": "0" * 64},
            }
            members = {"jpg": picture(number, extension="jpg"), "txt": b"a cat", "json": json.dumps(facts).encode()}
            files += [(f"{key}.{extension}", data) for extension, data in members.items()]
        put_shard(store, f"{shard:05}.tar", files)
        store.write(f"{shard:05}.parquet", b"PAR1")
        store.write(f"{shard:05}_stats.json", b"{}")
    index = index_shards(store)
    assert (index.counts.tolist(), index.classes, index.shape.dims) == ([3, 3], None, (3, 8, 8))
    assert check_dataset(store).damaged == 0


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"])
@pytest.mark.parametrize("what", [".", "cats", "cats/brown"])
def test_archives_made_by_hand(tmp_path: Path, form: str, what: str) -> None:
    pictures, shards = tmp_path / "pictures", tmp_path / "shards"
    deep = pictures / "cats" / "brown" / ("é" * (20 if form in ("ustar", "v7") else 110))
    deep.mkdir(parents=True)
    shards.mkdir()
    for number in range(3):
        (deep / f"{number}.PNG").write_bytes(picture(number))
        (deep / f"{number}.cls").write_text(f"{number}\n")
    command = ["tar", f"--format={form}", "--sort=name", "-cf", str(shards / "a.tar"), "-C", str(pictures), what]
    subprocess.run(command, check=True)
    index = index_shards(Store(shards), Store(shards))
    assert (index.samples, index.classes) == (3, 3)


def test_classes_are_named_by_a_file_beside_the_shards(store: Store) -> None:
    put_dataset(store)
    store.remove("index.json")
    store.write("classes.txt", "\ufeffcat\r\ndog\r\n horse \r\n\u00e9lan\r\n\r\n".encode())
    assert index_shards(store).class_names == ("cat", "dog", "horse", "élan")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (b"cat\ndog\nhorse\n", r"has label 3, but classes is 3 \(classes\.txt names 3 classes\)$"),
        (b"cat\n\nhorse\nelk\n", r"/classes\.txt has an empty line"),
        (b"", r"/classes\.txt has an empty line"),
        (b"\xff\xfe", r"/classes\.txt is not text in UTF-8: invalid start byte$"),
    ],
)
def test_names_that_do_not_fit_the_labels_are_refused(store: Store, names: bytes, told: str) -> None:
    put_dataset(store)
    store.remove("index.json")
    store.write("classes.txt", names)
    with pytest.raises(DatasetError, match=told):
        index_shards(store)


def test_members_that_are_apart_are_refused(tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes(picture(0))
        (tmp_path / name).with_suffix(".cls").write_text("0")
    subprocess.run(["tar", "cf", "a.tar", "0.png", "1.png", "0.cls", "1.cls"], cwd=tmp_path, check=True)
    with pytest.raises(DatasetError, match=r"a\.tar has key 0 in two places"):
        index_shards(Store(tmp_path))


# Checking


def test_a_good_dataset_has_no_finding(store: Store) -> None:
    index = put_dataset(store)
    report = check_dataset(store)
    assert report.damaged == 0
    assert tuple(shard.info for shard in report.shards) == index.shards
    assert findings(report) == {}


def flipped(data: bytes) -> bytes:
    """Another bit in a picture's pixels, which no header tells."""
    at = data.index(b"IDAT") + 6
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def flip(store: Store) -> None:
    store.write("shard-000001.tar", flipped(store.read("shard-000001.tar")))


def cut(store: Store) -> None:
    store.write("shard-000001.tar", store.read("shard-000001.tar")[:5652])


def corrupt_header(store: Store) -> None:
    data = bytearray(store.read("shard-000001.tar"))
    data[100] ^= 1
    store.write("shard-000001.tar", bytes(data))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip, [r"has other bytes: SHA-256 \w{8}\.\.\., but the index says \w{8}\.\.\."]),
        (
            cut,
            [r"has 5,652 bytes, but the index says 20,480", r"is truncated in 000000007\.png: it lacks \d+ bytes"],
        ),
        (corrupt_header, [r"has other bytes: .*", r"has a corrupt header at byte 0: the checksum differs"]),
        (lambda store: store.remove("shard-000001.tar"), ["is missing"]),
    ],
)
def test_damage_is_found_in_the_shard_that_has_it(
    store: Store, damage: Callable[[Store], None], told: list[str]
) -> None:
    put_dataset(store)
    damage(store)
    report = check_dataset(store)
    assert (report.damaged, list(findings(report))) == (1, ["shard-000001.tar"])
    (lines,) = findings(report).values()
    assert len(lines) == len(told)
    for line, pattern in zip(lines, told, strict=True):
        assert re.fullmatch(pattern, line)


def test_a_shard_that_the_index_does_not_list_is_found(store: Store) -> None:
    put_dataset(store)
    store.write("extra.tar", store.read("shard-000000.tar"))
    report = check_dataset(store)
    assert (report.damaged, findings(report)) == (1, {"extra.tar": ("is not in the index",)})


def test_what_the_index_says_wrongly_of_a_file_is_found(store: Store) -> None:
    index = put_dataset(store)
    first, second, third = index.shards
    changed = (dataclasses.replace(first, crc32=7), dataclasses.replace(second, samples=6), third)
    dataclasses.replace(index, shards=changed).save(store)
    assert findings(check_dataset(store)) == {
        "shard-000000.tar": (f"has the CRC-32 {first.crc32:08x}, but the index says 00000007",),
        "shard-000001.tar": ("holds 5 samples, but the index says 6",),
    }


def test_samples_that_do_not_fit_the_index_are_counted(store: Store) -> None:
    index = put_dataset(store)
    shape = dataclasses.replace(index.shape, spatial=(8, 9))
    dataclasses.replace(index, shape=shape, classes=2, class_counts=None).save(store)

    def told(picture: int, labels: int, label: int) -> tuple[str, str]:
        size = "8 × 8 × 3, but the index says 8 × 9 × 3"
        return (
            f"5 samples have a bad picture, the first: sample {picture:09} is {size}",
            f"{labels} samples have a bad label, the first: sample {label:09} has label 2, but there are 2 classes",
        )

    assert findings(check_dataset(store)) == {
        "shard-000000.tar": told(0, 2, 2),
        "shard-000001.tar": told(5, 2, 6),
        "shard-000002.tar": told(10, 3, 10),
    }


def test_a_volume_is_no_picture(store: Store) -> None:
    volumes = np.zeros((2, 1, 4, 4, 4), np.uint8)
    index = pack(((volume, None) for volume in volumes), store, "voxels", "npy")
    dataclasses.replace(index, shape=dataclasses.replace(index.shape, spatial=(4, 4, 5))).save(store)
    [(finding,)] = findings(check_dataset(store)).values()
    assert finding.startswith("2 samples have a bad volume, the first: sample 000000000 is 4 × 4 × 4")


def test_one_sample_of_another_size_with_no_label_is_found_among_good_ones(store: Store) -> None:
    index = put_dataset(store)
    members = [("0.png", picture(0)), ("0.cls", b"0"), ("1.png", picture(1, 3, 8, 7)), ("2.png", b""), ("2.cls", b"x")]
    put_shard(store, "shard-000001.tar", members)
    data = store.read("shard-000001.tar")
    second = dataclasses.replace(
        index.shards[1],
        **{"bytes": len(data), "samples": 3, "crc32": zlib.crc32(data), "sha256": hashlib.sha256(data).hexdigest()},
    )
    dataclasses.replace(index, shards=(index.shards[0], second, index.shards[2])).save(store)
    assert findings(check_dataset(store)) == {
        "shard-000001.tar": (
            "2 samples have a bad picture, the first: sample 1 is 8 × 7 × 3, but the index says 8 × 8 × 3",
            "2 samples have a bad label, the first: sample 1 has no label",
        )
    }


def test_grey_fits_an_index_of_rgb_and_not_the_other_way_round(tmp_path: Path) -> None:
    for folder, first, second in (("a", 3, 1), ("b", 1, 3)):
        store = Store(tmp_path / folder)
        put_shard(store, "0.tar", [("0.png", picture(0, first, 8, 8))])
        put_shard(store, "1.tar", [("1.png", picture(1, second, 8, 8))])
        index = index_shards(store)
        assert index.shape.channels == 3
    dataclasses.replace(index, shape=dataclasses.replace(index.shape, channels=1)).save(store)
    assert list(findings(check_dataset(store))) == ["1.tar"]


def test_every_damage_is_found_in_one_check(store: Store) -> None:
    put_dataset(store, shards=5)
    for damage in (flip, cut):
        damage(store)
    store.write("shard-000002.tar", b"")
    store.remove("shard-000003.tar")
    store.write("shard-000009.tar", b"")
    report = check_dataset(store)
    assert report.damaged == 4
    assert list(findings(report)) == [f"shard-{number:06}.tar" for number in (1, 2, 3, 9)]


def test_faults_beyond_counting_take_one_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ((np.zeros((1, 2, 2), np.uint8), number % 2) for number in range(300))
    index = pack(samples, Store(tmp_path))
    dataclasses.replace(index, classes=1, class_counts=None).save(Store(tmp_path))
    walks, walk = [], verification.walk
    monkeypatch.setattr(verification, "walk", lambda *arguments: walks.append(1) or walk(*arguments))
    assert next(iter(findings(check_dataset(Store(tmp_path))).values()))[0].startswith("150 samples have a bad label")
    assert len(walks) == 1


def test_a_check_without_an_index_says_how_to_make_one(store: Store) -> None:
    put_dataset(store)
    store.remove("index.json")
    with pytest.raises(DatasetError, match=r"3 shards but no index\.json: .*--index-only"):
        check_dataset(store)


def test_a_byte_that_changes_on_the_way_is_no_damage(served: Served, tmp_path: Path) -> None:
    index_at = Store(tmp_path / "index")
    index_shards(served.url, index_at)
    served.faults["shard-000001.tar"] = flipped
    assert check_dataset(index_at, remote_shards=True).damaged == 0
    assert served.faults == {}
    flip(Store(served.folder))
    assert list(findings(check_dataset(index_at, remote_shards=True))) == ["shard-000001.tar"]


# The table


def test_a_table_of_few_shards_has_them_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_dataset(store)
    store.write("shard-000001.tar", store.read("shard-000001.tar")[:5000])
    store.write("extra.tar", b"")
    assert (
        check_table(check_dataset(store), 80)
        == """\
shard             samples   bytes  found
shard-000000.tar        5  20,480  good
shard-000001.tar        5  20,480  has 5,000 bytes, but the index says 20,480
                                   has no end mark after 3 samples: it is cut,
                                   or its writer was not closed
shard-000002.tar        5  20,480  good
extra.tar                          is not in the index
2 of 3 shards good, 10 of 15 samples, 41kB of 61.4kB, 1 not in the index"""
    )


def test_a_table_of_many_shards_has_the_damaged_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_dataset(store, shards=25)
    assert check_table(check_dataset(store), 80) == "25 of 25 shards good, 125 samples, 512kB"
    store.remove("shard-000001.tar")
    store.write("shard-000020.tar", b"")
    assert (
        check_table(check_dataset(store), 80)
        == """\
shard             samples   bytes  found
shard-000001.tar        5  20,480  is missing
shard-000020.tar        5  20,480  has 0 bytes, but the index says 20,480
                                   is empty: 0 bytes
23 of 25 shards good, 115 of 125 samples, 471kB of 512kB"""
    )


def test_names_of_others_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_dataset(store)
    put_shard(store, "shard-000001.tar", [("\x1b[31m\nred\u202e.png", b"")])
    table = check_table(check_dataset(store), 200)
    assert "sample ?[31m?red? is not a picture" in table
    assert all(line.isprintable() for line in table.split("\n"))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_table_keeps_to_its_width_and_says_everything(store: Store, width: int) -> None:
    index = put_dataset(store)
    dataclasses.replace(
        index, shape=dataclasses.replace(index.shape, spatial=(8, 9)), classes=3, class_counts=None
    ).save(store)
    report = check_dataset(store)
    table = check_table(report, width)
    assert max(map(len, table.splitlines())) <= width
    assert "\x1b" not in table
    if width == 200:
        assert all(line in table for lines in findings(report).values() for line in lines)


def array_member(values: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, values)
    return target.getvalue()


@pytest.mark.parametrize(
    ("shape", "asked", "named"),
    [
        ((1, 8, 9), "", "image"),
        ((8, 9), "", "image"),
        ((8, 6, 5), "voxels", "voxels"),
        ((1, 8, 6, 5), "voxels", "voxels"),
        ((3, 8, 6, 5), "video", "video"),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_arrays_of_any_modality_are_indexed_where_they_lie(
    store: Store, shape: tuple[int, ...], asked: str, named: str, kind: type
) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, *shape)).astype(kind)
    put_shard(store, "a.tar", [(f"{at}.npy", array_member(each)) for at, each in enumerate(values)])
    index = index_shards(store, modality_name=asked)
    assert (index.modality, index.shape.bits) == (named, np.dtype(kind).itemsize * 8)
    assert check_dataset(store).damaged == 0
    found = Dataset.open(store.url).read(range(3))[0].numpy()
    assert (found.reshape(values.shape) == values).all()


@pytest.mark.parametrize(
    ("extension", "data", "told"),
    [
        ("npy", array_member(np.zeros((1, 8, 6, 5), np.uint8)), "say what its axes are with --modality video or"),
        (
            "npy",
            array_member(np.zeros((8, 6, 5), np.uint8)),
            r"say what .* --modality image or --modality v",
        ),
        ("mp4", b"a film", "holds .mp4 files, which must be packed first: .* --modality video"),
        ("nii.gz", b"a scan", "holds .nii.gz files, which must be packed first: .* --modality voxels"),
        ("npy", array_member(np.zeros((8, 8), np.int16)), "an array of int16 .*uint8 or uint16 is needed"),
    ],
)
def test_what_no_modality_tells_is_asked_for_in_one_line(store: Store, extension: str, data: bytes, told: str) -> None:
    put_shard(store, "a.tar", [(f"0.{extension}", data)])
    with pytest.raises(DatasetError, match=told):
        index_shards(store)
