"""PatchGAN: a discriminator of overlapping patches (arXiv:1611.07004), used to train autoencoders (arXiv:2012.09841).

The published one uses batch normalisation, which would make a sample's logits depend on the rest of its microbatch, and
so on the number of workers. Here nothing is normalised, and each logit is a function of its own patch.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from imagegen_dist.models.base import auxiliary
from imagegen_dist.nn.blocks import LEAKY_GAIN, LEAKY_SLOPE
from imagegen_dist.nn.conv import Conv
from imagegen_dist.shape import SampleShape

_KERNEL = 4
# Minimum extent of an axis that a layer of stride 2, or of stride 1, shortens.
_SHORTEST = {2: 4, 1: 3}
# Largest width, in units of the first layer's channels.
_WIDEST = 8


@dataclass(frozen=True)
class PatchDiscriminatorConfig:
    """Size of the discriminator. Raises ValueError if a field is outside its range."""

    channels: int = 64
    """Channels of the first layer; they double with each further layer, up to eight times as many."""
    layers: int = 3
    """Layers of stride 2; a patch is 16, 34, 70, 142, ... positions wide with 1, 2, 3, 4, ... layers."""

    def __post_init__(self) -> None:
        for name in ("channels", "layers"):
            if getattr(self, name) < 1:
                flag = f"--objective.discriminator-{name}"
                raise ValueError(f"discriminator_{name} {getattr(self, name)} is below 1; set {flag} to 1 or more")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the layers of stride 2, followed by those of the layer of stride 1."""
        return tuple(self.channels * min(2**layer, _WIDEST) for layer in range(self.layers + 1))


@auxiliary("patch_discriminator")
def build_patch_discriminator(
    shape: SampleShape, *, channels: int, layers: int, generator: torch.Generator
) -> "PatchDiscriminator":
    """A discriminator of this size for samples of this shape."""
    return PatchDiscriminator(shape, PatchDiscriminatorConfig(channels, layers), generator=generator)


class PatchDiscriminator(nn.Module):
    """x [B, C, *S] -> logits [B, 1, *s], one per patch.

    Convolutions of kernel 4: `layers` of stride 2 and one of stride 1, each followed by a leaky ReLU of slope 0.2, then
    one of stride 1 to the logit. Along an axis of fewer than 4 positions (stride 1: fewer than 3) the kernel is 3,
    along an axis of a single position 1, and the extent is preserved.

    generator: draws the initial weights.
    """

    def __init__(
        self, shape: SampleShape, config: PatchDiscriminatorConfig | None = None, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape = shape
        config = config or PatchDiscriminatorConfig()
        strides = (*[2] * config.layers, 1)
        layers: list[nn.Module] = []
        channels, extents = shape.channels, shape.spatial
        for width, stride in zip(config.widths, strides, strict=True):
            conv, extents = _convolution(channels, width, extents, stride, LEAKY_GAIN, generator)
            layers += [conv, nn.LeakyReLU(LEAKY_SLOPE)]
            channels = width
        output, extents = _convolution(channels, 1, extents, 1, 1.0, generator)
        self.layers = nn.Sequential(*layers)
        self.output = output
        self.patches = prod(extents)
        """Number of logits per sample."""

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layers(x))

    def stages_from_input(self) -> list[list[nn.Module]]:
        """The convolutions before the output, starting at the sample's resolution."""
        return [[layer] for layer in self.layers if isinstance(layer, Conv)]


def _convolution(
    channels: int, width: int, extents: tuple[int, ...], stride: int, gain: float, generator: torch.Generator
) -> tuple[Conv, tuple[int, ...]]:
    """(a layer for samples of these extents, the extents of its output)."""
    axes = [_along_axis(extent, stride) for extent in extents]
    kernels, strides, paddings = (tuple(axis[part] for axis in axes) for part in range(3))
    conv = Conv(len(extents), channels, width, kernels, strides, paddings, bias=True, gain=gain, generator=generator)
    sizes = zip(extents, axes, strict=True)
    return conv, tuple((extent + 2 * padding - kernel) // by + 1 for extent, (kernel, by, padding) in sizes)


def _along_axis(extent: int, stride: int) -> tuple[int, int, int]:
    """(kernel, stride, padding) along an axis of this extent."""
    if extent >= _SHORTEST[stride]:
        return _KERNEL, stride, 1
    return (1, 1, 0) if extent == 1 else (3, 1, 1)
