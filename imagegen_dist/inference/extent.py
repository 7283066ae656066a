"""Samples of another extent than those trained on: clips of any length in pieces, and large samples in tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from imagegen_dist.nn.causal import stream

Rows = Callable[[Tensor, Tensor | None], Tensor]
"""A function of samples or latents and labels or None, row by row."""


Scales = tuple[tuple[int, ...], tuple[int, ...]]
"""Positions of what goes in, and of what comes out, for each latent position, by axis."""


class Spatial(Protocol):
    """An encoder or decoder of latents at positions, which takes samples of any extent."""

    factors: tuple[int, ...]
    """Positions of a sample for each latent position, by axis."""
    reach: tuple[int, ...]
    """How far it sees, in latent positions; () if it sees a whole sample."""
    causal: bool
    """True if it does not look ahead along the first axis."""


def spatial(network: nn.Module) -> Spatial:
    """The network as one that takes samples of any extent. Raises ValueError for others."""
    if not hasattr(network, "factors"):
        raise ValueError("this model takes samples of one extent alone; only autoencoders of resvae take larger ones")
    return cast(Spatial, network)


def causal(network: nn.Module) -> Spatial:
    """The network as one that does not look ahead in time. Raises ValueError for others."""
    if not getattr(network, "causal", False):
        raise ValueError("this model looks at whole clips; one trained with --model.causal true takes them in pieces")
    return cast(Spatial, network)


def with_time_of(x: object, dims: tuple[int, ...], network: nn.Module, encodes: bool) -> tuple[int, ...]:
    """dims (C, T, ...) with the time of x [B, C, T, ...], if the network takes clips of that length; else dims."""
    if not getattr(network, "causal", False) or not isinstance(x, Tensor) or x.ndim != len(dims) + 1:
        return dims
    unit = cast(Spatial, network).factors[0] if encodes else 1
    return dims if x.shape[2] % unit or not x.shape[2] else (dims[0], x.shape[2], *dims[2:])


def in_pieces_of(frames: int, function: Rows) -> Rows:
    """The same function, which sees clips [B, C, T, ...] longer than `frames` in pieces of that length."""

    def whole(x: Tensor, label: Tensor | None) -> Tensor:
        if x.ndim < 5 or x.shape[2] <= frames:
            return function(x, label)
        return torch.cat(list(stream(function, x.split(frames, 2), label)), 2)

    return whole


def extents_of(x: object, dims: tuple[int, ...], factors: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial extents of x [B, C, *S] if they are multiples of the factors, else those of dims (C, *S)."""
    if not isinstance(x, Tensor) or x.ndim != len(dims) + 1:
        return dims[1:]
    extents = tuple(x.shape[2:])
    fits = all(extent and extent % factor == 0 for extent, factor in zip(extents, factors, strict=True))
    return extents if fits else dims[1:]
