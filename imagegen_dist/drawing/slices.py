"""Volumes cut open: slices through their middle."""

from __future__ import annotations

import numpy as np

from imagegen_dist.drawing.tiles import Pixels


def middle_slices(volumes: Pixels) -> Pixels:
    """The slices across D, H and W in the middle of volumes [N, C, D, H, W], centred on squares: [N, 3, C, side, side].

    A slice across D shows H downwards and W to the right, one across H shows D and W, and one across W shows H and D.
    """
    count, channels, depth, height, width = volumes.shape
    across_d = volumes[:, :, depth // 2]
    across_h = volumes[:, :, :, height // 2]
    across_w = np.swapaxes(volumes[:, :, :, :, width // 2], 2, 3)
    side = max(depth, height, width)
    squares = np.zeros((count, 3, channels, side, side), np.uint8)
    for plane, cut in enumerate((across_d, across_h, across_w)):
        down, right = ((side - extent) // 2 for extent in cut.shape[2:])
        squares[:, plane, :, down : down + cut.shape[2], right : right + cut.shape[3]] = cut
    return squares
