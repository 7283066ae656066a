"""Labels wherever a source keeps them: none is dropped in silence, and what is no class is refused by name."""

import io
import json
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.sources.base import SourceOptions
from imagegen_dist.data.sources.detect import open_source
from imagegen_dist.data.sources.relabelled import check_classes, relabelled
from imagegen_dist.data.sources.subsets import split_of
from imagegen_dist.data.sources.tar_classes import tar_classes
from imagegen_dist.storage import Store
from tests.tars import tar_of


def picture(number):
    target = io.BytesIO()
    Image.new("L", (4, 4), number).save(target, "PNG")
    return target.getvalue()


def put(store, *names, **files):
    """Pictures of these names, a different one each, and other files with their bytes."""
    for number, name in enumerate(names):
        store.write(name, picture(number))
    for name, text in files.items():
        store.write(name.replace("__", "."), text if isinstance(text, bytes) else text.encode())


def labels(url, **options):
    """(label by record, class names) of a source."""
    source = open_source(str(url), SourceOptions(**options))
    found = list(source.select(np.arange(source.count)).read())
    assert [source.name_of(row) for row in range(source.count)] == [record.name for record in found]
    assert source.labels is None or [record.label for record in found] == source.labels.tolist()
    return {record.name: record.label for record in found}, source.class_names


def refused(url, **options):
    with pytest.raises(DatasetError) as caught:
        labels(url, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    store = Store(tmp_path / "in") if request.param == "disk" else Store("memory://test-source-labels/in")
    yield store
    store.remove()


# Folders


def test_numbered_folders_are_classes_in_their_natural_order(store):
    put(store, "10/a.png", "9/b.png", "2/c.png")
    assert labels(store.url) == ({"2/c.png": 0, "9/b.png": 1, "10/a.png": 2}, ("2", "9", "10"))


def test_a_folder_is_a_folder_whatever_its_name_ends_with(store):
    put(store, "dogs.zip/a.png", "x.png/b.png", "t.tar/c.png", "p.parquet/d.png")
    assert labels(store.url)[1] == ("dogs.zip", "p.parquet", "t.tar", "x.png")
    assert labels(store / "x.png")[0] == {"b.png": None}


def test_the_only_split_is_taken_and_said(store):
    put(store, "train/cats/a.png", "train/dogs/b.png")
    assert labels(store.url) == ({"train/cats/a.png": 0, "train/dogs/b.png": 1}, ("cats", "dogs"))
    assert open_source(store.url).notes == (f"{store}/train is taken for the folder of the pictures",)


def test_pictures_deeper_than_their_class_are_taken_and_said(store):
    put(store, "cats/persian/a.png", "cats/b.png", "dogs/c.png")
    assert labels(store.url)[0] == {"cats/b.png": 0, "cats/persian/a.png": 0, "dogs/c.png": 1}
    [note] = open_source(store.url).notes
    assert note == f"{store}/cats/persian is part of the class cats: the first folder is the class"


@pytest.mark.parametrize(
    "names",
    [
        ("train/cats/a.png", "val/cats/b.png"),
        ("train/a.png", "test/b.png"),
        ("train2017/a.png", "val2017/b.png"),
        ("x/y_train/a.png", "x/y_valid/b.png"),
        ("cats/train/a.png", "cats/test/b.png"),
        ("train_1.png", "val_1.png"),
    ],
)
def test_splits_side_by_side_are_one_line_until_one_is_chosen(store, names):
    put(store, *names)
    said = refused(store.url)
    assert " of several splits (" in said
    assert "--subset train" in said
    assert list(labels(store.url, subset="training")[0]) == [names[0]]
    assert len(labels(store.url, subset="all", labelled=False)[0]) == 2


def test_classes_that_are_called_like_a_split_stay_classes(store):
    put(store, "bus/a.png", "car/b.png", "train/c.png")
    assert labels(store.url)[1] == ("bus", "car", "train")


@pytest.mark.parametrize(
    ("subset", "said"),
    [("val", "--subset val: no file and no folder of"), ("vall", "--subset vall: one of train, ")],
)
def test_a_split_that_is_not_there_is_one_line(store, subset, said):
    put(store, "cats/a.png", "dogs/b.png")
    assert said in refused(store.url, subset=subset)


def test_labels_none_passes_them_over(store):
    put(store, "cats/a.png", "dogs/b.png", metadata__csv="file_name,label\ncats/a.png,x\n")
    assert labels(store.url, labelled=False) == ({"cats/a.png": None, "dogs/b.png": None}, None)


def test_a_link_to_a_folder_around_it_is_refused(tmp_path):
    put(Store(tmp_path), "cats/a.png", "dogs/b.png")
    (tmp_path / "cats" / "all").symlink_to(tmp_path)
    assert "cats/all is a link to a folder above it" in refused(tmp_path)


# Files of labels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", '{"file_name": "a.png", "label": "wolf"}\n{"file_name": "b.png", "label": "cat"}\n'),
        ("metadata.csv", "\ufefffile_name,label\na.png,wolf\n./b.png,cat\n"),
        ("labels.csv", "id;breed;class\na;x;wolf\nb;y;cat\n"),
        ("train.tsv", 'image\tlabel\n"a.png"\twolf\nb.png\tcat\n'),
        ("dataset.json", json.dumps({"labels": [["a.png", "wolf"], [".\\\\b.png", "cat"]]})),
    ],
)
def test_names_beside_pictures_label_them(store, name, text):
    put(store, "a.png", "b.png")
    store.write(name, text.encode())
    assert labels(store.url) == ({"a.png": 1, "b.png": 0}, ("cat", "wolf"))
    assert open_source(store.url).left_out == ()


def test_numbers_in_a_table_are_labels(store):
    put(store, "a/1.png", "a/2.png", labels__csv="path,label\na/1.png,3\na/2.png,0\n")
    assert labels(store.url) == ({"a/1.png": 3, "a/2.png": 0}, None)


def test_one_table_for_several_splits(store):
    put(store, "train/a.png", "test/b.png", labels__csv="name,label\na.png,x\nb.png,y\nc.png,z\n")
    assert labels(store.url, subset="test") == ({"test/b.png": 0}, ("y",))


def test_a_column_of_splits_is_chosen_from(store):
    put(store, "a.png", "b.png", metadata__csv="file_name,label,split\na.png,0,train\nb.png,1,test\n")
    assert "rows of several splits (test, train)" in refused(store.url)
    assert labels(store.url, subset="train")[0] == {"a.png": 0}


def test_a_table_without_labels_is_said_and_its_column_can_be_chosen(store):
    put(store, "a.png", "b.png", metadata__csv="file_name,text,kind\na.png,one,x\nb.png,two,y\n")
    assert labels(store.url) == ({"a.png": None, "b.png": None}, None)
    assert "no column of labels (file_name, text, kind): --label-column" in open_source(store.url).notes[0]
    assert labels(store.url, label_column="kind")[1] == ("x", "y")
    assert "no such column; it has file_name, text, kind" in refused(store.url, label_column="nope")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "file_name,label\na.png,0.5\nb.png,1\n",
            "metadata.csv has for a.png the label 0.5, which is not a whole number",
        ),
        ("file_name,label\na.png,x\nb.png,\n", "metadata.csv has no label for b.png"),
        ("file_name,label\na.png,x\n", "has no label for 1 picture: b.png"),
        ("file_name,label\na.png,x\nb.png,x\nc.png,y\n", "names 1 missing file: c.png"),
        ("file_name,label\na.png,x\nb.png,x\na.png,y\n", "two labels for a.png: x and y"),
        ("file_name,label,class\na.png,x,y\n", "several columns of labels (label, class)"),
        ("name,label\nq.png,x\n", "names no existing picture; a column file_name is needed"),
    ],
)
def test_tables_that_do_not_fit_are_refused_by_name(tmp_path, text, said):
    put(Store(tmp_path), "a.png", "b.png", metadata__csv=text)
    assert said in refused(tmp_path)


def test_json_lines_that_are_no_classes_are_refused_by_name(tmp_path):
    put(Store(tmp_path), "a.png", metadata__jsonl='{"file_name": "a.png", "label": [1, 2]}\n')
    assert "metadata.jsonl has for a.png the label [1, 2], which is a list" in refused(tmp_path)


# Zips


def zipped(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is written
            archive.writestr(info, picture(number))
    return path


@pytest.mark.parametrize("form", ["{}\\{}", "./{}/{}", "/{}/{}", ".\\{}\\{}", "all\\{}\\{}"])
def test_names_of_other_systems_in_a_zip(tmp_path, form):
    path = zipped(tmp_path / "a.zip", *(form.format(*name) for name in (("cats", "1.png"), ("dogs", "2.png"))))
    found, names = labels(path)
    assert names == ("cats", "dogs")
    assert [name.rpartition("/")[2] for name in found] == ["1.png", "2.png"]


def test_splits_in_a_zip(tmp_path):
    path = zipped(tmp_path / "a.zip", "d/train/cats/1.png", "d/val/cats/2.png")
    assert "folders of several splits (train, val)" in refused(path)
    assert labels(path, subset="val") == ({"d/val/cats/2.png": 0}, ("cats",))


# Parquet


def table(store, name, *, groups=2, **columns):
    target = io.BytesIO()
    count = len(next(iter(columns.values())))
    made = pyarrow.table({"image": [picture(number) for number in range(count)], **columns})
    pyarrow.parquet.write_table(made, target, row_group_size=groups)
    store.write(name, target.getvalue())


@pytest.mark.parametrize(
    ("column", "numbers", "names"),
    [
        (pyarrow.array(["b10", "b9", "\ufeffb10"]), [1, 0, 1], ("b9", "b10")),
        (pyarrow.array(["x", "y", "x"], pyarrow.large_string()), [0, 1, 0], ("x", "y")),
        (pyarrow.array(["y", "x", "y"]).dictionary_encode(), [1, 0, 1], ("x", "y")),
        (pyarrow.array([7, 3, 7]).dictionary_encode(), [7, 3, 7], None),
        (pyarrow.array([True, False, True]), [1, 0, 1], ("false", "true")),
        (pyarrow.array([1.0, 0.0, 2.0]), [1, 0, 2], None),
        (pyarrow.array([1, 0, 2], pyarrow.uint64()), [1, 0, 2], None),
    ],
)
def test_columns_of_every_kind_of_label(tmp_path, column, numbers, names):
    table(Store(tmp_path), "a.parquet", label=column)
    found, class_names = labels(tmp_path / "a.parquet")
    assert (list(found.values()), class_names) == (numbers, names)
    assert labels(tmp_path, labelled=False)[0] == dict.fromkeys(found)


def test_names_are_numbered_over_all_files(tmp_path):
    table(Store(tmp_path), "a.parquet", label=["dog", "ant"])
    table(Store(tmp_path), "b.parquet", label=["cat", "dog"])
    found, names = labels(tmp_path)
    assert (list(found.values()), names) == ([2, 0, 1, 2], ("ant", "cat", "dog"))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([[1], [2]], "has a column label of type list<element: int64>, which cannot be labels"),
        ([0.5, 1.0], "a.parquet row 0 has 0.5 in label: labels are whole numbers from 0"),
        ([0, -1], "a.parquet row 1 has -1 in label"),
        (["a", None], "a.parquet row 1 has no label"),
        (["a", " "], "a.parquet row 1 has an empty label"),
        ([f"caption {number}" for number in range(30)], "30 different texts label 30 samples"),
    ],
)
def test_columns_that_are_no_labels_are_refused_by_name(tmp_path, column, said):
    table(Store(tmp_path), "a.parquet", label=column)
    assert said in refused(tmp_path)


def test_a_table_whose_labels_are_called_otherwise_says_so(tmp_path):
    table(Store(tmp_path), "a.parquet", species=["x", "y"])
    [note] = open_source(str(tmp_path)).notes
    assert "so there are no labels; --label-column takes one of species" in note
    assert labels(tmp_path, label_column="species")[1] == ("x", "y")


def test_splits_of_parquet_files_in_a_folder_or_side_by_side(tmp_path):
    for name in ("beside/train.parquet", "beside/validation.parquet", "below/train/0.parquet", "below/test/0.parquet"):
        table(Store(tmp_path), name, label=[0, 1])
    assert "parquet files of several splits (train, val)" in refused(tmp_path / "beside")
    assert "folders of several splits (test, train)" in refused(tmp_path / "below")
    assert len(labels(tmp_path / "beside", subset="val")[0]) == 2
    assert len(labels(tmp_path / "beside", subset="all")[0]) == 4
    assert len(labels(tmp_path / "below", subset="test")[0]) == 2


def test_a_column_of_splits_in_parquet_files_is_chosen_from(tmp_path):
    for name in "ab":
        table(Store(tmp_path), f"{name}.parquet", label=["x", "y", "z"], split=["train", "test", "train"])
    assert "rows of several splits (test, train)" in refused(tmp_path)
    found, names = labels(tmp_path, subset="train")
    assert (list(found.values()), names) == ([0, 2, 0, 2], ("x", "y", "z"))
    assert list(found) == ["a.parquet row 0", "a.parquet row 2", "b.parquet row 0", "b.parquet row 2"]


# Shards


def shard(store, name, files):
    store.write(name, tar_of(files))


def test_names_in_shards_are_labels(store):
    shard(store, "00.tar", [("0.png", picture(0)), ("0.json", b'{"label": "dog"}')])
    shard(store, "01.tar", [("1.png", picture(1)), ("1.cls", b"cat")])
    found, names = labels(store.url)
    assert (list(found.values()), names) == ([1, 0], ("cat", "dog"))
    store.write("classes.txt", b"\xef\xbb\xbfdog\ncat\nelk\n")
    assert labels(store.url) == (dict(zip(found, [0, 1], strict=True)), ("dog", "cat", "elk"))


def test_one_tar_a_class(store):
    for name in ("cats-000.tar", "cats-001.tar", "dogs.tar"):
        shard(store, name, [("0.png", picture(0)), ("1.png", picture(1))])
    found, names = labels(store.url)
    assert (list(found.values()), names) == ([0, 0, 0, 0, 1, 1], ("cats", "dogs"))
    assert "each tar is a class: 2 classes" in open_source(store.url).notes[0]
    assert labels(store.url, labelled=False)[1] is None


def test_a_folder_a_class_within_tars(store):
    shard(store, "0.tar", [("./all/cats/0.png", picture(0)), ("./all/dogs/1.png", picture(1))])
    found, names = labels(store.url)
    assert (list(found.values()), names) == ([0, 1], ("cats", "dogs"))


def test_splits_within_tars_are_refused(store):
    shard(store, "0.tar", [("train/cats/0.png", picture(0)), ("val/cats/1.png", picture(1))])
    assert "folders within its tars of several splits (train, val): unpack them first" in refused(store.url)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["n01440764.tar", "n01443537.tar"], ["n01440764", "n01443537"]),
        (["cats_train.tar", "dogs_train.tar"], ["cats", "dogs"]),
        (["shard-000000.tar", "shard-000007.tar"], None),
        (["00017.tar", "00345.tar"], None),
        (["part-aa.tar", "part-ab.tar"], None),
        (["a.tar", "b.tar"], None),
        (["cats.tar"], None),
    ],
)
def test_which_tars_are_classes(names, classes):
    assert tar_classes(names) == classes


def test_pictures_with_captions_are_no_tar_a_class(store):
    for name in ("laion", "coyo"):
        shard(store, f"{name}.tar", [("0.png", picture(0)), ("0.txt", b"a cat")])
    assert labels(store.url)[1] is None


def test_splits_of_shards_side_by_side(store):
    for name in ("train-0.tar", "train-1.tar", "val-0.tar"):
        shard(store, name, [(f"{name[:-4]}.png", picture(0)), (f"{name[:-4]}.cls", b"0")])
    assert "shards of several splits (train, val)" in refused(store.url)
    assert len(labels(store.url, subset="train")[0]) == 2


# Numbers


def test_ids_are_refused_before_anything_is_written_and_can_be_numbered(tmp_path):
    table(Store(tmp_path), "a.parquet", label=[4_000_000_000, 7, 7])
    source = open_source(str(tmp_path))
    with pytest.raises(DatasetError, match=r"largest label is 4,000,000,000, .* ids or hashes; --relabel"):
        check_classes(source)
    anew = relabelled(source)
    assert (anew.classes, anew.class_names) == (2, ("7", "4000000000"))
    assert [record.label for record in anew.select(np.arange(3)).read()] == [1, 0, 0]


def test_words_that_touch_no_letter_name_a_split():
    names = ["train-000.tar", "VAL2017", "my_test.parquet", "latest.tar", "trainer.tar", "train-val-0.tar", "dev"]
    found = [split_of(name) for name in names]
    assert [each and each.name for each in found] == ["train", "val", "test", None, None, "train", "dev"]
