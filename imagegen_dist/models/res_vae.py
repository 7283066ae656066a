"""Residual convolutional encoder and decoder of a VAE with spatial latents: the autoencoder of latent diffusion.

The default is the published KL-f8 (arXiv:2112.10752; the network is that of VQGAN, arXiv:2012.09841). Each multiplier
after the first halves every axis, or those that `strides` names: three of them are f4, six are f32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.models.base import ModelConfig
from imagegen_dist.nn.attention import SelfAttention
from imagegen_dist.nn.conv import ClassEmbedding, Conv, append_dims
from imagegen_dist.nn.layers import EVERYTHING, Layers, NormOver
from imagegen_dist.nn.norm_blocks import NormResidualBlock
from imagegen_dist.nn.resample import upsample
from imagegen_dist.nn.strides import Strides, check_strides, lowest_extent, strides_of
from imagegen_dist.nn.tiles import reach
from imagegen_dist.shape import SampleShape

_FEWEST_CHANNELS = 4
"""That a normalisation of single positions compares."""


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
    attention_over: Literal["all", "frames"] = "all"
    """Positions that attend to one another: all of a sample, or those of each frame of a video or slice of a volume."""
    norm_over: NormOver = "all"
    """What a normalisation takes statistics over: a whole sample, each of its frames, or each position by itself."""
    convolutions: Literal["full", "factorised"] = "full"
    """3×3×3 convolutions, or factorised ones: 1×3×3 in space, then 3×1×1 along the first axis (arXiv:1711.11248)."""
    causal: bool = False
    """No layer looks ahead in time, so that clips longer than trained are encoded and decoded piece by piece."""

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
        if self.norm_over == "positions" and min(self.widths) < _FEWEST_CHANNELS:
            raise ValueError(
                f"norm_over positions compares the channels of a position: set --model.channels to {_FEWEST_CHANNELS} "
                "or more"
            )
        looks_ahead = self.norm_over == "all" or (self.attention and self.attention_over == "all")
        if self.causal and looks_ahead:
            raise ValueError(
                "causal: no layer may look ahead in time; set --model.norm-over and --model.attention-over to frames"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every stage, starting at the sample's resolution."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    def base(self, shape: SampleShape) -> tuple[int, ...]:
        """Spatial extent of the latents, S / strides. Raises ValueError if it is not an integer."""
        remedy = f"give fewer than {len(self.multipliers)} --model.multipliers, or other --model.strides"
        self._check_axes(shape.ndim)
        return lowest_extent(shape, self.steps(shape.ndim), "the strides between stages", remedy)

    def _check_axes(self, ndim: int) -> None:
        """Raise ValueError if samples have no first axis to look along."""
        asked = {
            "causal true": self.causal,
            "convolutions factorised": self.convolutions == "factorised",
            "norm-over frames": self.norm_over == "frames",
            "attention-over frames": self.attention and self.attention_over == "frames",
        }
        if ndim != 3 and any(asked.values()):
            named = next(name for name, is_asked in asked.items() if is_asked)
            raise ValueError(f"--model.{named} is for videos and volumes, and the samples have {ndim} spatial axes")

    def factors(self, ndim: int) -> tuple[int, ...]:
        """Positions of a sample for each latent position, by axis."""
        steps = self.steps(ndim)
        return tuple(prod(step[axis] for step in steps) for axis in range(ndim))

    @property
    def layers(self) -> Layers:
        """The kinds of its layers."""
        return Layers(self.causal, self.convolutions == "factorised", self.norm_over)

    def steps(self, ndim: int) -> list[Strides]:
        """Strides from every stage to the next, starting at the sample's resolution."""
        return strides_of(self.strides, len(self.multipliers) - 1, ndim)

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """Encoder and decoder."""
        return {"encoder": Encoder, "decoder": Decoder}


class _Downsample(nn.Module):
    """3×3 convolution, [B, C, *S] -> [B, C, *S / strides], zero-padded at the far edges only along axes of stride 2."""

    def __init__(
        self, ndim: int, channels: int, strides: Strides, layers: Layers = EVERYTHING, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.conv = layers.conv(ndim, channels, channels, strides, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Upsample(nn.Module):
    """Nearest-neighbour upsampling, then a 3×3 convolution: [B, C, *S] -> [B, C, *S · strides]."""

    def __init__(
        self, ndim: int, channels: int, strides: Strides, layers: Layers = EVERYTHING, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.grows = strides
        self.conv = layers.conv(ndim, channels, channels, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(upsample(x, "box", self.grows))


def _stage(
    ndim: int, channels: int, width: int, blocks: int, layers: Layers, generator: torch.Generator
) -> list[nn.Module]:
    """The residual blocks of one stage: [B, channels, *S] -> [B, width, *S]."""
    inputs = (channels, *[width] * (blocks - 1))
    return [NormResidualBlock(ndim, previous, width, layers, generator=generator) for previous in inputs]


def _middle(ndim: int, channels: int, config: ResVAEConfig, generator: torch.Generator) -> nn.Sequential:
    """Two residual blocks, optionally with self-attention between them: [B, channels, *S] -> [B, channels, *S]."""
    layers = config.layers
    found: list[nn.Module] = [NormResidualBlock(ndim, channels, channels, layers, generator=generator)]
    if config.attention:
        per_frame = config.attention_over == "frames"
        found.append(SelfAttention(ndim, channels, per_frame, layers, generator=generator))
    found.append(NormResidualBlock(ndim, channels, channels, layers, generator=generator))
    return nn.Sequential(*found)


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
    factors: tuple[int, ...]
    """Sample positions for each latent position, by axis; samples of any multiple of them are encoded."""
    reach: tuple[int, ...]
    """How far a latent sees along each axis, in latent positions; () if it sees the whole sample."""

    def __init__(
        self, shape: SampleShape, classes: int, config: ResVAEConfig, *, parameters: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.latent_dims: tuple[int, ...] = (config.latent_channels, *config.base(shape))
        ndim, widths, raw = shape.ndim, config.widths, parameters * config.latent_channels
        steps, kinds = config.steps(ndim), config.layers
        layers: list[nn.Module] = [kinds.conv(ndim, shape.channels, config.channels, generator=generator)]
        for index, (previous, width) in enumerate(zip((config.channels, *widths[:-1]), widths, strict=True)):
            if index:
                layers.append(_Downsample(ndim, previous, steps[index - 1], kinds, generator=generator))
            layers += _stage(ndim, previous, width, config.blocks, kinds, generator)
        self.stages = nn.Sequential(*layers)
        self.embed = ClassEmbedding(classes, widths[-1], generator=generator) if classes else None
        self.middle = _middle(ndim, widths[-1], config, generator)
        self.norm = kinds.norm(widths[-1])
        self.output = kinds.conv(ndim, widths[-1], raw, generator=generator)
        self.quant = Conv(ndim, raw, raw, 1, bias=True, generator=generator)
        self.causal, self.factors = config.causal, config.factors(ndim)
        self.reach = reach(self, self.factors, decodes=False)

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

    factors: tuple[int, ...]
    """Sample positions for each latent position, by axis; latents of any extent are decoded."""
    reach: tuple[int, ...]
    """How far a value of a sample sees along each axis, in latent positions; () if it sees all latents."""

    def __init__(
        self, shape: SampleShape, classes: int, config: ResVAEConfig, *, outputs: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.latent_dims: tuple[int, ...] = (config.latent_channels, *config.base(shape))
        ndim, widths, latent = shape.ndim, config.widths[::-1], config.latent_channels
        steps, kinds = config.steps(ndim), config.layers
        self.quant = Conv(ndim, latent, latent, 1, bias=True, generator=generator)
        self.input = kinds.conv(ndim, latent, widths[0], generator=generator)
        self.embed = ClassEmbedding(classes, widths[0], generator=generator) if classes else None
        self.middle = _middle(ndim, widths[0], config, generator)
        layers: list[nn.Module] = []
        for index, (previous, width) in enumerate(zip((widths[0], *widths[:-1]), widths, strict=True)):
            if index:
                layers.append(_Upsample(ndim, previous, steps[-index], kinds, generator=generator))
            layers += _stage(ndim, previous, width, config.blocks + 1, kinds, generator)
        self.stages = nn.Sequential(*layers)
        self.norm = kinds.norm(widths[-1])
        self.output = kinds.conv(ndim, widths[-1], outputs * shape.channels, generator=generator)
        self.causal, self.factors = config.causal, config.factors(ndim)
        self.reach = reach(self, self.factors, decodes=True)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last layer."""
        weight = self.output.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.input(self.quant(z))
        if self.embed is not None:
            x = x + append_dims(self.embed(label), x.ndim)
        return self.output(F.silu(self.norm(self.stages(self.middle(x)))))
