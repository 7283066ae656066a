"""Networks of a ladder VAE: several levels of latents, each conditioned on the levels above it (arXiv:1602.02282).

The encoder is a deterministic bottom-up pass that gives its evidence for the latents of every level. The decoder runs
top-down: at each level it gives the prior conditioned on the levels above, receives the latents, and continues. The
objective combines evidence and prior into a posterior. Two things differ from the paper. There is no batch
normalisation, since no sample may depend on the rest of its batch; instead, the residual blocks are initialised as the
identity. And deterministic features are passed down beside the latents, so that every level and the sample depend on
all levels above.
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
from imagegen_dist.nn.strides import check_strides, lowest_extent, strides_of
from imagegen_dist.shape import SampleShape

Choose = Callable[[int, Tensor | None], Tensor]
"""(level, raw parameters of its prior [B, 2 * Z, *s], or None for the highest level, 0) -> its latents [B, Z, *s]."""


class _Stage(NamedTuple):
    """Features at one resolution. extent: their positions. kernel, stride: from the stage below to this one."""

    width: int
    latents: int
    extent: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    is_vector: bool


@ModelConfig.register
@dataclass(frozen=True)
class LadderVAEConfig(ModelConfig):
    """Stages and latents of both networks. Raises ValueError if they are inconsistent."""

    channels: tuple[int, ...] = (32, 64)
    """Width of every convolutional stage, starting at the sample's resolution."""
    latents: tuple[int, ...] = (0, 4)
    """Latent channels at every position of each convolutional stage; 0 for none."""
    units: tuple[int, ...] = (256,)
    """Width of every fully connected stage above the convolutional ones."""
    vectors: tuple[int, ...] = (32,)
    """Latent dimensions of each fully connected stage; 0 for none."""
    blocks: int = 1
    """Residual blocks per stage, in each direction."""
    strides: tuple[str, ...] = ("2",)
    """How each convolutional stage shrinks the axes: 2 halves all axes, 1x2x2 keeps the first; one entry for all."""

    def __post_init__(self) -> None:
        for widths, latents in (("channels", "latents"), ("units", "vectors")):
            wide, deep = getattr(self, widths), getattr(self, latents)
            if len(wide) != len(deep) or min(wide, default=1) < 1 or min(deep, default=0) < 0:
                raise ValueError(
                    f"{widths} {wide} and {latents} {deep}: give each stage a positive width and 0 or more latents, by "
                    f"--model.{widths} and --model.{latents}"
                )
        check_strides(self.strides, len(self.channels))
        if not [*self.latents, *self.vectors] or not [*self.latents, *self.vectors][-1]:
            flag = "vectors" if self.units else "latents"
            raise ValueError(f"{flag} {getattr(self, flag)}: the highest stage needs latents, by --model.{flag}")
        if self.blocks < 1:
            raise ValueError(f"blocks {self.blocks} is below 1; set --model.blocks to 1 or more")

    def stages(self, shape: SampleShape) -> list[_Stage]:
        """The stages, from the sample up. Raises ValueError if the sample's extent cannot be shrunk so."""
        steps = strides_of(self.strides, len(self.channels), shape.ndim) if self.channels else []
        remedy = f"give fewer than {len(self.channels)} --model.channels, or other --model.strides"
        lowest_extent(shape, steps, "the strides of the stages", remedy)
        found, extent, one = [], shape.spatial, (1,) * shape.ndim
        for width, latents, step in zip(self.channels, self.latents, steps, strict=True):
            extent = tuple(positions // stride for positions, stride in zip(extent, step, strict=True))
            kernel = tuple(2 + stride for stride in step)
            found.append(_Stage(width, latents, extent, kernel, step, is_vector=False))
        for width, latents in zip(self.units, self.vectors, strict=True):
            found.append(_Stage(width, latents, one, extent, extent, is_vector=True))
            extent = one
        return found

    def group_dims(self, shape: SampleShape) -> tuple[tuple[int, ...], ...]:
        """Dimensions of each level's latents, the highest first: (Z,) for a vector, (Z, *s) for a map."""
        stages = [stage for stage in reversed(self.stages(shape)) if stage.latents]
        return tuple((stage.latents, *(() if stage.is_vector else stage.extent)) for stage in stages)

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """Encoder and decoder."""
        return {"ladder_encoder": Encoder, "ladder_decoder": Decoder}


def _blocks(ndim: int, stage: _Stage, count: int, total: int, generator: torch.Generator) -> nn.Sequential:
    """The residual blocks of a stage, [B, width, *s] -> [B, width, *s]. total: blocks in the whole network."""
    kernel = tuple(3 if positions > 1 else 1 for positions in stage.extent)
    made = [ResidualBlock(ndim, stage.width, 1, 0, total, kernel, generator=generator) for _ in range(count)]
    return nn.Sequential(*made)


class _Upward(nn.Module):
    """A stage of the encoder: features of the stage below -> its features [B, width, *s], evidence for its latents.

    parameters: raw values per latent. There is no evidence if the stage has no latents.
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

    Each stage is a strided convolution and residual blocks; a 1×1 convolution of its features gives the parameters.

    classes: number of classes, 0 for none (labels are then ignored); the class embedding is added at every position of
    the first stage. parameters: values per latent, concatenated along dimension 1 (mean and log-variance are 2).
    generator: draws the initial weights. Raises ValueError if the stages do not divide the shape, or if a
    class-conditional call has no labels.
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
    """A stage of the decoder: features of the stage above [B, width, *s] -> features of the stage below.

    level: index of its latents from the top, None if it has none. outputs: channels of the stage below.
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
            # Gain 0: every level's prior is initialised as N(0, I).
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
    """Latents, level by level, and label int64 [B] or None -> the likelihood's parameters [B, outputs · C, *S].

    From the highest stage down: a 1×1 convolution of the latents is added to the features, residual blocks follow, and
    a transposed convolution leads to the stage below, where a 1×1 convolution of the features gives the latents' prior.

    choose: gives each level's latents, see Choose. outputs: values per channel of the sample. classes: as for Encoder;
    the class embedding is added to the features of the highest stage. Other arguments and errors as for Encoder.
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
