"""Sampling at given positions, differentiable any number of times."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from imagegen_dist.nn.compiling import in_graph


@in_graph
def resample_grid(x: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples of x [B, C, H, W] at grid [B, H', W', 2], mirrored at the edges -> [B, C, H', W'].

    Differentiable in x any number of times (torch's own grid_sample only once); not in grid.
    """
    return _Resample.apply(x, grid)


class _Resample(Function):
    """The resampling is linear in x, so its derivative is its transpose."""

    @staticmethod
    def forward(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        x, grid = inputs
        ctx.save_for_backward(grid)
        ctx.extent = x.shape[2:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _ResampleTransposed.apply(gradients[0], grid, ctx.extent), None


class _ResampleTransposed(Function):
    """Transpose of _Resample, whose derivative is _Resample again."""

    @staticmethod
    def forward(gradient: Tensor, grid: Tensor, extent: torch.Size) -> Tensor:
        if gradient.is_cuda and torch.are_deterministic_algorithms_enabled():
            return spread_in_order(gradient, grid, extent)
        # Only the shape of the sampled tensor matters for the gradient with respect to it.
        sampled = gradient.new_zeros(()).expand(*gradient.shape[:2], *extent)
        bilinear, reflection = 0, 2
        x_gradient, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradient, sampled, grid, bilinear, reflection, False, [True, False]
        )
        return x_gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, torch.Size], output: Tensor) -> None:
        _, grid, _ = inputs
        ctx.save_for_backward(grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Resample.apply(gradients[0], grid), None, None


def spread_in_order(gradient: Tensor, grid: Tensor, extent: torch.Size) -> Tensor:
    """The transpose of `resample_grid`, which adds in a fixed order: [B, C, H', W'] -> [B, C, *extent].

    CUDA's own transpose has none. `index_put_` has one while deterministic algorithms are required.
    """
    (row, of_row), (column, of_column) = (
        _corners(grid[..., axis], size) for axis, size in zip((1, 0), extent, strict=True)
    )
    height, width = extent
    batch, channels = gradient.shape[:2]
    start = torch.arange(batch, device=grid.device).view(-1, 1, 1) * (height * width)
    values = gradient.permute(0, 2, 3, 1)
    places, shares = [], []
    for y in (0, 1):
        for x in (0, 1):
            places.append(start + row[y] * width + column[x])
            shares.append(values * (of_row[y] * of_column[x]).unsqueeze(-1).to(values.dtype))
    found = gradient.new_zeros(batch * height * width, channels)
    found.index_put_((torch.cat(places).flatten(),), torch.cat(shares).flatten(0, 2), accumulate=True)
    return found.view(batch, height, width, channels).permute(0, 3, 1, 2).contiguous()


def _corners(positions: Tensor, size: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two neighbours of positions on an axis, and their weights; -1 and 1 are its edges."""
    from_edge = ((positions + 1) * (size / 2)).abs()
    turns, rest = (from_edge / size).floor(), from_edge.fmod(size)
    at = (torch.where(turns % 2 == 0, rest, size - rest) - 0.5).clamp(0, size - 1)
    below = at.floor()
    first = below.long()
    return (first, (first + 1).clamp_max(size - 1)), (1 - (at - below), at - below)
