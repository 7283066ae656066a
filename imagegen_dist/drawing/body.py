"""What of a volume is a body: its channels, and the level at which its surface lies."""

from __future__ import annotations

from imagegen_dist.drawing.tiles import Pixels

LEVEL = 0.5
"""The surface lies where values pass this fraction of their range."""


def body_and_colour(volumes: Pixels) -> tuple[Pixels, Pixels | None]:
    """[N, C, D, H, W] -> how much of a body is in each voxel, [N, D, H, W], and its colours or None."""
    channels = volumes.shape[1]
    if channels >= 4:
        return volumes[:, 3], volumes[:, :3]
    return (volumes.max(1), volumes) if channels == 3 else (volumes[:, 0], None)
