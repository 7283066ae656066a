import gc

import numpy as np
import pytest
import webdataset

from imagegen_dist.data.index import DatasetError, DatasetIndex
from imagegen_dist.data.pack import pack
from imagegen_dist.data.stream import read_samples
from imagegen_dist.storage import Store


def samples(count=25, labels=True):
    for number in range(count):
        yield np.random.default_rng(number).integers(0, 256, (3, 6, 5), dtype=np.uint8), number % 7 if labels else None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_what_was_packed(tmp_path):
    pack(samples(), Store(tmp_path), shard_samples=10)
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    dataset = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8").to_tuple("png", "cls")
    found = list(dataset)
    gc.collect()  # webdataset's reader leaves its files open, which is a warning
    assert len(found) == 25
    for (picture, label), (sample, expected) in zip(found, samples(), strict=True):
        assert np.array_equal(np.moveaxis(picture, -1, 0), sample)
        assert label == expected


def test_the_same_samples_give_the_same_bytes(tmp_path):
    first, second = (pack(samples(), Store(tmp_path / name)) for name in "ab")
    assert first.fingerprint == second.fingerprint


def test_a_shard_is_closed_when_it_has_its_bytes(tmp_path):
    index = pack(samples(), Store(tmp_path), extension="npy", shard_bytes=1000)
    assert index.counts.tolist() == [5] * 5


def test_the_index_is_saved_and_describes_the_shards(tmp_path):
    names = ("a", "b", "c", "d", "e", "f", "g")
    index = pack(samples(), Store(tmp_path), classes=7, class_names=names)
    assert DatasetIndex.load(Store(tmp_path)) == index
    assert (index.classes, index.class_names, index.samples) == (7, names, 25)


def test_an_existing_dataset_is_not_overwritten(tmp_path):
    pack(samples(), Store(tmp_path))
    with pytest.raises(DatasetError, match="holds a dataset already"):
        pack(samples(3), Store(tmp_path))


def test_labels_beyond_the_classes_are_refused_and_no_index_is_left(tmp_path):
    with pytest.raises(DatasetError, match="has label 6, but classes is 5"):
        pack(samples(), Store(tmp_path), classes=5)
    assert not Store(tmp_path).exists("index.json")


def test_classes_without_labels_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="classes is 5, but the samples have no labels"):
        pack(samples(labels=False), Store(tmp_path), classes=5)


def test_nothing_to_pack_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no samples"):
        pack([], Store(tmp_path))


def test_labels_are_integers_of_any_type_and_names(tmp_path):
    picture = np.zeros((1, 4, 4), np.uint8)
    labels = [np.int64(1), np.uint8(0), {"label": np.int32(1), "factors": np.arange(2)}]
    index = pack([(picture, label) for label in labels], Store(tmp_path / "numbers"), classes=np.int64(2))
    assert (index.classes, index.class_counts) == (2, (1, 2))
    assert DatasetIndex.load(Store(tmp_path / "numbers")) == index
    named = pack([(picture, name) for name in ("dog", "cat", "dog")], Store(tmp_path / "names"))
    assert (named.class_names, named.class_counts) == (("cat", "dog"), (1, 2))
    for label, said in ((0.5, "0.5, which is not a whole number"), ("", "an empty text"), (-1, "-1, which is")):
        with pytest.raises(DatasetError, match=said):
            pack([(picture, label)], Store(tmp_path / "none"))


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_four_channels_are_rgba_and_come_back(tmp_path, extension):
    seen = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 7), dtype=np.uint8)
    index = pack([(each, None) for each in seen], Store(tmp_path), extension=extension)
    assert index.shape.dims == (4, 6, 7)
    assert np.array_equal(read_samples(index, Store(tmp_path), range(5))[0].numpy(), seen)
