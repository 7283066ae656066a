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
from imagegen_dist.shape import SampleShape


@ModelConfig.register
@dataclass(frozen=True)
class ConvVAEConfig(ModelConfig):
    """Stages and widths of both networks. Raises ValueError if they are inconsistent."""

    channels: tuple[int, ...] = (32, 32, 64, 64)
    """Channels of every stage, starting at the sample's resolution; each stage halves every spatial axis."""
    kernels: tuple[int, ...] = (4, 4, 2, 2)
    """Extent of the encoder's convolutions, even, one per stage; a single value applies to every stage."""
    hidden: tuple[int, ...] = (256,)
    """Units of the encoder's fully connected layers after the stages; the decoder uses them in reverse order."""
    latent: int = 10
    """Latent dimensions."""
    decoder_kernels: tuple[int, ...] = (4,)
    """Extent of the transposed convolution that inverts each stage, in the order of `channels`; as `kernels`."""
    embed_dim: int = 32
    """Dimensions of the class embeddings of encoder and decoder."""

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
        for name in ("kernels", "decoder_kernels"):
            kernels = getattr(self, name)
            if len(kernels) not in (1, len(self.channels)) or any(kernel < 2 or kernel % 2 for kernel in kernels):
                raise ValueError(
                    f"{name} {kernels}: give an even number of at least 2 for each of the {len(self.channels)} "
                    f"--model.channels, or one for all, by --model.{name.replace('_', '-')}"
                )

    def base(self, shape: SampleShape) -> tuple[int, ...]:
        """Spatial extent after the last stage, S / 2^stages. Raises ValueError if it is not an integer."""
        factor = 2 ** len(self.channels)
        if any(extent % factor for extent in shape.spatial):
            raise ValueError(
                f"spatial shape {shape.spatial} is not divisible by {factor} = 2^stages: "
                f"give fewer than {len(self.channels)} --model.channels, or samples of another size"
            )
        return tuple(extent // factor for extent in shape.spatial)

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """Encoder and decoder."""
        return {"encoder": Encoder, "decoder": Decoder}


def _per_stage(kernels: tuple[int, ...], stages: int) -> tuple[int, ...]:
    """One kernel per stage."""
    return kernels * stages if len(kernels) == 1 else kernels


class Encoder(nn.Module):
    """x [B, C, *S], label int64 [B] or None -> raw parameters of the posterior [B, parameters · Z].

    Convolutions of stride 2 and fully connected layers, a ReLU after each, then one linear layer.

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
        kernels = _per_stage(config.kernels, len(channels))
        layers: list[nn.Module] = []
        for previous, width, kernel in zip((shape.channels, *channels[:-1]), channels, kernels, strict=True):
            layers.append(
                Conv(shape.ndim, previous, width, kernel, stride=2, bias=True, gain=RELU_GAIN, generator=generator)
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

    The mirror image of the encoder: fully connected layers and transposed convolutions of stride 2, with ReLUs between.

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
        kernels = _per_stage(config.decoder_kernels, len(channels))[::-1]
        self.base = (channels[0], *config.base(shape))
        self.embed = ClassEmbedding(classes, config.embed_dim, generator=generator) if classes else None
        features = config.latent + (config.embed_dim if classes else 0)
        self.hidden = mlp((features, *config.hidden[::-1], prod(self.base)), generator=generator)
        layers: list[nn.Module] = []
        for width, following, kernel in zip(channels, channels[1:], kernels, strict=False):
            layers.append(
                TransposedConv(shape.ndim, width, following, kernel, 2, bias=True, gain=RELU_GAIN, generator=generator)
            )
            layers.append(nn.ReLU())
        self.stages = nn.Sequential(*layers)
        self.output = TransposedConv(
            shape.ndim, channels[-1], outputs * shape.channels, kernels[-1], 2, bias=True, generator=generator
        )

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last layer."""
        return self.output.weight

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        return self.output(self.stages(self.hidden(z).unflatten(1, self.base)))
