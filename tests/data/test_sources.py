"""What every kind of source lists and reads, on scikit-image's photographs; and the line where one is wrong."""

import io
import json
import threading
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import skimage.data
import webdataset
from PIL import Image

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.scanning import build_index
from imagegen_dist.data.sources.base import Record, SourceOptions, each_ahead
from imagegen_dist.data.sources.detect import open_source
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store


def photograph(number):
    target = io.BytesIO()
    Image.fromarray(skimage.data.coffee()[number * 10 :][:24, :32]).save(target, "JPEG")
    return target.getvalue()


def records(source, rows=None):
    return list(source.select(np.arange(source.count) if rows is None else np.array(rows)).read())


def refused(url, error=DatasetError, **options):
    with pytest.raises(error) as caught:
        records(open_source(str(url), SourceOptions(**options)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    store = Store(tmp_path / "pictures") if request.param == "disk" else Store("memory://test-sources/pictures")
    yield store
    store.remove()


def add(store, *names):
    for number, name in enumerate(names):
        store.write(name, photograph(number))


def test_sub_folders_are_classes_in_the_order_of_their_names(store):
    add(store, "dogs/b.png", "cats/a.JPG", "cats/c.webp", "n01.5/x.tiff", ".hidden/a.png", "cats/.ds.png")
    source = open_source(store.url)
    assert (source.class_names, source.classes, source.mixes) == (("cats", "dogs", "n01.5"), 3, True)
    found = records(source)
    assert [record[:2] for record in found] == [
        ("cats/a.JPG", 0),
        ("cats/c.webp", 0),
        ("dogs/b.png", 1),
        ("n01.5/x.tiff", 2),
    ]
    assert [record.data for record in found] == [photograph(number) for number in (1, 2, 0, 3)]
    assert records(source, [3, 0]) == [found[3], found[0]]


def test_a_flat_folder_has_no_labels_and_says_what_it_left_out(store):
    add(store, "b.png", "a.png", "a.txt", "raw.psd")
    source = open_source(store.url)
    assert (source.class_names, source.classes, source.left_out) == (None, None, ("a.txt", "raw.psd"))
    assert [record[:2] for record in records(source)] == [("a.png", None), ("b.png", None)]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "does not exist"),
        (["a.txt"], "has neither pictures"),
        (["a.png", "cats/b.png"], "has both pictures"),
        (["cats/a.png", "dogs/b.txt"], "dogs has no pictures"),
        (["a.tar", "a.parquet"], "has both shards"),
        (["one.zip", "two.zip"], "holds zips: name the one you mean"),
    ],
)
def test_folders_that_are_no_dataset(tmp_path, names, said):
    add(Store(tmp_path / "in"), *names)
    assert said in refused(tmp_path / "in")


def test_a_picture_that_is_gone_has_no_bytes(tmp_path):
    add(Store(tmp_path), "a.png", "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "nowhere")
    source = open_source(str(tmp_path))
    (tmp_path / "b.png").unlink()
    assert [bool(record.problem) for record in records(source)] == [False, True, True]


def test_the_listing_tells_what_changed(tmp_path):
    add(Store(tmp_path), "a/1.png", "b/2.png")
    before = open_source(str(tmp_path)).listing
    assert open_source(str(tmp_path)).listing == before
    (tmp_path / "a" / "1.png").write_bytes(b"less")
    assert open_source(str(tmp_path)).listing != before


def test_requests_to_remote_storage_are_under_way_at_once_and_keep_their_order():
    together = threading.Barrier(4)

    def request(number):
        if number < 4:
            together.wait(timeout=20)  # breaks where the four never run side by side
        return number

    assert list(each_ahead(request, range(100), Store("s3://bucket/pictures"))) == list(range(100))
    with pytest.raises(ZeroDivisionError):
        list(each_ahead(lambda number: 1 // number, range(100), Store("s3://bucket/pictures")))


def test_requests_for_large_pictures_are_fewer_at_once():
    for largest, ahead in ((0, 33), (64 << 20, 9), (128 << 20, 5), (1 << 40, 3)):
        items = iter(range(100))
        assert next(each_ahead(lambda number: number, items, Store("s3://bucket/pictures"), largest)) == 0
        assert next(items) == ahead


STYLEGAN = {"00000/img0.png": 6, "00000/img1.png": 0, "00001/img2.png": 2}


def labels_file(labels):
    return json.dumps({"labels": labels}).encode()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_stylegans_labels(tmp_path, kind):
    files = {name: photograph(number) for number, name in enumerate(STYLEGAN)}
    files["dataset.json"] = labels_file([[name, label] for name, label in STYLEGAN.items()])
    url = write_tree(tmp_path, kind, files)
    source = open_source(url)
    assert (source.classes, source.class_names, source.left_out) == (7, None, ())
    assert {record.name: record.label for record in records(source)} == STYLEGAN
    assert all(record.data == files[record.name] for record in records(source))


@pytest.mark.parametrize("text", [labels_file(None), b"{}", labels_file([])])
def test_stylegans_datasets_without_labels(tmp_path, text):
    url = write_tree(tmp_path, "zip", {"00000/img0.png": photograph(0), "dataset.json": text})
    assert records(open_source(url)) == [Record("00000/img0.png", None, photograph(0))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"nonsense", "is not JSON"),
        (b"[]", "must be"),
        (b'{"labels": 5}', "must be"),
        (labels_file([["a.png"]]), "has an entry"),
        (labels_file([["a.png", [0.1, 0.9]], ["b.png", 3]]), "has for b.png the label 3; a.png has a list of"),
        (labels_file([["a.png", [0.1, 0.9]], ["b.png", [3]]]), "has 1 number for b.png, but 2 for a.png"),
        (labels_file([["a.png", ["x", 0.9]]]), "has for a.png the label ['x', 0.9]; a list of numbers is needed"),
        (labels_file([["a.png", "cat"], ["b.png", 1]]), "some labels are numbers (1) and others names (cat)"),
        (labels_file([["a.png", -1]]), "the label -1"),
        (labels_file([["a.png", 0.5]]), "the label 0.5"),
        (labels_file([["a.png", 1], ["a.png", 2]]), "names a.png twice"),
        (labels_file([["a.png", 1], ["b.png", 1], ["c.png", 1]]), "names 1 missing file: c.png"),
        (labels_file([["a.png", 1]]), "has no label for 1 picture: b.png"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_labels_that_cannot_be_used(tmp_path, kind, text, said):
    url = write_tree(tmp_path, kind, {"a.png": photograph(0), "b.png": photograph(1), "dataset.json": text})
    assert said in refused(url)


def write_tree(folder, kind, files, method=zipfile.ZIP_DEFLATED):
    """A folder or a zip with these files; its URL."""
    if kind == "folder":
        for name, data in files.items():
            Store(folder / "tree").write(name, data)
        return str(folder / "tree")
    with zipfile.ZipFile(folder / "tree.zip", "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(folder / "tree.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read_in_place(store, tmp_path, method):
    files = {f"{label}/{number}.jpg": photograph(number) for label in ("cats", "dogs") for number in range(3)}
    extra = {"cats/notes.txt": b"?", "__MACOSX/cats/._0.jpg": b"?", "cats/.DS_Store": b"?"}
    store.write("all.zip", Path(write_tree(tmp_path, "zip", files | extra, method)).read_bytes())
    source = open_source(store.url + "/all.zip")
    assert (source.class_names, source.left_out) == (("cats", "dogs"), ("cats/notes.txt",))
    assert {record.name: record.data for record in records(source)} == files
    assert [record.label for record in records(source, [5, 0])] == [1, 0]


def test_a_folder_around_everything_in_a_zip_is_passed_over(tmp_path):
    files = {f"pictures/{label}/1.jpg": photograph(0) for label in ("cats", "dogs")}
    assert open_source(write_tree(tmp_path, "zip", files)).class_names == ("cats", "dogs")


def test_one_folder_in_a_zip_is_one_class(tmp_path):
    assert open_source(write_tree(tmp_path, "zip", {"cats/1.jpg": photograph(0)})).class_names == ("cats",)


def test_a_member_with_a_long_extra_field_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.extra = b"\x99\x99\xe8\x03" + bytes(1000)
        archive.writestr(info, photograph(0))
    data = (tmp_path / "a.zip").read_bytes()
    assert records(open_source(str(tmp_path / "a.zip")))[0].data == photograph(0)
    assert len(data) > len(photograph(0)) + 2000  # in the local header as well


def test_a_damaged_member_has_no_bytes(tmp_path):
    path = Path(write_tree(tmp_path, "zip", {"a.png": photograph(0), "b.png": photograph(1)}, zipfile.ZIP_STORED))
    data = bytearray(path.read_bytes())
    data[data.index(photograph(0)) + 100] ^= 1
    path.write_bytes(data)
    first, second = records(open_source(str(path)))
    assert "damaged in the zip: its CRC differs" in first.problem
    assert (second.data, second.problem) == (photograph(1), "")


def test_zips_that_are_none(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"nonsense" * 100)
    assert "a.zip is not a zip" in refused(tmp_path / "a.zip")
    assert "does not exist" in refused(tmp_path / "b.zip")
    assert "has no pictures" in refused(write_tree(tmp_path, "zip", {"a.txt": b"?"}))
    write_tree(tmp_path, "zip", {"a.png": photograph(0)}, zipfile.ZIP_LZMA)
    assert "compresses a.png by method 14" in refused(tmp_path / "tree.zip")
    data = bytearray(Path(write_tree(tmp_path, "zip", {"a.png": photograph(0)})).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the directory's mark of encryption
    (tmp_path / "tree.zip").write_bytes(data)
    assert "is encrypted" in refused(tmp_path / "tree.zip")


def write_table(store, name, columns, metadata=None, groups=4):
    table = pyarrow.table(columns)
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    target = io.BytesIO()
    pyarrow.parquet.write_table(table, target, row_group_size=groups)
    store.write(name, target.getvalue())


def hugging_face(start, count):
    pictures = [{"bytes": photograph(number), "path": f"{number}.jpg"} for number in range(start, start + count)]
    return {"image": pictures, "label": [number % 2 for number in range(start, start + count)]}


NAMES = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


def test_parquet_files_of_hugging_face(store):
    write_table(store, "train-00000-of-00002.parquet", hugging_face(0, 10), NAMES)
    write_table(store, "train-00001-of-00002.parquet", hugging_face(10, 5), NAMES)
    source = open_source(store.url)
    assert (source.count, source.classes, source.class_names, source.mixes) == (15, 2, ("cat", "dog"), False)
    found = records(source)
    assert [record.data for record in found] == [photograph(number) for number in range(15)]
    assert [record.label for record in found] == [number % 2 for number in range(15)]
    assert found[12].name == "train-00001-of-00002.parquet row 2"
    assert records(source, [1, 5, 6, 9, 11]) == [found[row] for row in (1, 5, 6, 9, 11)]
    one = open_source(store.url + "/train-00001-of-00002.parquet")
    assert [record.data for record in records(one)] == [photograph(number) for number in range(10, 15)]


def test_plain_bytes_and_a_row_without_any(tmp_path):
    write_table(Store(tmp_path), "a.parquet", {"jpg": [photograph(0), None, photograph(2)], "width": [1, 2, 3]})
    source = open_source(str(tmp_path / "a.parquet"))
    assert (source.classes, source.class_names) == (None, None)
    assert [bool(record.problem) for record in records(source)] == [False, True, False]


def test_columns_are_chosen(tmp_path):
    columns = {"a": [photograph(0)], "b": [photograph(1)], "label": [3], "fine_label": [5], "width": [7]}
    write_table(Store(tmp_path), "a.parquet", columns)
    assert "several columns of bytes (a, b): choose with --image-column" in refused(tmp_path)
    assert "several columns of labels (label, fine_label)" in refused(tmp_path, image_column="a")
    assert "--image-column width: " in refused(tmp_path, image_column="width")
    assert "--label-column a: " in refused(tmp_path, image_column="a", label_column="a")
    assert records(open_source(str(tmp_path), SourceOptions(image_column="b", label_column="width")))[0][1:3] == (
        7,
        photograph(1),
    )


def test_a_pattern_names_one_split(tmp_path):
    for split in ("test", "train"):
        write_table(Store(tmp_path), f"{split}-00000-of-00001.parquet", hugging_face(0, 3))
    assert "several splits (test, train)" in refused(tmp_path)
    assert open_source(f"{tmp_path}/train-*.parquet").count == 3
    assert "matches no file" in refused(f"{tmp_path}/val-*.parquet")


def test_parquet_files_that_cannot_be_used(tmp_path):
    store = Store(tmp_path)
    store.write("damaged/a.parquet", b"PAR1nonsensePAR1")
    write_table(store, "words/a.parquet", {"text": ["a"], "label": [1]})
    write_table(store, "negative/a.parquet", {"image": [photograph(0)], "label": [-1]})
    write_table(store, "empty/a.parquet", {"image": pyarrow.array([], pyarrow.binary())})
    write_table(store, "mixed/a.parquet", {"image": [photograph(0)]})
    write_table(store, "mixed/b.parquet", {"picture": [photograph(0)]})
    assert "is not a parquet file, or a damaged one" in refused(tmp_path / "damaged")
    assert "has no column of pictures (bytes, or {bytes, path}); it has text, label" in refused(tmp_path / "words")
    assert "a.parquet row 0 has -1 in label" in refused(tmp_path / "negative")
    assert "no rows" in refused(tmp_path / "empty")
    assert "other columns than a.parquet" in refused(tmp_path / "mixed")


def test_columns_are_for_parquet_alone(tmp_path):
    add(Store(tmp_path), "a.png")
    assert "--image-column and --label-column are for parquet files" in refused(tmp_path, image_column="image")


def write_shards(folder, count=10, per_shard=4):
    folder.mkdir()
    with webdataset.ShardWriter(
        f"{folder}/s-%03d.tar", maxcount=per_shard, verbose=0, mtime=0, encoder=False
    ) as writer:
        for number in range(count):
            label = {"json": b'{"label": %d}' % (number % 3)} if number % 2 else {"cls": b"%d" % (number % 3)}
            writer.write({"__key__": f"photo{number}", "jpg": photograph(number), **label})


@pytest.mark.parametrize("indexed", [False, True])
def test_shards_of_others(store, tmp_path, indexed):
    write_shards(tmp_path / "local")
    for path in (tmp_path / "local").iterdir():
        store.write(path.name, path.read_bytes())
    if indexed:
        build_index(store, class_names=("a", "b", "c")).save(store)
    source = open_source(store.url)
    assert (source.count, source.mixes) == (10, False)
    assert (source.classes, source.class_names) == (3, ("a", "b", "c") if indexed else None)
    found = records(source)
    assert [record.data for record in found] == [photograph(number) for number in range(10)]
    assert [record.label for record in found] == [number % 3 for number in range(10)]
    assert records(source, [0, 3, 4, 9]) == [found[row] for row in (0, 3, 4, 9)]


def test_some_shards_by_a_pattern(tmp_path):
    write_shards(tmp_path / "local")
    assert open_source(f"{tmp_path}/local/s-00[01].tar").count == 8


def test_shards_beside_a_labels_table(tmp_path):
    write_shards(tmp_path / "local")
    (tmp_path / "local" / "stats.json").write_text("{}")
    assert open_source(str(tmp_path / "local")).count == 10


def test_a_damaged_shard_is_named(tmp_path):
    write_shards(tmp_path / "local")
    shard = tmp_path / "local" / "s-001.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    assert "s-001.tar is cut in the header at byte 2560" in refused(tmp_path / "local", error=ShardError)


def test_every_kind_is_read_from_s3(bucket, tmp_path):
    pictures = [photograph(number) for number in range(4)]
    write_shards(tmp_path / "shards", 4)
    for path in (tmp_path / "shards").iterdir():
        Store(f"{bucket.url}/shards").write(path.name, path.read_bytes())
    files = {f"{'ab'[number // 2]}/{number}.jpg": picture for number, picture in enumerate(pictures)}
    Store(bucket.url).upload("all.zip", write_tree(tmp_path, "zip", files))
    write_table(Store(bucket.url), "all.parquet", {"image": pictures, "label": [0, 0, 1, 1]})
    for name, picture in files.items():
        Store(f"{bucket.url}/folder").write(name, picture)
    for name in ("folder", "all.zip", "all.parquet", "shards"):
        found = records(open_source(f"{bucket.url}/{name}"))
        assert [record.data for record in found] == pictures
        assert [record.label for record in found] == ([0, 1, 2, 0] if name == "shards" else [0, 0, 1, 1])
