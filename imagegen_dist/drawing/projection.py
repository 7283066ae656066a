"""Volumes seen through: maximum-intensity projections."""

from __future__ import annotations

import numpy as np

from imagegen_dist.drawing.tiles import Pixels


def project(volumes: Pixels, axis: int) -> Pixels:
    """Maximum along an axis of [N, C, D, H, W], dimmed to 40 % towards its end, centred on a square."""
    depth = np.linspace(1, 0.4, volumes.shape[axis], dtype=np.float32)
    view = (volumes * depth.reshape([-1 if at == axis else 1 for at in range(5)])).max(axis).astype(np.uint8)
    side = max(volumes.shape[2:])
    spare = [(side - extent) // 2 for extent in view.shape[2:]]
    square = np.zeros((*view.shape[:2], side, side), np.uint8)
    square[:, :, spare[0] : spare[0] + view.shape[2], spare[1] : spare[1] + view.shape[3]] = view
    return square
