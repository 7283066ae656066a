"""Group normalisation (arXiv:1803.08494) and the pre-normalised residual block of autoencoders and diffusion models."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.nn.conv import Conv

_MOST_GROUPS = 32
# A group of one channel at one position would always be normalised to zero.
_FEWEST_CHANNELS = 4
_EPSILON = 1e-6


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups; below 128 channels with fewer, so that each group has at least 4 channels.

    If that number does not divide the channels, the next lower divisor is used.
    """
    most = max(1, min(_MOST_GROUPS, channels // _FEWEST_CHANNELS))
    groups = next(number for number in range(most, 0, -1) if channels % number == 0)
    return nn.GroupNorm(groups, channels, eps=_EPSILON)


class NormResidualBlock(nn.Module):
    """s(x) + W2 a(n2(W1 a(n1(x)))): [B, C, *S] -> [B, out_channels, *S].

    W1, W2: 3×3 convolutions; n: GroupNorm; a: SiLU; s: a 1×1 convolution if the number of channels changes, else the
    identity.
    """

    def __init__(self, ndim: int, channels: int, out_channels: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = Conv(ndim, channels, out_channels, 3, bias=True, generator=generator)
        self.norm2 = group_norm(out_channels)
        self.conv2 = Conv(ndim, out_channels, out_channels, 3, bias=True, generator=generator)
        self.shortcut: nn.Module = nn.Identity()
        if channels != out_channels:
            self.shortcut = Conv(ndim, channels, out_channels, 1, bias=True, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(inner)))
