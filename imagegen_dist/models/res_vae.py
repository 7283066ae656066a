"""Residual convolutional encoder and decoder of a VAE with spatial latents: the autoencoder of latent diffusion.

The default is the published KL-f8 (arXiv:2112.10752; the network is that of VQGAN, arXiv:2012.09841). Each multiplier
after the first halves every axis, or those that `strides` names: three of them are f4, six are f32.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.models.base import ModelConfig
from imagegen_dist.nn.attention import SelfAttention
from imagegen_dist.nn.conv import ClassEmbedding, Conv, append_dims
from imagegen_dist.nn.norm import NormResidualBlock, group_norm
from imagegen_dist.nn.resample import upsample
from imagegen_dist.nn.strides import Strides, check_strides, lowest_extent, strides_of
from imagegen_dist.shape import SampleShape


@ModelConfig.register
@dataclass(frozen=True)
class ResVAEConfig(ModelConfig):
    """Stages and widths of both networks. Raises ValueError if a field is outside its range."""

    channels: int = 128
    """Base width, which `multipliers` scale."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Width of every stage in units of `channels`, starting at the sample's resolution."""
    blocks: int = 2
    """Residual blocks per stage of the encoder; the decoder has one more."""
    latent_channels: int = 4
    """Latent channels Z at every position of the lowest stage."""
    attention: bool = True
    """Self-attention over all positions in the middle of both networks."""
    strides: tuple[str, ...] = ("2",)
    """How the axes shrink from each stage to the next: 2 halves all axes, 1x2x2 keeps the first; one entry for all."""

    def __post_init__(self) -> None:
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(
                f"multipliers {self.multipliers}: give at least 1 per stage, as --model.multipliers 1 2 4 4"
            )
        for name in ("channels", "blocks", "latent_channels"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} {getattr(self, name)} is below 1; set --model.{name.replace('_', '-')} to 1 or more"
                )
        check_strides(self.strides, len(self.multipliers) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every stage, starting at the sample's resolution."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    def base(self, shape: SampleShape) -> tuple[int, ...]:
        """Spatial extent of the latents, S / strides. Raises ValueError if it is not an integer."""
        remedy = f"give fewer than {len(self.multipliers)} --model.multipliers, or other --model.strides"
        return lowest_extent(shape, self.steps(shape.ndim), "the strides between stages", remedy)

    def steps(self, ndim: int) -> list[Strides]:
        """Strides from every stage to the next, starting at the sample's resolution."""
        return strides_of(self.strides, len(self.multipliers) - 1, ndim)

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """Encoder and decoder."""
        return {"encoder": Encoder, "decoder": Decoder}


class _Downsample(nn.Module):
    """3×3 convolution, [B, C, *S] -> [B, C, *S / strides], zero-padded at the far edges only along axes of stride 2."""

    def __init__(self, ndim: int, channels: int, strides: Strides, *, generator: torch.Generator) -> None:
        super().__init__()
        near = tuple(2 - stride for stride in strides)
        self.conv = Conv(ndim, channels, channels, 3, strides, near, bias=True, generator=generator)
        self.beyond = tuple(width for stride in reversed(strides) for width in (0, stride - 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.beyond))


class _Upsample(nn.Module):
    """Nearest-neighbour upsampling, then a 3×3 convolution: [B, C, *S] -> [B, C, *S · strides]."""

    def __init__(self, ndim: int, channels: int, strides: Strides, *, generator: torch.Generator) -> None:
        super().__init__()
        self.strides = strides
        self.conv = Conv(ndim, channels, channels, 3, bias=True, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(upsample(x, "box", self.strides))


def _stage(ndim: int, channels: int, width: int, blocks: int, generator: torch.Generator) -> list[nn.Module]:
    """The residual blocks of one stage: [B, channels, *S] -> [B, width, *S]."""
    inputs = (channels, *[width] * (blocks - 1))
    return [NormResidualBlock(ndim, previous, width, generator=generator) for previous in inputs]


def _middle(ndim: int, channels: int, attention: bool, generator: torch.Generator) -> nn.Sequential:
    """Two residual blocks, optionally with self-attention between them: [B, channels, *S] -> [B, channels, *S]."""
    layers: list[nn.Module] = [NormResidualBlock(ndim, channels, channels, generator=generator)]
    if attention:
        layers.append(SelfAttention(ndim, channels, generator=generator))
    layers.append(NormResidualBlock(ndim, channels, channels, generator=generator))
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """x [B, C, *S], label int64 [B] or None -> raw parameters of the posterior [B, parameters · Z, *s].

    A 3×3 convolution; for each stage residual blocks, with smaller extents between stages; the middle; normalisation,
    SiLU, a 3×3 convolution to the parameters and a 1×1 convolution among them.

    classes: number of classes, 0 for none (labels are then ignored); the class embedding is added at every position
    before the middle. parameters: values per latent, concatenated along dimension 1 (mean and log-variance are 2).
    generator: draws the initial weights. Raises ValueError if the stages do not divide the shape, or if a
    class-conditional call has no labels.
    """

    aligned_at_end = ("stages",)

    def __init__(
        self, shape: SampleShape, classes: int, config: ResVAEConfig, *, parameters: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.latent_dims: tuple[int, ...] = (config.latent_channels, *config.base(shape))
        ndim, widths, raw = shape.ndim, config.widths, parameters * config.latent_channels
        steps = config.steps(ndim)
        layers: list[nn.Module] = [Conv(ndim, shape.channels, config.channels, 3, bias=True, generator=generator)]
        for index, (previous, width) in enumerate(zip((config.channels, *widths[:-1]), widths, strict=True)):
            if index:
                layers.append(_Downsample(ndim, previous, steps[index - 1], generator=generator))
            layers += _stage(ndim, previous, width, config.blocks, generator)
        self.stages = nn.Sequential(*layers)
        self.embed = ClassEmbedding(classes, widths[-1], generator=generator) if classes else None
        self.middle = _middle(ndim, widths[-1], config.attention, generator)
        self.norm = group_norm(widths[-1])
        self.output = Conv(ndim, widths[-1], raw, 3, bias=True, generator=generator)
        self.quant = Conv(ndim, raw, raw, 1, bias=True, generator=generator)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.stages(x)
        if self.embed is not None:
            x = x + append_dims(self.embed(label), x.ndim)
        return self.quant(self.output(F.silu(self.norm(self.middle(x)))))


class Decoder(nn.Module):
    """z [B, Z, *s], label int64 [B] or None -> raw parameters of the likelihood [B, outputs · C, *S], unbounded.

    The mirror image of the encoder: a 1×1 and a 3×3 convolution; the middle; for each stage residual blocks, with
    larger extents between stages; normalisation, SiLU and a 3×3 convolution.

    outputs: values per channel of the sample. Other arguments and errors as for Encoder.
    """

    def __init__(
        self, shape: SampleShape, classes: int, config: ResVAEConfig, *, outputs: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.latent_dims: tuple[int, ...] = (config.latent_channels, *config.base(shape))
        ndim, widths, latent = shape.ndim, config.widths[::-1], config.latent_channels
        steps = config.steps(ndim)
        self.quant = Conv(ndim, latent, latent, 1, bias=True, generator=generator)
        self.input = Conv(ndim, latent, widths[0], 3, bias=True, generator=generator)
        self.embed = ClassEmbedding(classes, widths[0], generator=generator) if classes else None
        self.middle = _middle(ndim, widths[0], config.attention, generator)
        layers: list[nn.Module] = []
        for index, (previous, width) in enumerate(zip((widths[0], *widths[:-1]), widths, strict=True)):
            if index:
                layers.append(_Upsample(ndim, previous, steps[-index], generator=generator))
            layers += _stage(ndim, previous, width, config.blocks + 1, generator)
        self.stages = nn.Sequential(*layers)
        self.norm = group_norm(widths[-1])
        self.output = Conv(ndim, widths[-1], outputs * shape.channels, 3, bias=True, generator=generator)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last layer."""
        return self.output.weight

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.input(self.quant(z))
        if self.embed is not None:
            x = x + append_dims(self.embed(label), x.ndim)
        return self.output(F.silu(self.norm(self.stages(self.middle(x)))))
