"""Convolutions that never look ahead along the first axis, and sequences in pieces, with what came before kept.

A network whose layers are causal gives for a video in pieces what it gives for the whole: each convolution keeps the
last positions that it has seen, where the whole has them at the border between two pieces.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.nn.compiling import uncompiled
from imagegen_dist.nn.conv import Conv
from imagegen_dist.shape import PerAxis, per_axis


class _Kept(threading.local):
    tails: dict[nn.Module, Tensor] | None = None


_kept = _Kept()


class SidedConv(Conv):
    """Convolution over ndim axes whose padding may lie on one side: [B, in, *S] -> [B, out, *S / strides].

    Along an axis of stride 1, half of the zeros are on either side; along one of stride 2, all are at the far edge.
    causal: along the first axis, all of them are at its beginning, so that no result depends on a later position, and
    within `in_pieces` the last positions of the piece before take their place. kernel: odd.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        kernel: PerAxis,
        strides: PerAxis = 1,
        causal: bool = False,
        *,
        generator: torch.Generator,
    ) -> None:
        sizes = list(zip(per_axis(kernel, ndim), per_axis(strides, ndim), strict=True))
        near = [(k - 1) // 2 if s == 1 else 0 for k, s in sizes]
        beyond = [0 if s == 1 else k - s for k, s in sizes]
        if causal:
            near[0] = beyond[0] = 0
        super().__init__(ndim, in_channels, out_channels, kernel, strides, tuple(near), bias=True, generator=generator)
        self.past = max(sizes[0][0] - sizes[0][1], 0) if causal else 0
        self.beyond = tuple(width for extent in reversed(beyond) for width in (0, extent))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """bias: [out_channels], added in place of the layer's own."""
        if self.past:
            x = self._after_the_past(x)
        return super().forward(F.pad(x, self.beyond) if any(self.beyond) else x, bias)

    def _after_the_past(self, x: Tensor) -> Tensor:
        """x behind the positions before it, which are zeros at the beginning."""
        tails = _kept.tails
        before = None if tails is None else tails.get(self)
        if before is None:
            before = x.new_zeros(*x.shape[:2], self.past, *x.shape[3:])
        x = torch.cat([before, x], dim=2)
        if tails is not None:
            tails[self] = x[:, :, -self.past :].clone()
        return x


@contextmanager
def in_pieces(tails: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Within it, causal convolutions of this thread go on from `tails`, and leave there what the next piece needs."""
    before, _kept.tails = _kept.tails, tails
    try:
        with uncompiled():
            yield
    finally:
        _kept.tails = before


def stream(network: Callable[..., Tensor], pieces: Iterable[Tensor], *arguments: object) -> Iterator[Tensor]:
    """The results of a causal network for consecutive pieces [B, C, T, ...] of a sequence, one for each piece.

    Together they are the network's result for the whole. arguments: further ones, the same for every piece. Each piece
    has a whole number of the positions that the network makes one of.
    """
    tails: dict[nn.Module, Tensor] = {}
    for piece in pieces:
        with in_pieces(tails):
            result = network(piece, *arguments)
        yield result
