"""Samples whose channels show a class each: StackedMNIST, a thousand modes out of ten digits (arXiv:1611.02163)."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.order import keyed_bits, keyed_permutation

DIGITS = 10
CHANNELS = 3
MODES = DIGITS**CHANNELS
"""What the three channels can show together; a sample's label is the number that they spell, 0 to 999."""

SIDE = 32
"""Of a sample, in pixels: digits of 28 pixels with a black edge of 2."""

_SEPARATOR = "/"
_MODE, _DIGIT = 32, 33  # keys; the channel is a coordinate

MODE_NAMES = tuple(_SEPARATOR.join(map(str, shown)) for shown in product(range(DIGITS), repeat=CHANNELS))
"""Names of the modes: 7/1/2 shows a 7 in the first channel, a 1 in the second, a 2 in the third."""


def stack_digits(
    images: NDArray[np.uint8], labels: NDArray[np.int64], count: int, seed: int
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """`count` samples (uint8 [3, 32, 32], label) of single digits, in an order that mixes the modes; a pure function.

    images: uint8 [N, 1, 28, 28], some of every digit; labels: their digits, [N]. Every mode has as many samples as any
    other, to one; each channel's digit is drawn among those of its class with equal chances.
    """
    modes = keyed_permutation(count, seed, _MODE) % MODES
    shown = np.stack(np.unravel_index(modes, (DIGITS,) * CHANNELS), axis=1)
    rows = np.empty_like(shown)
    for channel in range(CHANNELS):
        drawn = keyed_bits(count, seed, _DIGIT, channel)
        for digit in range(DIGITS):
            chosen, of_digit = np.flatnonzero(shown[:, channel] == digit), np.flatnonzero(labels == digit)
            rows[chosen, channel] = of_digit[(drawn[chosen] % np.uint64(of_digit.size)).astype(np.int64)]
    edge = (SIDE - images.shape[-1]) // 2
    framed = np.pad(images[:, 0], ((0, 0), (edge, edge), (edge, edge)))
    for row, mode in zip(rows, modes.tolist(), strict=True):
        yield framed[row], mode


def channel_classes(index: DatasetIndex) -> NDArray[np.int64] | None:
    """What each channel of a sample shows, by the sample's label, [K, C]; None where labels say nothing of channels.

    They do where every class has a name of one part a channel, as 7/1/2, the parts are the same in all channels, and
    there is a class for every combination of them. Parts are numbered in the order of their names.
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
