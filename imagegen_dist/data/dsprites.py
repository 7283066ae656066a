"""dSprites, drawn from its factors: a white square, ellipse or heart on black, 737,280 pictures of 64 × 64.

The grid of factors, their values and their order are the published ones (Matthey et al., "dSprites: Disentanglement
testing Sprites dataset", 2017): picture 0 has every factor at its first value, the last factor changes fastest, and
orientation goes from 0 to 2π including both ends, so that its first and last value look the same. The pictures are
drawn here: neighbouring positions are one pixel apart, and sizes were chosen so that the mean of all pixels and the
mean standard deviation of a picture are the published ones, 0.0425 and 0.195. Neighbouring values of a factor always
give different pictures; squares and ellipses, especially small ones, may look the same after a quarter or half turn.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.order import spread

FACTORS = {"shape": 3, "scale": 6, "orientation": 40, "position_x": 32, "position_y": 32}
"""Number of values of each factor, slowest factor first."""

SIZE = 64
SAMPLES = 737_280

_SIZES = tuple(FACTORS.values())
_SCALES = np.linspace(0.5, 1, FACTORS["scale"])
_ORIENTATIONS = np.linspace(0, 2 * np.pi, FACTORS["orientation"])
_WINDOW = SIZE - FACTORS["position_x"] + 1
_SUPERSAMPLING = 4  # points along each axis of a pixel, which is white if at least half of them are in the shape

_SQUARE = 9.6  # half a side; all lengths in pixels at scale 1
_ELLIPSE = (11.9, 5.95)  # half the axes
_HEART = 12.6  # side of the square that stands on a corner, with half discs on its upper sides

_Points = NDArray[np.float64]


def factors_of(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of the values of all factors, in the order of FACTORS: [N] -> [N, 5].

    Raises ValueError for numbers that are not those of pictures.
    """
    wrong = index[(index < 0) | (index >= SAMPLES)]
    if wrong.size:
        raise ValueError(f"there is no picture {wrong[0]}; dSprites has 0 to {SAMPLES - 1}")
    return np.stack(np.unravel_index(index, _SIZES), axis=-1).astype(np.int64)


def render(index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Draw pictures by their numbers: [N] -> uint8 [N, 1, 64, 64], 0 or 255. Raises ValueError as `factors_of`."""
    shape, scale, orientation, x, y = factors_of(index).T
    window = np.arange(_WINDOW)
    pictures = np.zeros((index.size, 1, SIZE, SIZE), dtype=np.uint8)
    at = (np.arange(index.size)[:, None, None], 0, (y[:, None] + window)[:, :, None], (x[:, None] + window)[:, None, :])
    pictures[at] = _sprites()[shape, scale, orientation]
    return pictures


def subset(count: int, seed: int) -> NDArray[np.int64]:
    """Numbers of `count` distinct pictures, spread evenly and in random order; a pure function, int64 [count]."""
    return spread(count, SAMPLES, seed)


def sprite(shape: str, scale: float, orientation: float) -> NDArray[np.uint8]:
    """Draw a shape with its centre of mass in the middle: uint8 [33, 33], 0 or 255.

    shape: square, ellipse or heart. orientation: radians, clockwise; at 0 the heart is upright and the ellipse wide.
    """
    points = (np.arange(_WINDOW * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - _WINDOW / 2
    right, down = points[None, :], points[:, None]
    cos, sin = np.cos(orientation), np.sin(orientation)
    # Rotate and scale the points back, to where the shape is upright and of full size.
    inside = _SHAPES[shape]((cos * right + sin * down) / scale, (cos * down - sin * right) / scale)
    share = inside.reshape(_WINDOW, _SUPERSAMPLING, _WINDOW, _SUPERSAMPLING).mean((1, 3))
    return np.where(share >= 0.5, 255, 0).astype(np.uint8)


@cache
def _sprites() -> NDArray[np.uint8]:
    """Every shape, scale and orientation: [3, 6, 40, 33, 33]."""
    drawn = [[[sprite(shape, scale, turn) for turn in _ORIENTATIONS] for scale in _SCALES] for shape in _SHAPES]
    return np.array(drawn)


def _in_square(right: _Points, down: _Points) -> NDArray[np.bool_]:
    return np.maximum(np.abs(right), np.abs(down)) <= _SQUARE


def _in_ellipse(right: _Points, down: _Points) -> NDArray[np.bool_]:
    return (right / _ELLIPSE[0]) ** 2 + (down / _ELLIPSE[1]) ** 2 <= 1


def _in_heart(right: _Points, down: _Points) -> NDArray[np.bool_]:
    side, radius = _HEART, _HEART / 2
    disc = radius / np.sqrt(2)  # offset of the discs' centres from that of the square, sideways and upwards
    lobe = disc * (1 + 4 / (3 * np.pi))  # offset of the centres of mass of the outer half discs
    up = lobe * np.pi / (4 + np.pi) - down  # from the centre of the square; the half discs have π / 4 of its area
    aside = np.abs(right)
    return (aside + np.abs(up) <= side / np.sqrt(2)) | ((aside - disc) ** 2 + (up - disc) ** 2 <= radius**2)


_SHAPES: dict[str, Callable[[_Points, _Points], NDArray[np.bool_]]] = {
    "square": _in_square,
    "ellipse": _in_ellipse,
    "heart": _in_heart,
}
