import dataclasses
import hashlib
import json
import zlib

import numpy as np
import pytest

from imagegen_dist.data.index import DatasetError, DatasetIndex, ShardInfo
from imagegen_dist.data.modality import modality
from imagegen_dist.data.pack import pack
from imagegen_dist.data.scanning import MixedSizesError, build_index, checksums, combine_scans, scan_file, scan_shard
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.data.trust import UntrustedPlaceError, check_public, check_shards_place
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from tests.tars import tar_of

INFO = ShardInfo("shard-000000.tar", 10240, 3, 7, "ab" * 32)
INDEX = DatasetIndex("image", SampleShape(3, (8, 8)), (INFO, dataclasses.replace(INFO, name="b.tar", samples=4)), 10)


def png(*shape):
    return modality("image").encode(np.zeros(shape, np.uint8), "png")


def put_shard(store, name, files):
    store.write(name, tar_of(files))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "set")


def test_a_saved_index_loads_equal(store):
    index = dataclasses.replace(INDEX, classes=2, class_names=("cat", "dog"))
    index.save(store)
    assert DatasetIndex.load(store) == index


def test_the_samples_of_each_class_are_kept_outside_of_the_fingerprint(store):
    index = pack([(np.zeros((1, 4, 4), np.uint8), number) for number in (0, 3, 3)], store)
    assert (index.classes, index.class_counts) == (4, (1, 0, 0, 2))
    assert DatasetIndex.load(store) == index
    without = dataclasses.replace(index, class_counts=None)
    assert without.fingerprint == index.fingerprint
    without.save(store)
    assert DatasetIndex.load(store).class_counts is None


def test_counts_and_offsets_number_the_samples():
    assert INDEX.samples == 7
    assert INDEX.counts.tolist() == [3, 4]
    assert INDEX.offsets.tolist() == [0, 3, 7]
    assert INDEX.counts.dtype == INDEX.offsets.dtype == np.int64


def test_the_fingerprint_follows_the_content():
    assert INDEX.fingerprint == dataclasses.replace(INDEX).fingerprint
    others = [dataclasses.replace(INDEX, classes=11), dataclasses.replace(INDEX, shards=INDEX.shards[::-1])]
    assert len({INDEX.fingerprint, *(other.fingerprint for other in others)}) == 3


def test_an_index_of_before_loads_and_is_saved_again_byte_for_byte(store):
    shards = (ShardInfo("a.tar", 10240, 3, 7, "ab" * 32), ShardInfo("ä.tar", 20480, 4, 2**32 - 1, "cd" * 32))
    DatasetIndex("image", SampleShape(3, (8, 8)), shards, 2, ("cat", "dög")).save(store)
    text = store.read("index.json")
    assert hashlib.sha256(text).hexdigest() == "e3e39b86d7c7ee2ca7398036afb99d92193203f7b81a891e6e80bf30c27e2d7e"
    assert DatasetIndex.load(store).fingerprint == "2d23723c8d9a6fde7977c48486b9b6ddf2f3f62404f5b58470f839e0a562c04a"


@pytest.mark.parametrize(
    ("index_at", "place"),
    [
        ("s3://bucket/set", "s3://bucket/set/shards"),
        ("s3://bucket/set", "s3://bucket/other"),
        ("s3://bucket/a/set", "s3://bucket/a/shards/train"),
        ("https://host/set", "https://host/shards"),
        ("http://127.0.0.1:9000/set", "http://127.0.0.1:9000/shards"),
        ("memory://index", "memory://index/shards"),
    ],
)
def test_shards_may_lie_below_or_beside_their_index(index_at, place):
    check_shards_place(Store(index_at), place, remote=False)


@pytest.mark.parametrize(
    ("index_at", "place"),
    [
        ("s3://bucket/set", "s3://bucket-2/set"),
        ("s3://bucket", "s3://bucket-2"),
        ("s3://bucket/a/set", "s3://bucket/b"),
        ("s3://bucket/a/set", "/etc"),
        ("https://host/set", "https://host.evil/set"),
        ("https://host/set", "http://host/set"),
        ("/data/set", "/etc"),
        ("/set", "/etc"),
        ("/data/set", "file:///data-2"),
        ("/data/set", "http://169.254.169.254/latest"),
    ],
)
def test_shards_that_lie_elsewhere_need_the_users_word(index_at, place):
    with pytest.raises(UntrustedPlaceError, match=r"neither below nor beside the index: give --allow-remote-shards if"):
        check_shards_place(Store(index_at), place, remote=False)
    if "169.254" not in place:
        check_shards_place(Store(index_at), place, remote=True)


def test_a_symbolic_link_is_no_way_out_of_a_dataset(store, tmp_path):
    store.write("a.txt", b"")
    (tmp_path / "set" / "link").symlink_to("/etc")
    with pytest.raises(UntrustedPlaceError, match="neither below nor beside"):
        check_shards_place(store, f"{store.url}/link", remote=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "localhost", "169.254.169.254", "0.0.0.0"])
@pytest.mark.parametrize("protocol", ["http", "ftp"])
def test_no_index_sends_requests_to_this_machine_or_its_own_network(host, protocol):
    with pytest.raises(UntrustedPlaceError, match="an address of this machine or its local network"):
        check_shards_place(Store("/data/set"), f"{protocol}://{host}:9/set", remote=True)


@pytest.mark.parametrize("host", ["[::1]", "[::ffff:169.254.169.254]", "[fe80::1]", "[fd00:ec2::254]"])
def test_neither_do_addresses_of_ipv6(host):
    with pytest.raises(UntrustedPlaceError, match="an address of this machine or its local network"):
        check_public(f"http://{host}:9/set")


def test_other_machines_are_public():
    for url in ("http://192.0.2.1/set", "https://[2001:db8::1]/set", "s3://localhost/set", "/data/set"):
        check_public(url)


def test_an_index_says_where_its_shards_are(store):
    assert INDEX.location(store) == store
    moved = dataclasses.replace(INDEX, shards_url="memory://test-index/elsewhere")
    moved.save(store)
    with pytest.raises(DatasetError, match=r"index\.json: its shards are at memory://test-index/elsewhere, which"):
        DatasetIndex.load(store)
    assert DatasetIndex.load(store, remote_shards=True) == moved
    assert DatasetIndex.load(store, remote_shards=True).location(store) == Store("memory://test-index/elsewhere")


def test_moving_the_shards_keeps_the_fingerprint_and_needs_no_new_index(store):
    moved = dataclasses.replace(INDEX, shards_url=f"{store.url}/first")
    assert moved.fingerprint == INDEX.fingerprint
    moved.save(store)
    store.write("index.json", store.read("index.json").replace(b"/first", b"/second"))
    assert DatasetIndex.load(store).location(store) == store / "second"


def test_an_index_beside_its_shards_does_not_say_where_they_are(store):
    INDEX.save(store)
    assert "shards_url" not in json.loads(store.read("index.json"))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://key:secret@bucket/set", r"s3://\*\*\*@bucket/set carries a "),
        ("../shards", "an absolute path or a URL is needed"),
        ("nowhere://set", "unknown protocol"),
        ("s3://bucket/set/../../other", "must not have"),
        ("https://host/set/%2e%2e/other", "must not have"),
        (7, "shards_url is 7, which is not of type str"),
    ],
)
def test_a_place_of_shards_that_cannot_be_is_refused(store, url, told):
    INDEX.save(store)
    payload = {**json.loads(store.read("index.json")), "shards_url": url}
    store.write("index.json", json.dumps(payload).encode())
    with pytest.raises(DatasetError, match=rf"index\.json is corrupt: .*{told}") as error:
        DatasetIndex.load(store)
    assert "secret" not in str(error.value)


def test_a_url_that_does_not_exist_is_refused(store):
    with pytest.raises(DatasetError, match=r"/set does not exist$"):
        DatasetIndex.load(store)


def test_a_folder_without_shards_is_refused(store):
    store.write("notes.txt", b"")
    for action in (DatasetIndex.load, build_index):
        with pytest.raises(DatasetError, match=r"/set has no shards \(\*\.tar\)$"):
            action(store)


def test_the_folder_of_a_split_dataset_names_its_parts(store):
    for name in ("train", "val"):
        INDEX.save(store / name)
    with pytest.raises(DatasetError, match=r"datasets lie below it \(train, val\): give one, e\.g\. /.*/set/train$"):
        DatasetIndex.load(store)


def test_shards_without_an_index_name_the_fix(store):
    store.write("a.tar", b"")
    with pytest.raises(
        DatasetError, match=r"1 shard but no index.json: .*`python jobs/make_shards.py --index-only /.*/set`"
    ):
        DatasetIndex.load(store)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text[:50], "Expecting"),
        (lambda text: b"\xff\xfe\xfd", "decode"),
        (lambda text: b"[]", "it is not a JSON object"),
        (lambda text: text.replace(b'"version": 1', b'"version": 9'), "version is 9; this program reads 1"),
        (lambda text: text.replace(b'"channels"', b'"chanels"'), "channels is missing"),
        (
            lambda text: text.replace(b'"samples": 4', b'"samples": "4"'),
            r"shards\[1\]: samples is '4', which is not of type int",
        ),
        (lambda text: text.replace(b'"samples": 4', b'"samples": -4'), r"shards\[1\] has a negative size"),
        (lambda text: text.replace(b'"image"', b'"audio"'), "modality is 'audio'"),
        (lambda text: text.replace(b'"samples": 4', b'"samples": 5'), "its fingerprint does not match"),
    ],
)
def test_a_corrupt_index_says_what_is_wrong(store, damage, told):
    INDEX.save(store)
    store.write("index.json", damage(store.read("index.json")))
    with pytest.raises(DatasetError, match=rf"/set/index\.json is corrupt: .*{told}") as error:
        DatasetIndex.load(store)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shape": SampleShape(1, (4, 4, 4))}, "cannot have the spatial shape"),
        ({"classes": 0}, "classes is 0"),
        ({"class_names": ("one",)}, "1 class name for 10 classes"),
        ({"class_counts": (1, 2)}, "2 class counts for 10 classes"),
        ({"shards": (INFO, INFO)}, "listed twice"),
        ({"shards": ()}, "no samples"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, told):
    with pytest.raises(DatasetError, match=told):
        dataclasses.replace(INDEX, **change)


def test_scanning_finds_what_packing_wrote(store):
    samples = [(np.full((3, 5, 6), i, np.uint8), i % 4) for i in range(20)]
    written = pack(samples, store, shard_samples=7)
    store.remove("index.json")
    assert build_index(store) == written
    assert (written.classes, written.shape, written.counts.tolist()) == (4, SampleShape(3, (5, 6)), [7, 7, 6])


def test_a_file_is_scanned_in_parts_as_it_is_in_memory(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    pack(((np.roll(noise, number, 1), number % 4) for number in range(150)), Store(tmp_path))
    path, largest = tmp_path / "shard-000000.tar", 0

    def read_at(offset, length):
        nonlocal largest
        largest = max(largest, length)
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    data = path.read_bytes()
    assert scan_file(path.name, read_at, len(data), modality("image")) == scan_shard(path.name, data, modality("image"))
    assert checksums(read_at, len(data)) == (zlib.crc32(data), hashlib.sha256(data).hexdigest())
    assert largest <= 1 << 20 < len(data)


def test_shards_that_do_not_fit_end_the_scan_at_once(store):
    put_shard(store, "a.tar", [("0.png", png(1, 4, 4))])
    put_shard(store, "b.tar", [("1.png", png(1, 5, 4))])

    def scans():
        for name in ("a.tar", "b.tar"):
            yield scan_shard(name, store.read(name), modality("image"))
        raise AssertionError("the third shard was read")

    with pytest.raises(MixedSizesError, match=r"b\.tar is 5 × 4 × 1"):
        combine_scans(scans(), "image")


def test_hidden_files_are_no_shards(store):
    put_shard(store, "a.tar", [("0.png", png(1, 4, 4))])
    store.write("._a.tar", b"what macOS leaves beside a file")
    assert [shard.name for shard in build_index(store).shards] == ["a.tar"]


def test_shards_of_others_with_captions_are_indexed_without_classes(store):
    meta = json.dumps({"caption": "a cat", "sha256": "0"}).encode()
    put_shard(
        store,
        "00000.tar",
        [
            ("0.jpg", modality("image").encode(np.zeros((3, 4, 4), np.uint8), "jpg")),
            ("0.json", meta),
            ("0.txt", b"a cat"),
        ],
    )
    index = build_index(store)
    assert (index.classes, index.samples, index.shape) == (None, 1, SampleShape(3, (4, 4)))


def test_grey_beside_rgb_is_rgb(store):
    put_shard(store, "a.tar", [("0.png", png(1, 4, 4)), ("1.png", png(3, 4, 4))])
    put_shard(store, "b.tar", [("2.png", png(1, 4, 4))])
    assert build_index(store).shape == SampleShape(3, (4, 4))


def test_samples_of_several_sizes_are_refused(store):
    put_shard(store, "a.tar", [("0.png", png(1, 4, 4)), ("1.png", png(1, 4, 5))])
    with pytest.raises(ShardError, match=r"a\.tar: sample 1 is 4 × 5 × 1 where others are 4 × 4 × 1"):
        build_index(store)


def test_shards_of_several_sizes_are_refused(store):
    put_shard(store, "a.tar", [("0.png", png(1, 4, 4))])
    put_shard(store, "b.tar", [("1.png", png(1, 5, 4))])
    with pytest.raises(DatasetError, match=r"b\.tar is 5 × 4 × 1 where others are 4 × 4 × 1"):
        build_index(store)


def test_samples_of_which_some_have_labels_are_refused(store):
    put_shard(store, "a.tar", [("0.png", png(1, 4, 4)), ("0.cls", b"1"), ("1.png", png(1, 4, 4))])
    with pytest.raises(ShardError, match=r"a\.tar: 1 of 2 samples have no label"):
        build_index(store)


def test_shards_of_which_some_have_labels_are_refused(store):
    put_shard(store, "a.tar", [("0.png", png(1, 4, 4)), ("0.cls", b"1")])
    put_shard(store, "b.tar", [("1.png", png(1, 4, 4))])
    with pytest.raises(DatasetError, match=r"b\.tar has no labels, but other shards have"):
        build_index(store)


def test_a_label_beyond_the_class_names_is_refused(store):
    put_shard(store, "a.tar", [("0.png", png(1, 4, 4)), ("0.cls", b"2")])
    with pytest.raises(DatasetError, match=r"a\.tar has label 2, but classes is 2"):
        build_index(store, class_names=("cat", "dog"))


def test_an_undecodable_header_names_shard_and_sample(store):
    put_shard(store, "a.tar", [("cat.png", b"no picture")])
    with pytest.raises(ShardError, match=r"a\.tar: sample cat is not a picture"):
        build_index(store)


def test_an_empty_shard_counts_no_samples(store):
    put_shard(store, "a.tar", [])
    put_shard(store, "b.tar", [("1.png", png(1, 4, 4))])
    assert build_index(store).counts.tolist() == [0, 1]


def test_a_folder_of_empty_shards_is_refused(store):
    put_shard(store, "a.tar", [])
    with pytest.raises(DatasetError, match="no samples"):
        build_index(store)
