"""StackedMNIST: samples with a digit in each channel, which makes a thousand modes of ten digits (arXiv:1611.02163)."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.order import keyed_bits, keyed_permutation

_DIGITS = 10
_CHANNELS = 3
MODES = _DIGITS**_CHANNELS
"""Number of combinations of three digits; a sample's label is the number that they spell, 0 to 999."""

_SIDE = 32
"""Side of a sample in pixels: 28 pixels of a digit and a black border of 2."""

_SEPARATOR = "/"
_MODE, _DIGIT = 32, 33  # keys; the channel is a coordinate

MODE_NAMES = tuple(_SEPARATOR.join(map(str, shown)) for shown in product(range(_DIGITS), repeat=_CHANNELS))
"""Names of the modes: 7/1/2 has a 7 in the first channel, a 1 in the second, a 2 in the third."""


def stack_digits(
    images: NDArray[np.uint8], labels: NDArray[np.int64], count: int, seed: int
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Yield `count` samples (uint8 [3, 32, 32], label) in an order that mixes the modes; a pure function.

    images: uint8 [N, 1, 28, 28], some of every digit; labels: their digits, [N]. All modes have equal numbers of
    samples, to within one; the image of each channel is drawn uniformly from those of its digit.
    """
    modes = keyed_permutation(count, seed, _MODE) % MODES
    shown = np.stack(np.unravel_index(modes, (_DIGITS,) * _CHANNELS), axis=1)
    rows = np.empty_like(shown)
    for channel in range(_CHANNELS):
        drawn = keyed_bits(count, seed, _DIGIT, channel)
        for digit in range(_DIGITS):
            chosen, of_digit = np.flatnonzero(shown[:, channel] == digit), np.flatnonzero(labels == digit)
            rows[chosen, channel] = of_digit[(drawn[chosen] % np.uint64(of_digit.size)).astype(np.int64)]
    edge = (_SIDE - images.shape[-1]) // 2
    framed = np.pad(images[:, 0], ((0, 0), (edge, edge), (edge, edge)))
    for row, mode in zip(rows, modes.tolist(), strict=True):
        yield framed[row], mode


def channel_classes(index: DatasetIndex) -> NDArray[np.int64] | None:
    """The class that each channel of a sample shows, by the sample's label, [K, C]; None if labels do not state it.

    Labels state it if the name of every class has one part for each channel, such as 7/1/2, if all channels have the
    same parts, and if there is a class for every combination of them. Parts are numbered in the order of their names.
    """
    if index.class_names is None or index.shape.channels < 2:
        return None
    parts = [name.split(_SEPARATOR) for name in index.class_names]
    if any(len(shown) != index.shape.channels for shown in parts):
        return None
    number = {part: at for at, part in enumerate(sorted({part for shown in parts for part in shown}))}
    table = np.array([[number[part] for part in shown] for shown in parts], dtype=np.int64)
    complete = len(number) ** index.shape.channels
    if len(number) < 2 or len(table) != complete or len(np.unique(table, axis=0)) != complete:
        return None
    return table
