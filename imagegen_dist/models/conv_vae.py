"""Convolutional encoder and decoder of a VAE with a latent vector.

The published networks are instances: the default, of the disentanglement benchmarks (arXiv:1811.12359, for 64×64), and
that of "Understanding disentangling in β-VAE" (arXiv:1804.03599),
`ConvVAEConfig(channels=(32, 32, 32, 32), kernels=(4,), hidden=(256, 256))`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from imagegen_dist.models.base import ModelConfig
from imagegen_dist.nn.conv import ClassEmbedding, Conv, Linear, TransposedConv
from imagegen_dist.nn.mlp import RELU_GAIN, mlp
from imagegen_dist.nn.strides import Strides, check_strides, lowest_extent, strides_of
from imagegen_dist.shape import SampleShape


@ModelConfig.register
@dataclass(frozen=True)
class ConvVAEConfig(ModelConfig):
    """Stages and widths of both networks. Raises ValueError if they are inconsistent."""

    channels: tuple[int, ...] = (32, 32, 64, 64)
    """Channels of every stage, starting at the sample's resolution."""
    kernels: tuple[int, ...] = (4, 4, 2, 2)
    """Extent of the encoder's convolutions, even, one per stage or one for all; one less along axes of stride 1."""
    hidden: tuple[int, ...] = (256,)
    """Units of the encoder's fully connected layers after the stages; the decoder uses them in reverse order."""
    latent: int = 10
    """Latent dimensions."""
    decoder_kernels: tuple[int, ...] = (4,)
    """Extent of the transposed convolution that inverts each stage, in the order of `channels`; as `kernels`."""
    embed_dim: int = 32
    """Dimensions of the class embeddings of encoder and decoder."""
    strides: tuple[str, ...] = ("2",)
    """How each stage shrinks the axes: 2 halves all axes, 1x2x2 keeps the first; one entry for all stages."""

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels {self.channels}: give a positive width per stage, as --model.channels 32 64")
        if min(self.hidden, default=1) < 1:
            raise ValueError(f"hidden {self.hidden}: give positive widths, as --model.hidden 256")
        for name in ("latent", "embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} {getattr(self, name)} is below 1; set --model.{name.replace('_', '-')} to 1 or more"
                )
        check_strides(self.strides, len(self.channels))
        for name in ("kernels", "decoder_kernels"):
            kernels = getattr(self, name)
            if len(kernels) not in (1, len(self.channels)) or any(kernel < 2 or kernel % 2 for kernel in kernels):
                raise ValueError(
                    f"{name} {kernels}: give an even number of at least 2 for each of the {len(self.channels)} "
                    f"--model.channels, or one for all, by --model.{name.replace('_', '-')}"
                )

    def base(self, shape: SampleShape) -> tuple[int, ...]:
        """Spatial extent after the last stage, S / strides. Raises ValueError if it is not an integer."""
        remedy = f"give fewer than {len(self.channels)} --model.channels, or other --model.strides"
        return lowest_extent(shape, self.steps(shape.ndim), "the strides of the stages", remedy)

    def steps(self, ndim: int) -> list[Strides]:
        """Strides of every stage, starting at the sample's resolution."""
        return strides_of(self.strides, len(self.channels), ndim)

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """Encoder and decoder."""
        return {"encoder": Encoder, "decoder": Decoder}


def _per_stage(kernels: tuple[int, ...], steps: list[Strides]) -> list[tuple[int, ...]]:
    """The kernel of every stage, one less along the axes that the stage does not halve."""
    each = kernels * len(steps) if len(kernels) == 1 else kernels
    return [tuple(kernel - 2 + stride for stride in step) for kernel, step in zip(each, steps, strict=True)]


class Encoder(nn.Module):
    """x [B, C, *S], label int64 [B] or None -> raw parameters of the posterior [B, parameters · Z].

    Strided convolutions and fully connected layers, a ReLU after each, then one linear layer.

    classes: number of classes, 0 for none (labels are then ignored); the class embedding is concatenated to the
    features of the last stage. parameters: values per latent, one after another along dimension 1 (mean and
    log-variance are 2). generator: draws the initial weights. Raises ValueError if the shape does not divide, or a
    class-conditional call has no labels.
    """

    aligned_at_end = ("stages",)

    def __init__(
        self, shape: SampleShape, classes: int, config: ConvVAEConfig, *, parameters: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.latent_dims: tuple[int, ...] = (config.latent,)
        base, channels = config.base(shape), config.channels
        steps, below = config.steps(shape.ndim), (shape.channels, *channels[:-1])
        kernels = _per_stage(config.kernels, steps)
        layers: list[nn.Module] = []
        for previous, width, kernel, stride in zip(below, channels, kernels, steps, strict=True):
            layers.append(
                Conv(shape.ndim, previous, width, kernel, stride, bias=True, gain=RELU_GAIN, generator=generator)
            )
            layers.append(nn.ReLU())
        self.stages = nn.Sequential(*layers)
        self.embed = ClassEmbedding(classes, config.embed_dim, generator=generator) if classes else None
        features = channels[-1] * prod(base) + (config.embed_dim if classes else 0)
        widths = (features, *config.hidden)
        self.hidden = mlp(widths, generator=generator)
        self.output = Linear(widths[-1], parameters * config.latent, bias=True, generator=generator)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.stages(x).flatten(1)
        if self.embed is not None:
            features = torch.cat([features, self.embed(label)], dim=1)
        return self.output(self.hidden(features))


class Decoder(nn.Module):
    """z [B, Z], label int64 [B] or None -> raw parameters of the likelihood [B, outputs · C, *S], unbounded.

    The mirror image of the encoder: fully connected layers and transposed convolutions, with ReLUs between.

    classes: number of classes, 0 for none (labels are then ignored); the class embedding is concatenated to z.
    outputs: values per channel of the sample. Other arguments and errors as for Encoder.
    """

    def __init__(
        self, shape: SampleShape, classes: int, config: ConvVAEConfig, *, outputs: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.latent_dims: tuple[int, ...] = (config.latent,)
        channels = config.channels[::-1]
        steps = config.steps(shape.ndim)[::-1]
        kernels = _per_stage(config.decoder_kernels, steps[::-1])[::-1]
        self.base = (channels[0], *config.base(shape))
        self.embed = ClassEmbedding(classes, config.embed_dim, generator=generator) if classes else None
        features = config.latent + (config.embed_dim if classes else 0)
        self.hidden = mlp((features, *config.hidden[::-1], prod(self.base)), generator=generator)
        layers: list[nn.Module] = []
        for width, following, kernel, stride in zip(channels, channels[1:], kernels, steps, strict=False):
            layers.append(
                TransposedConv(
                    shape.ndim, width, following, kernel, stride, bias=True, gain=RELU_GAIN, generator=generator
                )
            )
            layers.append(nn.ReLU())
        self.stages = nn.Sequential(*layers)
        self.output = TransposedConv(
            shape.ndim, channels[-1], outputs * shape.channels, kernels[-1], steps[-1], bias=True, generator=generator
        )

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last layer."""
        return self.output.weight

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        return self.output(self.stages(self.hidden(z).unflatten(1, self.base)))
