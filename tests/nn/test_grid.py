"""Resampling at positions: its transpose in a fixed order is PyTorch's."""

from __future__ import annotations

import torch

from imagegen_dist.nn.grid import resample_grid, spread_in_order


def test_the_transpose_that_adds_in_order_is_pytorchs() -> None:
    """Also far beyond the edges, where samples are mirrored several times, and exactly on them."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 5, 7, dtype=torch.float64, generator=random, requires_grad=True)
    grid = 6 * torch.randn(3, 6, 4, 2, dtype=torch.float64, generator=random)
    grid[0, 0, :, :] = torch.tensor([-1.0, 1.0, -3.0, 3.0]).view(4, 1)
    gradient = torch.randn(3, 2, 6, 4, dtype=torch.float64, generator=random)
    (expected,) = torch.autograd.grad(resample_grid(x, grid), x, gradient)
    torch.testing.assert_close(spread_in_order(gradient, grid, x.shape[2:]), expected, rtol=1e-12, atol=1e-12)
