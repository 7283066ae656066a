"""Networks of a ladder VAE: several levels of latents, each given those above it (arXiv:1602.02282).

The encoder goes up from the sample without noise and says at every level what it would have the latents be; the decoder
comes down from the highest level, says what each level is given those above, is told what the latents are, and goes on.
How both opinions become a posterior is the objective's matter. Two things differ from the paper: there is no batch
normalisation, since no sample may depend on the rest of its batch (the residual blocks start as the identity in its
place); and features go down beside the latents, so that the levels, and the sample, see all levels above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from imagegen_dist.models.base import ModelConfig
from imagegen_dist.nn.blocks import ResidualBlock
from imagegen_dist.nn.conv import ClassEmbedding, Conv, TransposedConv, append_dims
from imagegen_dist.shape import SampleShape

Choose = Callable[[int, Tensor | None], Tensor]
"""(level, raw parameters of its prior [B, 2 * Z, *s], None for the highest level, 0) to its latents [B, Z, *s]."""


class _Stage(NamedTuple):
    """Features of one resolution. extent: their positions. kernel, stride: from the stage below to this one."""

    width: int
    latents: int
    extent: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    is_vector: bool


@ModelConfig.register
@dataclass(frozen=True)
class LadderVAEConfig(ModelConfig):
    """Stages and latents of both networks. Raises ValueError where they contradict one another."""

    channels: tuple[int, ...] = (32, 64)
    """Width of every convolutional stage, from the sample's resolution down; each halves every spatial axis."""
    latents: tuple[int, ...] = (0, 4)
    """Latent channels at every position of each of these stages; 0 for none."""
    units: tuple[int, ...] = (256,)
    """Width of every fully connected stage above them."""
    vectors: tuple[int, ...] = (32,)
    """Latent dimensions of each of these stages; 0 for none."""
    blocks: int = 1
    """Residual blocks of a stage, in each direction."""

    def __post_init__(self) -> None:
        for widths, latents in (("channels", "latents"), ("units", "vectors")):
            wide, deep = getattr(self, widths), getattr(self, latents)
            if len(wide) != len(deep) or min(wide, default=1) < 1 or min(deep, default=0) < 0:
                raise ValueError(
                    f"{widths} {wide} and {latents} {deep}: a positive width and 0 or more latents for each stage, by "
                    f"--model.{widths} and --model.{latents}"
                )
        if not [*self.latents, *self.vectors] or not [*self.latents, *self.vectors][-1]:
            flag = "vectors" if self.units else "latents"
            raise ValueError(f"{flag} {getattr(self, flag)}: the highest stage needs latents, by --model.{flag}")
        if self.blocks < 1:
            raise ValueError(f"blocks {self.blocks}: at least 1, by --model.blocks")

    def stages(self, shape: SampleShape) -> list[_Stage]:
        """From the sample up. Raises ValueError where its extents cannot be halved so often."""
        factor = 2 ** len(self.channels)
        if any(extent % factor for extent in shape.spatial):
            raise ValueError(
                f"spatial shape {shape.spatial} does not divide by {factor} = 2^stages: give fewer than "
                f"{len(self.channels)} --model.channels, or samples of another size"
            )
        found, extent, one = [], shape.spatial, (1,) * shape.ndim
        for width, latents in zip(self.channels, self.latents, strict=True):
            extent = tuple(positions // 2 for positions in extent)
            found.append(_Stage(width, latents, extent, (4,) * shape.ndim, (2,) * shape.ndim, is_vector=False))
        for width, latents in zip(self.units, self.vectors, strict=True):
            found.append(_Stage(width, latents, one, extent, extent, is_vector=True))
            extent = one
        return found

    def group_dims(self, shape: SampleShape) -> tuple[tuple[int, ...], ...]:
        """Dimensions of each level's latents, the highest first: (Z,) of a vector, (Z, *s) of a map."""
        stages = [stage for stage in reversed(self.stages(shape)) if stage.latents]
        return tuple((stage.latents, *(() if stage.is_vector else stage.extent)) for stage in stages)

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """Its networks."""
        return {"ladder_encoder": Encoder, "ladder_decoder": Decoder}


def _blocks(ndim: int, stage: _Stage, count: int, total: int, generator: torch.Generator) -> nn.Sequential:
    """The residual blocks of a stage, [B, width, *s] -> same. total: blocks of the whole network."""
    kernel = tuple(3 if positions > 1 else 1 for positions in stage.extent)
    made = [ResidualBlock(ndim, stage.width, 1, 0, total, kernel, generator=generator) for _ in range(count)]
    return nn.Sequential(*made)


class _Upward(nn.Module):
    """A stage of the encoder: features of the stage below to its own [B, width, *s], and what it says of its latents.

    parameters: raw values a latent. No output where the stage has no latents.
    """

    def __init__(
        self, ndim: int, below: int, stage: _Stage, config: LadderVAEConfig, parameters: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.reduce = Conv(ndim, below, stage.width, stage.kernel, stage.stride, bias=True, generator=generator)
        total = config.blocks * (len(config.channels) + len(config.units))
        self.blocks = _blocks(ndim, stage, config.blocks, total, generator)
        self.is_vector = stage.is_vector
        self.output: Conv | None = None
        if stage.latents:
            self.output = Conv(ndim, stage.width, parameters * stage.latents, 1, bias=True, generator=generator)

    def forward(self, x: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.reduce(x)
        if embedding is not None:
            x = x + append_dims(embedding, x.ndim)
        x = self.blocks(x)
        if self.output is None:
            return x, None
        raw = self.output(x)
        return x, raw.flatten(1) if self.is_vector else raw


class Encoder(nn.Module):
    """x [B, C, *S], label int64 [B] or None -> each level's raw parameters [B, parameters · Z, *s], the highest first.

    From stage to stage a strided convolution and residual blocks, from their features a 1×1 convolution.

    classes: number of classes, 0 for none (labels are then ignored); the class embedding is added at every position of
    the first stage. parameters: values a latent, one after another along dimension 1 (mean and log-variance are 2).
    generator: draws the initial weights. Raises ValueError where the shape does not divide, or a class-conditional call
    has no labels.
    """

    def __init__(
        self, shape: SampleShape, classes: int, config: LadderVAEConfig, *, parameters: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.classes, self.group_dims = shape, classes, config.group_dims(shape)
        stages = config.stages(shape)
        self.embed = ClassEmbedding(classes, stages[0].width, generator=generator) if classes else None
        below = (shape.channels, *(stage.width for stage in stages[:-1]))
        self.stages = nn.ModuleList(
            _Upward(shape.ndim, width, stage, config, parameters, generator)
            for width, stage in zip(below, stages, strict=True)
        )

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        embedding = None if self.embed is None else self.embed(label)
        levels: list[Tensor] = []
        for stage in self.stages:
            x, raw = stage(x, embedding)
            embedding = None
            if raw is not None:
                levels.insert(0, raw)
        return tuple(levels)


class _Downward(nn.Module):
    """A stage of the decoder: features of the stage above [B, width, *s] to those of the stage below.

    level: the number of its latents from the top, None where it has none. outputs: channels of the stage below.
    """

    def __init__(
        self,
        ndim: int,
        stage: _Stage,
        level: int | None,
        outputs: int,
        config: LadderVAEConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.level, self.is_vector = level, stage.is_vector
        self.prior = self.input = None
        if level is not None:
            self.input = Conv(ndim, stage.latents, stage.width, 1, bias=True, generator=generator)
        if level:
            # Gain 0: every level's prior starts as N(0, I).
            self.prior = Conv(ndim, stage.width, 2 * stage.latents, 1, bias=True, gain=0, generator=generator)
        total = config.blocks * (len(config.channels) + len(config.units))
        self.blocks = _blocks(ndim, stage, config.blocks, total, generator)
        self.expand = TransposedConv(
            ndim, stage.width, outputs, stage.kernel, stage.stride, bias=True, generator=generator
        )
        self.ndim = ndim

    def forward(self, features: Tensor | None, choose: Choose, embedding: Tensor | None) -> Tensor:
        if self.input is not None:
            entered = self.input(self._latents(features, choose))
            features = entered if features is None else features + entered
        assert features is not None  # the highest stage has latents
        if embedding is not None:
            features = features + append_dims(embedding, features.ndim)
        return self.expand(self.blocks(features))

    def _latents(self, features: Tensor | None, choose: Choose) -> Tensor:
        """This level's latents as a map, [B, Z, *s]."""
        assert self.level is not None
        prior = None if self.prior is None else self.prior(features)
        if prior is not None and self.is_vector:
            prior = prior.flatten(1)
        return append_dims(choose(self.level, prior), self.ndim + 2)


class Decoder(nn.Module):
    """Latents, asked for level by level, label int64 [B] or None -> the likelihood's parameters [B, outputs · C, *S].

    From the highest stage down: latents enter by a 1×1 convolution and are added to the features; residual blocks; a
    transposed convolution to the stage below, where a 1×1 convolution of the features is the prior of the latents.

    choose: gives each level's latents, see Choose. outputs: values a channel of the sample. classes: as Encoder's; the
    class embedding is added to the features of the highest stage. Other arguments and errors as Encoder's.
    """

    def __init__(
        self, shape: SampleShape, classes: int, config: LadderVAEConfig, *, outputs: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.classes, self.group_dims = shape, classes, config.group_dims(shape)
        stages = config.stages(shape)
        self.embed = ClassEmbedding(classes, stages[-1].width, generator=generator) if classes else None
        below = (outputs * shape.channels, *(stage.width for stage in stages[:-1]))
        self.stages, level = nn.ModuleList(), 0
        for width, stage in zip(reversed(below), reversed(stages), strict=True):
            named = level if stage.latents else None
            self.stages.append(_Downward(shape.ndim, stage, named, width, config, generator))
            level += stage.latents > 0

    def forward(self, choose: Choose, label: Tensor | None = None) -> Tensor:
        embedding = None if self.embed is None else self.embed(label)
        features: Tensor | None = None
        for stage in self.stages:
            features = stage(features, choose, embedding)
            embedding = None
        assert features is not None
        return features
