"""Volumes with fewer voxels than they have, for pictures that are smaller."""

from __future__ import annotations

from imagegen_dist.drawing.tiles import Pixels


def averaged(volumes: Pixels, factor: int) -> Pixels:
    """[N, C, D, H, W] with means of cubes of `factor` voxels; a rest at the end of an axis is dropped."""
    factor = min(factor, *volumes.shape[2:])
    if factor == 1:
        return volumes
    kept = volumes[:, :, *(slice(extent // factor * factor) for extent in volumes.shape[2:])]
    split = [part for extent in kept.shape[2:] for part in (extent // factor, factor)]
    return kept.reshape(*volumes.shape[:2], *split).mean((3, 5, 7)).round().astype(volumes.dtype)
