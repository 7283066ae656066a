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
