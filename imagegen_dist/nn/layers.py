"""Which positions the layers of an autoencoder look at: all, those of a frame, those of the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from imagegen_dist.nn.causal import SidedConv
from imagegen_dist.nn.conv import Conv
from imagegen_dist.nn.factorised import FactorisedConv
from imagegen_dist.nn.norm import FrameNorm, PositionNorm, group_norm
from imagegen_dist.shape import PerAxis, per_axis

NormOver = Literal["all", "frames", "positions"]
_KERNEL = 3


@dataclass(frozen=True)
class Layers:
    """Kinds of convolutions and normalisations of a network.

    causal: along the first of three axes, convolutions see the past alone. factorised: they are one in space and one
    along the first axis. norm_over: what a normalisation takes its statistics over.
    """

    causal: bool = False
    factorised: bool = False
    norm_over: NormOver = "all"

    def conv(
        self, ndim: int, channels: int, out_channels: int, strides: PerAxis = 1, *, generator: torch.Generator
    ) -> nn.Module:
        """A convolution of kernel 3, zero-padded as `SidedConv`: [B, channels, *S] -> [B, out_channels, *S / strides].

        Its attribute `weight` is the weight of its last linear map.
        """
        if self.factorised:
            along = per_axis(strides, ndim)
            in_space, in_time = (1, *[_KERNEL] * (ndim - 1)), (_KERNEL, *[1] * (ndim - 1))
            space = SidedConv(ndim, channels, out_channels, in_space, (1, *along[1:]), generator=generator)
            once = (along[0], *[1] * (ndim - 1))
            time = SidedConv(ndim, out_channels, out_channels, in_time, once, self.causal, generator=generator)
            return FactorisedConv(space, nn.SiLU(), time)
        if self.causal or max(per_axis(strides, ndim)) > 1:
            return SidedConv(ndim, channels, out_channels, _KERNEL, strides, self.causal, generator=generator)
        return Conv(ndim, channels, out_channels, _KERNEL, bias=True, generator=generator)

    def norm(self, channels: int) -> nn.Module:
        """A normalisation of [B, channels, *S]."""
        if self.norm_over == "frames":
            return FrameNorm(channels)
        return PositionNorm(channels) if self.norm_over == "positions" else group_norm(channels)


EVERYTHING = Layers()
"""Layers that look at all positions, as published for images."""
