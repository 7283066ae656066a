"""Activations that the backward pass computes again, in place of keeping them from the forward pass (arXiv:1604.06174).

A block keeps its input alone. Its forward pass is taken twice, which makes a training step about a third slower, and
the memory of a step that of the largest block in place of the sum of all. Gradients are the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputing(nn.Module):
    """A block x [B, C, *S] -> [B, C', *S] whose activations are computed again if its input is large enough."""

    recompute_from = 0
    """Values of a sample's input from which on activations are computed again; 0: never."""

    def compute(self, x: Tensor) -> Tensor:
        """The block's result."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if self.recompute_from and torch.is_grad_enabled() and x[0].numel() >= self.recompute_from:
            return recomputed(self.compute, x)
        return self.compute(x)


def recomputed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), of whose activations none is kept. Differentiable as often as the function; it draws no numbers."""
    result = checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(result, Tensor)
    return result


def recompute_(network: nn.Module, least: int) -> None:
    """Let the network's blocks recompute their activations from inputs of `least` values a sample on; 0: none."""
    for module in network.modules():
        if isinstance(module, Recomputing):
            module.recompute_from = least
