"""Latent paths: arcs between draws of a Gaussian prior, and oscillation of a single latent."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from imagegen_dist.evaluation.traversal import SPAN


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation between two latents at each t in [0, 1]. start, end: [*Z]; t: [T] -> [T, *Z].

    The linear midpoint of two draws of N(0, I) is shorter than typical draws; on the arc, the norm is preserved.
    (Shoemake 1985, Sec. 3.3; arXiv:1609.04468, Sec. 2.1)
    """
    cosine = torch.nn.functional.cosine_similarity(start.flatten(), end.flatten(), dim=0).clamp(-1, 1)
    angle = torch.acos(cosine.double())
    t = t.double().reshape(-1, *(1 for _ in start.shape))
    if angle.sin() < 1e-6:  # equal or opposite directions, between which the arc is not unique
        mixed = (1 - t) * start + t * end
    else:
        mixed = (((1 - t) * angle).sin() * start + (t * angle).sin() * end) / angle.sin()
    return mixed.to(start.dtype)


def latent_path(keys: Tensor, frames: int) -> Tensor:
    """From each latent to the next, and from the last to the first. keys: [N, *Z] -> [N * frames, *Z].

    frames: per segment; the first of them is the latent itself.
    """
    t = torch.arange(frames) / frames
    return torch.cat([slerp(keys[at], keys[(at + 1) % len(keys)], t) for at in range(len(keys))])


def blend(keys: Tensor, frames: int) -> Tensor:
    """As `latent_path`, by linear interpolation: class weights [N, K] -> [N * frames, K]."""
    t = (torch.arange(frames) / frames).unsqueeze(1)
    return torch.cat([(1 - t) * keys[at] + t * keys[(at + 1) % len(keys)] for at in range(len(keys))])


def swing(frames: int) -> Tensor:
    """Values of a latent over one oscillation from 0 to 2.5, to -2.5 and back, [frames]."""
    return SPAN * torch.sin(torch.arange(frames) * (2 * pi / frames))
