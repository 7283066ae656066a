"""Solids, drawn from their factors: volumes with one body of six kinds in four sizes, twelve turns and 64 places.

Bodies stand on the axis H, which points downwards, and turn about it (yaw); they do not tilt. A value is the share of
its voxel that lies in the body, in 255ths. Boxes, ellipsoids, tori and crosses look the same after half a turn, which
is why yaw goes on from a half to a whole turn for cones and steps alone.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

FACTORS = {"shape": 6, "size": 4, "yaw": 12, "position_z": 4, "position_y": 4, "position_x": 4}
"""Number of values of each factor, slowest factor first; positions along D, H and W."""

SAMPLES = 18_432

_SIZES = np.linspace(0.7, 1, FACTORS["size"])
_YAWS = np.arange(FACTORS["yaw"]) * (2 * np.pi / FACTORS["yaw"])
_UNIT = 16  # positions are sixteenths of the side apart
_SUPERSAMPLING = 3  # points along each axis of a voxel

_Points = NDArray[np.float64]


def factors_of(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of the values of all factors, in the order of FACTORS: [N] -> [N, 6]. Raises ValueError."""
    wrong = index[(index < 0) | (index >= SAMPLES)]
    if wrong.size:
        raise ValueError(f"there is no solid {wrong[0]}; there are 0 to {SAMPLES - 1}")
    return np.stack(np.unravel_index(index, tuple(FACTORS.values())), axis=-1).astype(np.int64)


def render(index: NDArray[np.int64], side: int) -> NDArray[np.uint8]:
    """Draw volumes by their numbers: [N] -> uint8 [N, 1, side, side, side]. Raises ValueError as `factors_of`.

    side: a multiple of 16.
    """
    step = side // _UNIT
    window = np.arange(side - (FACTORS["position_x"] - 1) * step)
    volumes = np.zeros((index.size, 1, side, side, side), np.uint8)
    for volume, (shape, size, yaw, *place) in zip(volumes[:, 0], factors_of(index).tolist(), strict=True):
        volume[np.ix_(*(step * at + window for at in place))] = _bodies(window.size)[shape, size, yaw]
    return volumes


def body(shape: str, size: float, yaw: float, extent: int) -> NDArray[np.uint8]:
    """Draw a body in the middle of a cube: uint8 [extent, extent, extent], axes D, H and W.

    shape: one of SHAPES. size: 1 fills the cube. yaw: radians, from W towards D.
    """
    points = (np.arange(extent * _SUPERSAMPLING) + 0.5) / (extent * _SUPERSAMPLING) * 2 - 1
    back, down, right = points[:, None, None] / size, points[None, :, None] / size, points[None, None, :] / size
    cos, sin = np.cos(yaw), np.sin(yaw)
    inside = SHAPES[shape](cos * right + sin * back, -down, cos * back - sin * right)
    split = inside.reshape(extent, _SUPERSAMPLING, extent, _SUPERSAMPLING, extent, _SUPERSAMPLING)
    return np.round(255 * split.mean((1, 3, 5))).astype(np.uint8)


@cache
def _bodies(extent: int) -> NDArray[np.uint8]:
    """Every shape, size and yaw: [6, 4, 12, extent, extent, extent]."""
    drawn = [[[body(shape, size, yaw, extent) for yaw in _YAWS] for size in _SIZES] for shape in SHAPES]
    return np.array(drawn)


def _in_box(x: _Points, y: _Points, z: _Points) -> NDArray[np.bool_]:
    return (np.abs(x) <= 0.85) & (np.abs(y) <= 0.5) & (np.abs(z) <= 0.5)


def _in_cone(x: _Points, y: _Points, z: _Points) -> NDArray[np.bool_]:
    """A cone that lies on its side and points to the right."""
    return (x >= -0.75) & (np.hypot(y, z) <= 0.65 * (0.95 - x) / 1.7)


def _in_cross(x: _Points, y: _Points, z: _Points) -> NDArray[np.bool_]:
    """Two upright bars, one across the other."""
    beam = np.minimum(np.abs(x), np.abs(y)) <= 0.27
    return beam & (np.maximum(np.abs(x), np.abs(y)) <= 0.9) & (np.abs(z) <= 0.3)


def _in_ellipsoid(x: _Points, y: _Points, z: _Points) -> NDArray[np.bool_]:
    return (x / 0.98) ** 2 + (y / 0.65) ** 2 + (z / 0.55) ** 2 <= 1


def _in_step(x: _Points, y: _Points, z: _Points) -> NDArray[np.bool_]:
    """An L: a block with an upright at its left end."""
    low, upright = y <= -0.2, x <= -0.2
    return (low | upright) & (np.abs(x) <= 0.8) & (np.abs(y) <= 0.8) & (np.abs(z) <= 0.4)


def _in_torus(x: _Points, y: _Points, z: _Points) -> NDArray[np.bool_]:
    """An upright ring."""
    return (np.hypot(x, y) - 0.68) ** 2 + z**2 <= 0.27**2


SHAPES: dict[str, Callable[[_Points, _Points, _Points], NDArray[np.bool_]]] = {
    "box": _in_box,
    "cone": _in_cone,
    "cross": _in_cross,
    "ellipsoid": _in_ellipsoid,
    "step": _in_step,
    "torus": _in_torus,
}
"""Whether a point at x to the right, y upwards and z to the back is in a body of size 1; by name, in order."""
