"""Feature networks that need no trained weights: random features of videos and volumes, and the motion of a video.

Each sees one thing, and none needs a download or labels: they are measured of every video and every volume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from imagegen_dist.metrics.features import FeatureNetwork
from imagegen_dist.metrics.motion import motion
from imagegen_dist.models.vgg import VGG, random_features
from imagegen_dist.models.weights import hash_of_weights
from imagegen_dist.numerics import Numerics
from imagegen_dist.shape import SampleShape

CONTENT, SPACE_TIME, MOTION, VOLUME, PLANES = "content", "space-time", "motion", "volume", "planes"

WEIGHTLESS = (CONTENT, SPACE_TIME, MOTION, VOLUME, PLANES)
"""Every kind."""

_OF = {"video": (CONTENT, SPACE_TIME, MOTION), "voxels": (VOLUME, PLANES)}
_ACTIVATIONS = 1 << 26  # of the first and largest layer that are computed at a time: 256 MiB

Features = Callable[[Tensor], Tensor]


def weightless_kinds(modality: str, shape: SampleShape) -> tuple[str, ...]:
    """The kinds of networks, and names of metrics, for samples of a modality and shape; () for images."""
    return tuple(kind for kind in _OF.get(modality, ()) if kind != MOTION or shape.spatial[0] > 1)


def main_kind(modality: str) -> str:
    """The kind that sees a whole sample, for a modality; "" for images."""
    return {"video": SPACE_TIME, "voxels": VOLUME}.get(modality, "")


def modality_of(kind: str) -> str:
    """The modality of the samples that a kind is for; "" if it is not one of these kinds."""
    return next((name for name, kinds in _OF.items() if kind in kinds), "")


def weightless_network(kind: str, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    """The network of a kind, for samples of this shape. Raises ValueError if it does not support them."""
    if shape.ndim != 3:
        raise ValueError(f"features {kind} are of {modality_of(kind)}, and the samples are {shape}")
    if kind == MOTION:
        return _motion(shape)
    slices = SampleShape(shape.channels, shape.spatial[1:])
    network = random_features(shape if kind in (SPACE_TIME, VOLUME) else slices)
    network.to(device).eval().requires_grad_(False)
    match kind:
        case "content":
            return _network("random 2-D features of every frame", network, shape, lambda x: _along(network, x, 2))
        case "planes":
            name = "random 2-D features of every slice along each axis"
            return _network(name, network, shape, lambda x: torch.cat([_along(network, x, at) for at in (2, 3, 4)], 1))
    return _network("random 3-D features", network, shape, lambda x: _pooled(network(x)))


def _motion(shape: SampleShape) -> FeatureNetwork:
    frames = shape.spatial[0]
    if frames < 2:
        raise ValueError(f"features {MOTION} need clips of 2 frames or more, not {frames}")
    name = "velocity and acceleration of the centre of brightness"
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return FeatureNetwork(name, sha256, 2 * (frames - 1) + 2 * (frames - 2), motion)


def _network(name: str, network: VGG, shape: SampleShape, features: Features) -> FeatureNetwork:
    """`features` by a network, of so many samples at a time that their activations stay small."""
    first = next(iter(network.parameters()))
    at_once = max(1, _ACTIVATIONS // (shape.numel // shape.channels * len(first)))

    def bounded(x: Tensor) -> Tensor:
        with Numerics(tf32=False).applied():
            return torch.cat([features(some) for some in x.split(at_once)])

    with torch.no_grad():
        dim = features(torch.zeros(1, *shape.dims, device=first.device)).shape[1]
    return FeatureNetwork(name, hash_of_weights(network), dim, bounded)


def _along(network: VGG, x: Tensor, axis: int) -> Tensor:
    """Features of the slices across an axis of x [B, C, *S], averaged over them: [B, F]."""
    slices = x.movedim(axis, 1)
    return _pooled(network(slices.flatten(0, 1))).unflatten(0, slices.shape[:2]).mean(1)


def _pooled(maps: list[Tensor]) -> Tensor:
    """Mean and standard deviation of every channel of every map [B, width, *s], concatenated: [B, F]."""
    flat = [each.flatten(2) for each in maps]
    return torch.cat([part for each in flat for part in (each.mean(2), each.std(2, correction=0))], 1)
