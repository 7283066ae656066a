"""The R3GAN residual block and its activation (arXiv:2501.05441)."""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.nn.casting import cast_weight
from imagegen_dist.nn.conv import Conv, append_dims
from imagegen_dist.nn.factorised import FactorisedConv
from imagegen_dist.nn.recompute import Recomputing
from imagegen_dist.shape import PerAxis, per_axis

LEAKY_SLOPE = 0.2
# Gain that preserves the variance through a leaky ReLU: sqrt(2 / (1 + slope²)).
LEAKY_GAIN = sqrt(2 / (1 + LEAKY_SLOPE**2))


class BiasedLeakyReLU(nn.Module):
    """Learned per-channel bias, initialised to 0, followed by LeakyReLU(0.2): [B, C, *S] -> [B, C, *S]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        bias = append_dims(cast_weight(self.bias, x.dtype), x.ndim - 1)
        return F.leaky_relu(x + bias, LEAKY_SLOPE)

    def after(self, conv: nn.Module, x: Tensor) -> Tensor:
        """self(conv(x)), with the bias added by the convolution, which saves a pass over its result."""
        return F.leaky_relu(conv(x, self.bias), LEAKY_SLOPE)

    def extra_repr(self) -> str:
        return str(len(self.bias))


class ResidualBlock(Recomputing):
    """x + W3 a(Wg a(W1 x)): 1×1 to expansion · C channels, grouped 3×3, 1×1 back; [B, C, *S] -> [B, C, *S].

    group_channels: channels per group of Wg; 0 for a dense convolution.
    blocks: number L of residual blocks in the whole network. W1 and Wg are scaled by L^(-1/4), and W3 is initialised to
    0, so that the block starts as the identity (Fixup, arXiv:1901.09321). No normalisation. (arXiv:2501.05441)
    kernel: extent of Wg; 1 along an axis with a single position, where a larger kernel would only see padding.
    factorised: over three axes, Wg is one convolution in space, an activation, and one along the first axis.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        expansion: int,
        group_channels: int,
        blocks: int,
        kernel: PerAxis = 3,
        factorised: bool = False,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        inner = expansion * channels
        kernels = per_axis(kernel, ndim)
        factorised = factorised and kernels[0] > 1
        # Of m layers, the last of which is 0, each is scaled by L^(-1 / (2m - 2)).
        gain = LEAKY_GAIN * blocks ** (-1 / 6 if factorised else -1 / 4)
        groups = inner // group_channels if group_channels else 1
        self.expand = Conv(ndim, channels, inner, 1, gain=gain, generator=generator)
        self.act1 = BiasedLeakyReLU(inner)
        if factorised:
            in_space, in_time = (1, *kernels[1:]), (kernels[0], *[1] * (ndim - 1))
            space = Conv(ndim, inner, inner, in_space, groups=groups, gain=gain, generator=generator)
            time = Conv(ndim, inner, inner, in_time, groups=groups, gain=gain, generator=generator)
            self.mix: nn.Module = FactorisedConv(space, BiasedLeakyReLU(inner), time)
        else:
            self.mix = Conv(ndim, inner, inner, kernel, groups=groups, gain=gain, generator=generator)
        self.act2 = BiasedLeakyReLU(inner)
        self.project = Conv(ndim, inner, channels, 1, gain=0, generator=generator)

    def compute(self, x: Tensor) -> Tensor:
        """The block's result, [B, C, *S]."""
        return x + self.project(self.act2.after(self.mix, self.act1.after(self.expand, x)))
