"""Gradient penalties of a discriminator, exact (double backward) or estimated from forward passes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from imagegen_dist.nn.convolve import input_gradients_only

Critic = Callable[[Tensor], Tensor]
"""Samples [B, C, *S] -> logits [B]."""


def gradient_penalty(x: Tensor, logits: Tensor) -> Tensor:
    """Squared gradient norm of each sample's logit, ||d logits / d x||^2, in float32 or higher precision.

    x: [B, C, *S], requires grad; logits: [B] -> [B]. Twice differentiable. (R1 of arXiv:1801.04406; arXiv:2501.05441)
    """
    with input_gradients_only():
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return squared_norms(gradient)


def squared_norms(gradient: Tensor) -> Tensor:
    """Squared norm of each sample's gradient [B, C, *S], in float32 or higher precision: [B]."""
    return at_least_float32(gradient).square().flatten(1).sum(1)


def with_gradients(
    function: Callable[..., tuple[Tensor, ...]], xs: Sequence[Tensor], first: int | None = None
) -> tuple[tuple[Tensor, ...], Sequence[Tensor]]:
    """function(*xs), and the gradient of its results' sum for each x, which can be differentiated again.

    The samples xs are constants. first: the gradient is that of so many results, None for all. In a compiled function
    the gradients are torch.func's, since torch.compile refuses those of torch.autograd.grad.
    """
    xs = [x.detach() for x in xs]
    if torch.compiler.is_compiling():

        def parted(*xs: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
            values = function(*xs)
            return values[:first], values[first:] if first is not None else ()

        found: Any = torch.func.vjp(parted, *xs, has_aux=True)
        summed, pull_back, others = found
        return (*summed, *others), pull_back(tuple(torch.ones_like(value) for value in summed))
    for x in xs:
        x.requires_grad_()
    values = function(*xs)
    summed, ones = values[:first], [torch.ones_like(value) for value in values[:first]]
    with input_gradients_only():
        return values, torch.autograd.grad(summed, xs, ones, create_graph=True)


def interpolate_penalty(critic: Critic, real: Tensor, fake: Tensor, position: Tensor) -> Tensor:
    """(||d critic / d x|| - 1)^2 at x = fake + position * (real - fake), for each sample.

    real, fake: [B, C, *S]; position: [B] in [0, 1] -> [B]. (WGAN-GP, arXiv:1704.00028, Eq. 3)
    """
    position = position.reshape(-1, *(1 for _ in real.shape[1:]))
    _, (gradient,) = with_gradients(lambda x: (critic(x),), [fake + position * (real - fake)])
    return (squared_norms(gradient).clamp_min(1e-24).sqrt() - 1).square()


def finite_difference_penalty(
    critic: Critic, x: Tensor, logits: Tensor, direction: Tensor, epsilon: float = 0.01
) -> Tensor:
    """((D(x + epsilon v) - D(x)) / epsilon)^2 for v ~ N(0, I): an estimate of ||dD/dx||^2 without double backward.

    x, direction: [B, C, *S]; logits: D(x), [B] -> [B]. Its mean over v is the squared norm up to O(epsilon^2).
    """
    shifted = critic(x + epsilon * direction)
    return ((at_least_float32(shifted) - at_least_float32(logits)) / epsilon).square()


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, or in their own dtype if it is more precise."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
