"""Volumes as solid bodies: isosurfaces seen from an angle, and turned on a table.

Every pixel sends one ray through the volume, in parallel; where it first meets the surface, light falls on the surface
by Lambert's law. A ray that misses it shows the largest value on its way as a grey haze, so that a volume without a
surface is not empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imagegen_dist.drawing.body import LEVEL, body_and_colour
from imagegen_dist.drawing.coarse import averaged
from imagegen_dist.drawing.tiles import Pixels

YAW, PITCH = 0.6, 0.45
_HALF_WIDTH = 1.4  # of the view, where the longest side of a volume is 2: of a full cube, its corners touch the edge
_LIGHT = (-0.45, -0.55, -0.7)  # from the left, above and the viewer
_AMBIENT = 0.3
_HAZE = 0.35
_COLOUR = (0.36, 0.55, 0.87)
_POINTS_AT_ONCE = 1 << 22  # on rays, in one pass of the sampler


@dataclass(frozen=True)
class View:
    """Where volumes are seen from. yaw: turn about the axis H, pitch: from above, both in radians. side: pixels."""

    side: int
    yaw: float = YAW
    pitch: float = PITCH

    @property
    def axes(self) -> Tensor:
        """What right, down and away are on the axes W, H and D, [3, 3]: the rows of a rotation."""
        cy, sy, cp, sp = math.cos(self.yaw), math.sin(self.yaw), math.cos(self.pitch), math.sin(self.pitch)
        right, down = (cy, 0.0, -sy), (-sy * sp, cp, -cy * sp)
        away = (sy * cp, sp, cy * cp)
        return torch.tensor([right, down, away], dtype=torch.float32)


def isosurfaces(volumes: Pixels, view: View, level: float = LEVEL) -> Pixels:
    """Volumes, uint8 [N, C, D, H, W], as they look on white: uint8 [N, 3, side, side].

    One channel is drawn in one colour; three are colours, whose largest value is the body; a fourth is the body itself.
    Volumes of more voxels along a side than the picture has pixels are averaged first.
    """
    volumes = averaged(volumes, -(-max(volumes.shape[2:]) // view.side))
    steps = _steps(volumes)
    rows = max(1, min(view.side, _POINTS_AT_ONCE // (view.side * steps)))
    batch = max(1, _POINTS_AT_ONCE // (view.side * rows * steps))
    drawn = []
    for start in range(0, len(volumes), batch):
        some = volumes[start : start + batch]
        blocks = [range(top, min(top + rows, view.side)) for top in range(0, view.side, rows)]
        drawn.append(np.concatenate([_render(some, view, block, level) for block in blocks], 2))
    return np.concatenate(drawn)


def turntable(volumes: Pixels, side: int, frames: int, level: float = LEVEL) -> Iterator[Pixels]:
    """`isosurfaces` during one whole turn, frame by frame."""
    for frame in range(frames):
        yield isosurfaces(volumes, View(side, YAW + 2 * math.pi * frame / frames), level)


def _steps(volumes: Pixels) -> int:
    """Points on a ray: two a voxel along the diagonal."""
    return 2 * math.ceil(math.sqrt(3) * max(volumes.shape[2:]))


def _render(volumes: Pixels, view: View, rows: range, level: float) -> Pixels:
    """Some rows of the pictures, [N, 3, rows, side]."""
    body, colours = body_and_colour(volumes)
    values = (
        torch.from_numpy(np.ascontiguousarray(body)).float().unsqueeze(1) / np.iinfo(volumes.dtype).max
    )  # [N, 1, D, H, W]
    extents = _extents(volumes.shape[2:])
    points, step = _points(view, rows, _steps(volumes))  # [K, rows, side, 3]
    on_rays = _sampled(values, points / extents)[:, 0]  # [N, K, rows, side]
    inside = on_rays > level
    first = inside.to(torch.uint8).argmax(1, keepdim=True).clamp(min=1)
    after, before = on_rays.gather(1, first), on_rays.gather(1, first - 1)
    back = ((after - level) / (after - before).clamp(min=1e-6)).clamp(0, 1) * step  # to where it is exactly the level
    away = view.axes[2]
    met = points[first[:, 0], torch.arange(len(rows))[:, None], torch.arange(view.side)]  # [N, rows, side, 3]
    met = ((met - back[:, 0, ..., None] * away) / extents).unsqueeze(1)
    shade = _lit(values, met, extents, view)
    colour = torch.tensor(_COLOUR).reshape(1, 3, 1, 1) if colours is None else _colour_at(colours, met)
    haze = 1 - _HAZE * (on_rays.amax(1, keepdim=True) / level).clamp(0, 1)
    picture = torch.where(inside.any(1, keepdim=True), shade * colour, haze)
    return (picture * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _extents(spatial: Sequence[int]) -> Tensor:
    """Half the sides along W, H and D, where the longest is 1."""
    return torch.tensor([extent / max(spatial) for extent in reversed(spatial)])


def _points(view: View, rows: range, steps: int) -> tuple[Tensor, float]:
    """The points of the rays of some rows, nearest first, as (W, H, D): [K, rows, side, 3]; and their distance."""
    across = ((torch.arange(view.side) + 0.5) / view.side * 2 - 1) * _HALF_WIDTH
    along = torch.linspace(-math.sqrt(3), math.sqrt(3), steps)
    depth, down, right = torch.meshgrid(along, across[rows.start : rows.stop], across, indexing="ij")
    return torch.stack([right, down, depth], -1) @ view.axes, float(along[1] - along[0])


def _sampled(values: Tensor, at: Tensor) -> Tensor:
    """Values [N, C, D, H, W] at points [K, h, w, 3], the same for all, or [N, K, h, w, 3] -> [N, C, K, h, w]."""
    grid = at.expand(len(values), *at.shape[-4:]) if at.ndim == 4 else at
    return F.grid_sample(values, grid, align_corners=False, padding_mode="zeros")


def _lit(values: Tensor, met: Tensor, extents: Tensor, view: View) -> Tensor:
    """Light on the surface at points [N, 1, h, w, 3] -> [N, 1, h, w]. The light moves with the viewer."""
    padded = F.avg_pool3d(F.pad(values, (2,) * 6), 3, 1)  # softened, so that voxels do not show as facets
    slopes = [padded.narrow(axis, 2, size) - padded.narrow(axis, 0, size) for axis, size in _inner(values)]
    slopes = [_cut(slope, axis) for slope, (axis, _) in zip(slopes, _inner(values), strict=True)]
    gradient = torch.cat(slopes, 1)  # along W, H and D
    normal = -F.normalize(_sampled(gradient, met)[:, :, 0], dim=1)
    light = F.normalize(torch.tensor(_LIGHT), dim=0) @ view.axes
    falling = (normal * light.reshape(1, 3, 1, 1)).sum(1, keepdim=True).clamp(0, 1)
    return _AMBIENT + (1 - _AMBIENT) * falling


def _inner(values: Tensor) -> list[tuple[int, int]]:
    return [(axis, values.shape[axis]) for axis in (4, 3, 2)]


def _cut(slope: Tensor, along: int) -> Tensor:
    """Without the margin of one voxel on the two other axes."""
    for axis in {2, 3, 4} - {along}:
        slope = slope.narrow(axis, 1, slope.shape[axis] - 2)
    return slope


def _colour_at(colours: Pixels, met: Tensor) -> Tensor:
    return F.grid_sample(_fractions(colours), met, align_corners=False, padding_mode="border")[:, :, 0]


def _fractions(values: Pixels) -> Tensor:
    """Values as fractions of their range."""
    return torch.from_numpy(np.ascontiguousarray(values)).float() / np.iinfo(values.dtype).max
