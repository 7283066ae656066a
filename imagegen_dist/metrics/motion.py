"""Motion of a video without any network: the track of its centre of brightness."""

import torch
from torch import Tensor

_EMPTY = 1e-4  # weight of every pixel, so that an empty frame has its centre in the middle


def centroids(x: Tensor) -> Tensor:
    """Centre of what differs from a clip's ground, frame by frame: [B, C, T, H, W] in [-1, 1] -> [B, T, 2] in pixels.

    A pixel weighs its distance from the median of its clip, averaged over channels. That follows one object on an even
    ground, whether bright or dark; several objects, or a moving camera, have one common centre.
    """
    ground = x.flatten(2).median(2).values[:, :, None, None, None]
    weight = (x - ground).abs().mean(1) / 2 + _EMPTY  # [B, T, H, W]
    mass = weight.sum((2, 3))
    centre = []
    for axis in (3, 2):  # the axis that is summed away leaves rows, then columns
        along = weight.sum(axis)
        centre.append((along * torch.arange(along.shape[2], dtype=x.dtype, device=x.device)).sum(2) / mass)
    return torch.stack(centre, 2)


def velocities(x: Tensor) -> Tensor:
    """Differences of the centres of successive frames: [B, C, T, H, W] -> [B, T - 1, 2] in pixels per frame."""
    return centroids(x).diff(dim=1)


def motion(x: Tensor) -> Tensor:
    """Velocities and accelerations of a clip's centre: [B, C, T, H, W] -> [B, 2 (T - 1) + 2 (T - 2)], in pixels.

    T of at least 2; two frames have a velocity alone.
    """
    velocity = velocities(x)
    return torch.cat([velocity.flatten(1), velocity.diff(dim=1).flatten(1)], 1)
