"""Bring a volume to a spacing and a size: antialiased linear interpolation along each axis, and a central part.

Only elementwise operations in a fixed order are used, so that a file gives the same bytes on any machine.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.volumes.volume import Reals, Volume, check_extent


def resampled(volume: Volume, spatial: tuple[int, int, int], nearest: bool = False) -> Volume:
    """The whole volume with another number of voxels along each axis. nearest: each takes the value of one voxel."""
    steps = tuple(have / want for have, want in zip(volume.spatial, spatial, strict=True))
    return _sampled(volume, spatial, (steps[0], steps[1], steps[2]), nearest)


def at_spacing(volume: Volume, spacing: tuple[float, float, float], nearest: bool = False) -> Volume:
    """The volume with these distances in mm along D, H and W, around the same centre. nearest: as for `resampled`.

    Raises DecodeError if the file states no spacing.
    """
    known = volume.spacing
    if known is None:
        raise DecodeError("states no spacing: --spacing is for NIfTI files and DICOM series")
    if all(abs(have - want) <= 1e-4 * want for have, want in zip(known, spacing, strict=True)):
        return volume
    depth, height, width = (want / have for have, want in zip(known, spacing, strict=True))
    extents = [max(1, round(n / step)) for n, step in zip(volume.spatial, (depth, height, width), strict=True)]
    return _sampled(volume, (extents[0], extents[1], extents[2]), (depth, height, width), nearest)


def _sampled(volume: Volume, spatial: tuple[int, int, int], steps: tuple[float, float, float], nearest: bool) -> Volume:
    """Values on a grid around the same centre. steps: of the grid along D, H and W, in voxels of the volume."""
    if spatial == volume.spatial and steps == (1.0, 1.0, 1.0):
        return volume
    check_extent(spatial, "would be")
    values = volume.values if nearest else volume.values.astype(np.float32)
    for axis in sorted(range(3), key=lambda axis: spatial[axis] / volume.spatial[axis]):
        along = _nearest if nearest else _along
        values = along(values, axis + 1, spatial[axis], steps[axis])
    affine = volume.affine
    if affine is not None:
        first = (np.array(volume.spatial) - 1) / 2 - (np.array(spatial) - 1) / 2 * np.array(steps)
        affine = affine.copy()
        affine[:3, 3] += affine[:3, :3] @ first
        affine[:3, :3] *= np.array(steps)
    return replace(volume, values=values, affine=affine)


def central(volume: Volume, spatial: tuple[int, int, int], outside: float) -> Volume:
    """The central part of this size; where the volume is smaller, it is surrounded by the value `outside`."""
    if spatial == volume.spatial:
        return volume
    values = np.full((len(volume.values), *spatial), outside, volume.values.dtype)
    starts = [(have - want) // 2 for have, want in zip(volume.spatial, spatial, strict=True)]
    taken = [slice(max(0, start), min(have, start + want)) for start, have, want in _zip(starts, volume, spatial)]
    placed = [slice(part.start - start, part.stop - start) for part, start in zip(taken, starts, strict=True)]
    values[(slice(None), *placed)] = volume.values[(slice(None), *taken)]
    affine = volume.affine
    if affine is not None:
        affine = affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.array(starts, np.float64)
    return replace(volume, values=values, affine=affine)


def cropped_to_aspect(volume: Volume, spatial: tuple[int, int, int]) -> Volume:
    """The largest central part with the proportions of a size, in whole voxels."""
    scale = min(have / want for have, want in zip(volume.spatial, spatial, strict=True))
    depth, height, width = (max(1, round(want * scale)) for want in spatial)
    return central(volume, (depth, height, width), 0.0)


def _zip(starts: list[int], volume: Volume, spatial: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    return list(zip(starts, volume.spatial, spatial, strict=True))


def _centres(have: int, extent: int, step: float) -> NDArray[np.float64]:
    """Where new voxels lie among those that there are, around the same centre."""
    return (have - 1) / 2 + (np.arange(extent, dtype=np.float64) - (extent - 1) / 2) * step


def _nearest(values: NDArray, axis: int, extent: int, step: float) -> NDArray:
    """Other voxels along one axis, each with the value of the nearest one."""
    have = values.shape[axis]
    return values.take(np.clip(np.floor(_centres(have, extent, step) + 0.5).astype(np.int64), 0, have - 1), axis)


def _along(values: Reals, axis: int, extent: int, step: float) -> Reals:
    """Other voxels along one axis, around its centre, by a triangle filter as wide as the larger step."""
    have = values.shape[axis]
    if have == extent and step == 1:
        return values
    reach = max(1.0, step)
    centres = _centres(have, extent, step)
    first = np.ceil(centres - reach).astype(np.int64)
    taps = int(np.ceil(2 * reach)) + 1
    places = first[:, None] + np.arange(taps)
    weights = np.maximum(0.0, 1 - np.abs(places - centres[:, None]) / reach)
    weights /= weights.sum(axis=1, keepdims=True)
    places = np.clip(places, 0, have - 1)
    total: NDArray | None = None
    shape = [-1 if at == axis else 1 for at in range(values.ndim)]
    for tap in range(taps):
        part = values.take(places[:, tap], axis) * weights[:, tap].astype(np.float32).reshape(shape)
        total = part if total is None else total + part
    assert total is not None
    return total
