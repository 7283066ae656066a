"""The pre-normalised residual block of autoencoders and diffusion models."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.nn.conv import Conv
from imagegen_dist.nn.layers import EVERYTHING, Layers
from imagegen_dist.nn.recompute import Recomputing


class NormResidualBlock(Recomputing):
    """s(x) + W2 a(n2(W1 a(n1(x)))): [B, C, *S] -> [B, out_channels, *S].

    W1, W2: 3×3 convolutions; n: GroupNorm; a: SiLU; s: a 1×1 convolution if the number of channels changes, else the
    identity. layers: other convolutions and normalisations.
    """

    def __init__(
        self, ndim: int, channels: int, out_channels: int, layers: Layers = EVERYTHING, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.norm1 = layers.norm(channels)
        self.conv1 = layers.conv(ndim, channels, out_channels, generator=generator)
        self.norm2 = layers.norm(out_channels)
        self.conv2 = layers.conv(ndim, out_channels, out_channels, generator=generator)
        self.shortcut: nn.Module = nn.Identity()
        if channels != out_channels:
            self.shortcut = Conv(ndim, channels, out_channels, 1, bias=True, generator=generator)

    def compute(self, x: Tensor) -> Tensor:
        """The block's result, [B, out_channels, *S]."""
        inner = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(inner)))
