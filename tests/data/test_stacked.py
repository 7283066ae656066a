"""StackedMNIST from the built-in digits, and what labels say of channels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imagegen_dist.cli.data import main
from imagegen_dist.data import builtin
from imagegen_dist.data.builtin import builtin_dataset, stratified_split
from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.data.stacked import MODE_NAMES, channel_classes, stack_digits
from imagegen_dist.data.stream import read_samples
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store

SIZE = "stackedmnist:1500"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("stacked"))


def read_all(store: Store) -> tuple[torch.Tensor, torch.Tensor]:
    index = DatasetIndex.load(store)
    samples, labels = read_samples(index, store, range(index.samples))
    assert labels is not None
    return samples, labels


def framed(images: np.ndarray, labels: np.ndarray) -> dict[bytes, int]:
    """Digits as they look in a stack, with their classes."""
    padded = np.pad(images[:, 0], ((0, 0), (2, 2), (2, 2)))
    return {image.tobytes(): label for image, label in zip(padded, labels.tolist(), strict=True)}


def test_every_channel_shows_the_digit_that_the_label_says_and_held_out_digits_are_never_trained_on(
    place: Store,
) -> None:
    images, classes = builtin._load_mnist()
    rows = stratified_split(classes, 0.2)  # as those of `digits`
    for split, count, chosen in zip(("train", "val"), (1350, 150), rows, strict=True):
        stacks, labels = read_all(builtin_dataset(SIZE, split, place))
        assert stacks.shape == (count, 3, 32, 32)
        known = framed(images[chosen], classes[chosen])
        shown = [[known[channel.numpy().tobytes()] for channel in stack] for stack in stacks]
        assert [100 * a + 10 * b + c for a, b, c in shown] == labels.tolist()


def test_modes_are_equally_frequent_and_mixed(place: Store) -> None:
    _, labels = read_all(builtin_dataset(SIZE, "train", place))
    counts = labels.bincount(minlength=1000)
    assert (counts.min(), counts.max()) == (1, 2)
    assert labels[:500].unique().numel() > 350  # of 500 drawn at random: 393


def test_stacks_are_a_function_of_their_seed() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), dtype=np.uint8)

    def made(seed: int) -> tuple[np.ndarray, list[int]]:
        stacks, labels = zip(*stack_digits(images, np.arange(40) % 10, 50, seed), strict=True)
        return np.stack(stacks), list(labels)

    assert np.array_equal(made(0)[0], made(0)[0])
    assert made(0)[1] != made(1)[1]


def index_of(names: tuple[str, ...] | None, channels: int = 3) -> DatasetIndex:
    classes = None if names is None else len(names)
    shards = (ShardInfo("0.tar", 1, 40, 0, "0" * 64),)
    return DatasetIndex("image", SampleShape(channels, (32, 32)), shards, classes, names)


def test_names_of_one_part_a_channel_say_what_channels_show(place: Store) -> None:
    index = DatasetIndex.load(builtin_dataset(SIZE, "train", place))
    table = channel_classes(index)
    assert table is not None
    assert table.shape == (1000, 3)
    assert table[712].tolist() == [7, 1, 2]
    letters = channel_classes(index_of(("b/a", "a/a", "b/b", "a/b"), channels=2))
    assert letters is not None
    assert letters.tolist() == [[1, 0], [0, 0], [1, 1], [0, 1]]


@pytest.mark.parametrize(
    "names",
    [
        None,
        tuple(f"n{number:08}" for number in range(1000)),  # a thousand classes, as of ImageNet
        MODE_NAMES[:-1],
        (*MODE_NAMES[:-1], MODE_NAMES[0]),
        ("a/b/c",),
        ("a/a/a",),
    ],
)
def test_other_names_say_nothing_of_channels(names: tuple[str, ...] | None) -> None:
    assert channel_classes(index_of(names)) is None
    assert channel_classes(index_of(MODE_NAMES)) is not None
    assert channel_classes(replace(index_of(MODE_NAMES), shape=SampleShape(1, (32, 32)))) is None


def test_shards_packed_from_it_keep_what_channels_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = np.random.default_rng(0).integers(0, 256, (100, 1, 28, 28), dtype=np.uint8), np.arange(100) % 10
    monkeypatch.setattr("imagegen_dist.data.builtin._load_mnist", lambda: few)
    assert main(["stackedmnist:1000", str(tmp_path), "--workers", "0"]) == 0
    index = DatasetIndex.load(Store(tmp_path / "train"))
    assert (index.samples, index.classes, index.shape.dims) == (900, 1000, (3, 32, 32))
    assert channel_classes(index) is not None
    assert "r3gan-stackedmnist-small --data" in capsys.readouterr().out
