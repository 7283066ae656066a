"""Gradient penalties of a discriminator, exact (double backward) or estimated from forward passes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]
"""Samples [B, C, *S] -> logits [B]."""


def gradient_penalty(x: Tensor, logits: Tensor) -> Tensor:
    """Squared gradient norm of each sample's logit, ||d logits / d x||^2, in float32 or higher precision.

    x: [B, C, *S], requires grad; logits: [B] -> [B]. Twice differentiable. (R1 of arXiv:1801.04406; arXiv:2501.05441)
    """
    (penalty,) = gradient_penalties([x], [logits])
    return penalty


def gradient_penalties(xs: Sequence[Tensor], logits: Sequence[Tensor]) -> list[Tensor]:
    """`gradient_penalty` of each pair of samples and logits, in one backward pass; [] for no pairs."""
    if not xs:
        return []
    total = torch.stack([values.sum() for values in logits]).sum()
    gradients = torch.autograd.grad(total, list(xs), create_graph=True)
    return [at_least_float32(gradient).square().flatten(1).sum(1) for gradient in gradients]


def interpolate_penalty(critic: Critic, real: Tensor, fake: Tensor, position: Tensor) -> Tensor:
    """(||d critic / d x|| - 1)^2 at x = fake + position * (real - fake), for each sample.

    real, fake: [B, C, *S]; position: [B] in [0, 1] -> [B]. (WGAN-GP, arXiv:1704.00028, Eq. 3)
    """
    position = position.reshape(-1, *(1 for _ in real.shape[1:]))
    x = (fake + position * (real - fake)).detach().requires_grad_()
    return (gradient_penalty(x, critic(x)).clamp_min(1e-24).sqrt() - 1).square()


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
