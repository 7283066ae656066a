"""VGG (arXiv:1409.1556): stacks of 3×3 convolutions, whose activations are the features of a perceptual distance."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imagegen_dist.models.base import auxiliary
from imagegen_dist.nn.conv import Conv
from imagegen_dist.nn.mlp import RELU_GAIN
from imagegen_dist.nn.resample import max_pool
from imagegen_dist.shape import SampleShape


@dataclass(frozen=True)
class VGGConfig:
    """Size of the network; the default is configuration D, VGG16, without its fully connected layers."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of every stage; the extent is halved between stages."""
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    """Convolutions per stage."""


_RANDOM_FEATURES = VGGConfig(widths=(16, 32, 64), depths=(1, 1, 1))
"""Size of a feature network with random weights."""

_RANDOM_SEED = 0


class VGG(nn.Module):
    """x [B, C, *S] -> the last activations of every stage, [B, width, *s], the first at the extent of x.

    3×3 convolutions, each followed by a ReLU, with max pooling between the stages.

    ndim: spatial axes. channels: C. generator: draws the initial weights.
    """

    def __init__(
        self, ndim: int, channels: int, config: VGGConfig | None = None, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        config = config or VGGConfig()
        self.depths = config.depths
        widths = [width for width, depth in zip(config.widths, config.depths, strict=True) for _ in range(depth)]
        self.convolutions = nn.ModuleList(
            Conv(ndim, inputs, width, 3, bias=True, gain=RELU_GAIN, generator=generator)
            for inputs, width in zip((channels, *widths[:-1]), widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        convolutions = iter(self.convolutions)
        for depth in self.depths:
            x = max_pool(x) if maps else x
            for _ in range(depth):
                x = torch.relu(next(convolutions)(x))
            maps.append(x)
        return maps


@auxiliary("random_features")
def random_features(shape: SampleShape) -> VGG:
    """A small VGG with fixed random weights, for samples [B, C, *S] in [-1, 1] with any number of spatial axes.

    The biases are N(0, 1): without them, the normalised features of a constant area would not depend on its value.
    """
    generator = torch.Generator().manual_seed(_RANDOM_SEED)
    network = VGG(shape.ndim, shape.channels, _RANDOM_FEATURES, generator=generator)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, generator=generator)
    return network
