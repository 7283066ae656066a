"""Moving digits: clips of 8 frames of 32 × 32 in which a handwritten digit moves and bounces off the edges.

A digit is drawn in a box of 20 × 20 pixels, which moves by a whole number of pixels a frame along each axis and turns
back where it touches an edge. A clip's velocity is that of its first frame, upwards or to the left if negative, and
never zero along both axes.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagegen_dist.data.order import keyed_bits, keyed_permutation

FRAMES, SIDE = 8, 32
BOX = 20
"""Side of the box in which a digit is drawn; the ink has up to 16 pixels."""

SPEEDS = (-2, -1, 0, 1, 2)
"""Pixels a frame along an axis."""

PLACES = SIDE - BOX + 1
"""Positions of the box along an axis."""

_CROP = 24  # of the 28 pixels of a picture, whose border is empty
_DIGITS = 10
_VELOCITIES = np.array([moves for moves in product(SPEEDS, repeat=2) if any(moves)])
_KIND, _ROW, _START = 48, 49, 50  # keys; the axis is a coordinate of the last

Sample = tuple[NDArray[np.uint8], dict[str, Any]]


def moving_digits(images: NDArray[np.uint8], labels: NDArray[np.int64], count: int, seed: int) -> Iterator[Sample]:
    """Yield `count` clips (uint8 [1, 8, 32, 32], record) in random order; a pure function.

    images: uint8 [N, 1, 28, 28], some of every digit; labels: their digits, [N]. Digits and velocities occur together
    equally often, to within one; the picture and the first position are drawn uniformly. A record has the condition
    (digit, velocity_y, velocity_x) and the numbers of the values of all factors.
    """
    kinds = keyed_permutation(count, seed, _KIND) % (_DIGITS * len(_VELOCITIES))
    digits, velocities = kinds % _DIGITS, _VELOCITIES[kinds // _DIGITS]
    rows, drawn = np.empty(count, np.int64), keyed_bits(count, seed, _ROW)
    for digit in range(_DIGITS):
        chosen, of_digit = np.flatnonzero(digits == digit), np.flatnonzero(labels == digit)
        rows[chosen] = of_digit[(drawn[chosen] % np.uint64(max(of_digit.size, 1))).astype(np.int64)]
    places = [keyed_bits(count, seed, _START, axis) % np.uint64(PLACES) for axis in range(2)]
    starts = np.stack(places, 1).astype(np.int64)
    boxes = _shrunk(images)
    for row, digit, start, velocity in zip(rows, digits.tolist(), starts.tolist(), velocities.tolist(), strict=True):
        yield _clip(boxes[row], start, velocity), _record(digit, start, velocity)


def path(start: int, velocity: int) -> NDArray[np.int64]:
    """Positions of the box along an axis in every frame, [8], reflected at both ends of the room that it has."""
    last = PLACES - 1
    return last - np.abs((start + velocity * np.arange(FRAMES)) % (2 * last) - last)


def _record(digit: int, start: list[int], velocity: list[int]) -> dict[str, Any]:
    down, right = velocity
    return {
        "condition": {"digit": digit, "velocity_y": down, "velocity_x": right},
        "factors": {
            "digit": digit,
            "velocity_y": SPEEDS.index(down),
            "velocity_x": SPEEDS.index(right),
            "position_y": start[0],
            "position_x": start[1],
        },
    }


def _clip(box: NDArray[np.uint8], start: list[int], velocity: list[int]) -> NDArray[np.uint8]:
    """The box, uint8 [20, 20], on its path: uint8 [1, 8, 32, 32]."""
    clip = np.zeros((1, FRAMES, SIDE, SIDE), np.uint8)
    down, right = (path(*each) for each in zip(start, velocity, strict=True))
    for frame, (top, left) in enumerate(zip(down, right, strict=True)):
        clip[0, frame, top : top + BOX, left : left + BOX] = box
    return clip


def _shrunk(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of each picture, reduced to the box: uint8 [N, 1, 28, 28] -> [N, 20, 20]."""
    edge = (images.shape[-1] - _CROP) // 2
    middle = np.ascontiguousarray(images[:, 0, edge : edge + _CROP, edge : edge + _CROP])
    resized = [Image.fromarray(each).resize((BOX, BOX), Image.Resampling.BILINEAR) for each in middle]
    return np.stack([np.asarray(each) for each in resized])
