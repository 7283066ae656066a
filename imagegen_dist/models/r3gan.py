"""R3GAN: a residual generator and its mirror image, the discriminator (arXiv:2501.05441)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from imagegen_dist.models.base import ModelConfig
from imagegen_dist.nn.blocks import LEAKY_GAIN, BiasedLeakyReLU, ResidualBlock
from imagegen_dist.nn.conv import ClassEmbedding, Conv, Linear, TransposedConv, auxiliary_classifier, scaled_normal
from imagegen_dist.nn.placement import Placement
from imagegen_dist.nn.resample import downsample, upsample
from imagegen_dist.nn.strides import Strides, check_strides, extents_upward, lowest_extent, strides_of
from imagegen_dist.shape import PerAxis, SampleShape, axes_text, per_axis


@ModelConfig.register
@dataclass(frozen=True)
class R3GANConfig(ModelConfig):
    """Widths and resolutions of both networks. Raises ValueError if they are inconsistent."""

    widths: tuple[int, ...] = (768, 768, 768, 768)
    """Channels of every stage, starting at the lowest resolution."""
    discriminator_ratio: float = 1.0
    """Channels of the discriminator's stages as a multiple of the generator's, rounded; 1 as published."""
    blocks_per_stage: int = 2
    """Residual blocks per stage."""
    discriminator_blocks: int = 0
    """Residual blocks per stage of the discriminator; 0 for as many as the generator has, as published."""
    group_channels: int = 16
    """Channels per group of the 3×3 convolutions; 0 for dense ones, which are faster on a CPU."""
    expansion: int = 2
    """Channels inside a block, as a multiple of the stage's width."""
    z_dim: int = 64
    """Latent dimensions."""
    embed_dim: int = 64
    """Dimensions of the generator's class embedding."""
    resample: Literal["fir", "box"] = "fir"
    """Resampling filter between stages: "fir" is [1, 3, 3, 1] along each axis, "box" repeats and averages."""
    patch: PerAxis = 1
    """Pixels per position of the highest stage: 8 along every axis, or 2,8,8; 1 for a stage at full resolution."""
    patch_kernel: PerAxis = 1
    """Extent in pixels of the convolution between pixels and patches: patch plus an even number along every axis."""
    pixel_channels: int = 0
    """Channels of a convolution at full resolution between pixels and patches; 0 for none, as published."""
    mapping_units: int = 0
    """Units of a hidden layer between z with the class and the generator's channel scales; 0 for none, as published."""
    head_units: int = 0
    """Units of a hidden layer over the discriminator's lowest stage; 0 for a depthwise sum, as published."""
    output: Literal["linear", "tanh"] = "linear"
    """Output function of the generator: none, as published, or tanh, which keeps flat backgrounds flat."""
    bf16_stages: int = 0
    """Highest-resolution stages computed in bfloat16; the rest and the outputs use the dtype of the weights."""
    pixel_kernel: PerAxis = 3
    """Extent in pixels of the convolution at full resolution, odd; 1,3,3 looks at each frame of a video alone."""
    convolutions: Literal["full", "factorised"] = "full"
    """3×3×3 convolutions, or factorised ones: 1×3×3 in space, then 3×1×1 along the first axis (arXiv:1711.11248)."""
    strides: tuple[str, ...] = ("2",)
    """Growth of the axes from each stage to the next: 2 doubles all axes, 1x2x2 keeps the first; one entry for all."""
    placement: Literal["none", "whole", "frames", "path"] = "none"
    """Whether the generator's drawing is shifted and scaled by functions of z and the class: no, as published; as a
    whole; as one frame, which is drawn once and placed anew in every frame of a video; or as one frame that follows a
    path, the place in the first frame and the move from each frame to the next."""
    whole_shifts: bool = False
    """Whether the placement shifts, and along a path moves, by whole pixels, so that interpolation blurs no frame more
    than others and an even motion stays even; the gradient is that of shifts between pixels (straight through,
    arXiv:1308.3432)."""
    stacked_frames: bool = False
    """Whether the discriminator sees the frames of a video as channels of one picture, as networks of optical flow do
    (arXiv:1504.06852): its first convolutions compare all frames with one another, at full resolution."""
    judged_frames: int = 0
    """Frames of a video, evenly spaced, that a second discriminator judges one by one (arXiv:1907.06571); 0 for none.
    The convolution at full resolution is then in that discriminator, and not in the one of the whole video, unless that
    one has stacked frames."""
    judged_profiles: bool = False
    """Whether two more discriminators judge a video's brightness profiles over time: its means along every column, and
    along every row, of each frame. These are pictures of time and one spatial axis, in which what moves evenly is a
    straight line and a turn is a corner."""

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths {self.widths}: give a positive width for each stage, as --model.widths 96 48")
        for name in ("blocks_per_stage", "expansion", "z_dim", "embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} {getattr(self, name)} is below 1; set --model.{name.replace('_', '-')} to 1 or more"
                )
        if self.discriminator_ratio <= 0 or min(self.discriminator_widths) < 1:
            raise ValueError(
                f"discriminator_ratio {self.discriminator_ratio:g} leaves a stage without channels; set "
                "--model.discriminator-ratio to more"
            )
        for width in (*self.widths, *self.discriminator_widths):
            if self.group_channels < 0 or (self.group_channels and width * self.expansion % self.group_channels):
                raise ValueError(
                    f"group_channels {self.group_channels}: set --model.group-channels to 0 or a divisor of width "
                    f"{width} × expansion {self.expansion}"
                )
        check_strides(self.strides, len(self.widths) - 1)
        self._check_pixels()
        for name in ("discriminator_blocks", "pixel_channels", "mapping_units", "head_units", "judged_frames"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} {getattr(self, name)} is negative; set --model.{name.replace('_', '-')} to 0 or more"
                )
        if self.resample not in ("fir", "box"):
            raise ValueError(f"resample {self.resample!r} is not known; set --model.resample to fir or box")
        if self.placement not in ("none", "whole", "frames", "path"):
            raise ValueError(
                f"placement {self.placement!r} is not known; set --model.placement to none, whole, frames or path"
            )
        if self.whole_shifts and self.placement == "none":
            raise ValueError(
                "whole_shifts without a placement; set --model.placement to whole, frames or path, or "
                "--model.whole-shifts to false"
            )
        if self.bf16_stages < 0:
            raise ValueError(f"bf16_stages {self.bf16_stages} is negative; set --model.bf16-stages to 0 or more")

    def _check_pixels(self) -> None:
        """Raise ValueError if patches or kernels at full resolution do not fit one another."""
        several = [
            len(value) for value in (self.patch, self.patch_kernel, self.pixel_kernel) if not isinstance(value, int)
        ]
        ndim = several[0] if several else 1
        patches = per_axis(self.patch, ndim)
        if min(patches) < 1:
            raise ValueError(f"patch {axes_text(self.patch)} is below 1; set --model.patch to 1 or more")
        overlaps = [k - p for k, p in zip(per_axis(self.patch_kernel, ndim), patches, strict=True)]
        if min(overlaps) < 0 or any(overlap % 2 for overlap in overlaps):
            raise ValueError(
                f"patch_kernel {axes_text(self.patch_kernel)}: set --model.patch-kernel to patch "
                f"{axes_text(self.patch)} plus an even number"
            )
        if any(extent < 1 or extent % 2 == 0 for extent in per_axis(self.pixel_kernel, ndim)):
            raise ValueError(f"pixel_kernel {axes_text(self.pixel_kernel)}: set --model.pixel-kernel to odd numbers")

    @property
    def discriminator_widths(self) -> tuple[int, ...]:
        """Channels of every stage of the discriminator, in the order of the generator's."""
        return tuple(round(width * self.discriminator_ratio) for width in self.widths)

    @property
    def as_discriminator(self) -> R3GANConfig:
        """These settings with the discriminator's widths and blocks as its own."""
        blocks = self.discriminator_blocks or self.blocks_per_stage
        return replace(
            self,
            widths=self.discriminator_widths,
            blocks_per_stage=blocks,
            discriminator_ratio=1.0,
            discriminator_blocks=0,
        )

    def base(self, shape: SampleShape) -> tuple[int, ...]:
        """Spatial extent of the lowest stage, S / (patch · strides); raises ValueError if it is not an integer."""
        if self.convolutions == "factorised" and shape.ndim != 3:
            raise ValueError(
                "--model.convolutions factorised is for videos and volumes, and the samples have "
                f"{shape.ndim} spatial axes"
            )
        for name in ("patch_kernel", "pixel_kernel"):
            per_axis(getattr(self, name), shape.ndim, f"--model.{name.replace('_', '-')}")
        return lowest_extent(
            shape,
            [per_axis(self.patch, shape.ndim, "--model.patch"), *self.steps(shape.ndim)],
            "patch × the strides between stages",
            "change the number of --model.widths, --model.strides or --model.patch",
        )

    def steps(self, ndim: int) -> list[Strides]:
        """Growth of every axis from each stage to the next, starting at the lowest."""
        return strides_of(self.strides, len(self.widths) - 1, ndim)

    def drawing(self, shape: SampleShape) -> tuple[SampleShape, R3GANConfig]:
        """The shape and the settings of what the generator draws before it is placed; one frame, if that is placed.

        Raises ValueError if samples have no frames.
        """
        return self._without(0, shape, f"placement {self.placement}") if self.places_frames else (shape, self)

    @property
    def places_frames(self) -> bool:
        """True if the generator draws one frame of a video and places it in every frame."""
        return self.placement in ("frames", "path")

    def judging(self, shape: SampleShape) -> tuple[SampleShape, R3GANConfig] | None:
        """The shape and the settings of the discriminator of single frames, None without one. Raises ValueError."""
        if not self.judged_frames:
            return None
        found = self._without(0, shape, f"judged_frames {self.judged_frames}")
        if self.judged_frames > shape.spatial[0]:
            raise ValueError(
                f"judged_frames {self.judged_frames} of {shape.spatial[0]} frames: set --model.judged-frames to fewer"
            )
        return found

    def seen_whole(self, shape: SampleShape) -> tuple[SampleShape, R3GANConfig]:
        """The shape and the settings of what the discriminator of whole samples sees. Raises ValueError."""
        if self.stacked_frames:
            frame, config = self._without(0, shape, "stacked_frames")
            return replace(frame, channels=frame.channels * shape.spatial[0]), config
        return shape, replace(self, pixel_channels=0 if self.judged_frames else self.pixel_channels)

    def profiles(self, shape: SampleShape) -> list[tuple[SampleShape, R3GANConfig]]:
        """The shapes and the settings of the discriminators of profiles: [T, W], then [T, H]; [] without.

        Raises ValueError if samples have no frames.
        """
        if not self.judged_profiles:
            return []
        return [self._without(axis, shape, "judged_profiles") for axis in _AXES_OF_FRAMES]

    def _without(self, axis: int, shape: SampleShape, setting: str) -> tuple[SampleShape, R3GANConfig]:
        """The shape of a video without one of its axes, 0 for single frames, and these settings for it."""
        if shape.ndim != 3:
            raise ValueError(f"{setting} is for videos, and the samples have {shape.ndim} spatial axes: leave it out")

        def left(values: PerAxis) -> tuple[int, ...]:
            values = per_axis(values, 3)
            return values[:axis] + values[axis + 1 :]

        strides = tuple("x".join(map(str, left(step))) for step in self.steps(3)) or self.strides
        flat = replace(
            self,
            patch=left(self.patch),
            patch_kernel=left(self.patch_kernel),
            pixel_kernel=left(self.pixel_kernel),
            strides=strides,
            convolutions="full",
            placement="none",
            whole_shifts=False,
            stacked_frames=False,
            judged_frames=0,
            judged_profiles=False,
        )
        return replace(shape, spatial=left(shape.spatial)), flat

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """Generator and discriminator."""
        return {"generator": Generator, "discriminator": Discriminator}


def _residual_blocks(
    extents: tuple[int, ...], channels: int, config: R3GANConfig, generator: torch.Generator
) -> nn.Sequential:
    """The blocks of one stage with this spatial extent and width."""
    blocks = config.blocks_per_stage * len(config.widths)
    kernel = tuple(1 if extent == 1 else 3 for extent in extents)
    factorised, ndim = config.convolutions == "factorised", len(extents)
    size = channels, config.expansion, config.group_channels, blocks, kernel, factorised
    return nn.Sequential(*(ResidualBlock(ndim, *size, generator=generator) for _ in range(config.blocks_per_stage)))


def _transition(ndim: int, channels: int, out_channels: int, generator: torch.Generator) -> nn.Module:
    """1×1 convolution if the width changes, else the identity."""
    if channels == out_channels:
        return nn.Identity()
    return Conv(ndim, channels, out_channels, 1, generator=generator)


def _linear(in_features: int, units: int, out_features: int, generator: torch.Generator) -> nn.Module:
    """A linear layer, or, with units, two linear layers around an activated hidden layer."""
    if not units:
        return Linear(in_features, out_features, generator=generator)
    hidden = Linear(in_features, units, gain=LEAKY_GAIN, generator=generator)
    return nn.Sequential(hidden, BiasedLeakyReLU(units), Linear(units, out_features, generator=generator))


def _to_pixels(ndim: int, width: int, channels: int, config: R3GANConfig, generator: torch.Generator) -> nn.Module:
    """The highest stage [B, width, *S / patch] -> samples [B, channels, *S], before the output function."""
    out_channels = config.pixel_channels or channels
    patches: nn.Module
    if set(per_axis(config.patch_kernel, ndim)) == {1}:
        patches = Conv(ndim, width, out_channels, 1, generator=generator)
    else:
        patches = TransposedConv(ndim, width, out_channels, config.patch_kernel, config.patch, generator=generator)
    if not config.pixel_channels:
        return patches
    pixels = Conv(ndim, out_channels, channels, config.pixel_kernel, generator=generator)
    return nn.Sequential(patches, BiasedLeakyReLU(out_channels), pixels)


class _FromPixels(nn.Module):
    """Samples [B, channels, *S] -> the highest stage [B, width, *S / patch]: the sum of two kinds of patches.

    Overlapping patches of the sample see strokes across patch borders; adjacent patches of features at full resolution
    see fine detail, and are a matrix product. Overlapping patches of those features too would make the whole step half
    as expensive again, without better samples (docs/LOG.md).
    """

    def __init__(
        self, ndim: int, channels: int, width: int, config: R3GANConfig, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        features = config.pixel_channels
        self.overlapping = Conv(ndim, channels, width, config.patch_kernel, stride=config.patch, generator=generator)
        self.pixels = Conv(ndim, channels, features, config.pixel_kernel, generator=generator)
        self.act = BiasedLeakyReLU(features)
        self.adjoining = Conv(ndim, features, width, config.patch, stride=config.patch, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.overlapping(x) + self.adjoining(self.act(self.pixels(x)))


_AXES_OF_FRAMES = 1, 2


def _profile(x: Tensor, axis: int) -> Tensor:
    """A video x [B, C, T, H, W] -> its means along a spatial axis, less their mean, [B, C, T, W] or [B, C, T, H].

    They are multiplied by the root of their number, so that those of independent pixels have the deviation of x: the
    means of many pixels are much alike, and a discriminator needs many more steps to tell them apart as they are.
    """
    profile = x.mean(2 + axis)
    return (profile - profile.mean((1, 2, 3), keepdim=True)) * x.shape[2 + axis] ** 0.5


class Generator(nn.Module):
    """z [B, Z], label int64 [B] or None -> samples [B, C, *S], unbounded unless the config's output is "tanh".

    A learned map at the lowest extent, whose channels are scaled by a linear function of z and the class embedding
    (optionally with a hidden layer); then for each stage [1×1 if the width changes -> a larger extent] and residual
    blocks; finally a 1×1 (or, with patches, a transposed) convolution to the sample's channels. With a placement, what
    is drawn so is then shifted and scaled, as a function of the same z and embedding.

    classes: number of classes, 0 for none (labels are then ignored). generator: draws the initial weights.
    Raises ValueError if the stages do not divide the shape, or if a class-conditional call has no labels.
    """

    def __init__(self, shape: SampleShape, classes: int, config: R3GANConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.shape, self.classes, self.z_dim = shape, classes, config.z_dim
        self.resample, self.bf16_stages = config.resample, config.bf16_stages
        self.is_bounded = config.output == "tanh"
        placing, widths = config, config.widths
        drawn, config = config.drawing(shape)
        ndim = drawn.ndim

        # The class embedding is a linear layer on a one-hot vector, with fan-in `classes`.
        self.embed = ClassEmbedding(classes, config.embed_dim, classes**-0.5, generator=generator) if classes else None
        features = config.z_dim + (config.embed_dim if classes else 0)
        self.modulate = _linear(features, config.mapping_units, widths[0], generator)
        base, self.steps = config.base(drawn), config.steps(ndim)
        self.basis = scaled_normal((widths[0], *base), 1.0, 1.0, generator)

        self.transitions = nn.ModuleList()
        self.stages = nn.ModuleList()
        extents = extents_upward(base, self.steps)
        for extent, previous, width in zip(extents, (widths[0], *widths[:-1]), widths, strict=True):
            self.transitions.append(_transition(ndim, previous, width, generator))
            self.stages.append(_residual_blocks(extent, width, config, generator))
        self.to_pixels = _to_pixels(ndim, widths[-1], shape.channels, config, generator)
        self.placement: Placement | None = None
        if placing.placement != "none":
            frames = shape.spatial[0] if placing.places_frames else 0
            moves = frames, placing.whole_shifts, placing.placement == "path"
            self.placement = Placement(drawn.spatial, features, *moves, generator=generator)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        axes = "xyz"[: self.basis.ndim - 1]  # named, since ONNX Runtime's WebGPU computes zeros of an ellipsis
        x = torch.einsum(f"bc,c{axes}->bc{axes}", self.modulate(z), self.basis)
        for index, (transition, stage) in enumerate(zip(self.transitions, self.stages, strict=True)):
            if index >= len(self.stages) - self.bf16_stages:
                x = x.to(torch.bfloat16)
            x = transition(x)
            if index:
                x = upsample(x, self.resample, self.steps[index - 1])
            x = stage(x)
        x = self.to_pixels(x).to(self.basis.dtype)
        if self.placement is not None:
            x = self.placement(x, z)
        return torch.tanh(x) if self.is_bounded else x


class Discriminator(nn.Module):
    """x [B, C, *S], label int64 [B] or None -> logits [B], the mirror image of the generator.

    A 1×1 (or, with patches, a strided) convolution from the sample's channels; for each stage residual blocks and
    [a smaller extent -> 1×1 if the width changes]; a depthwise convolution (or a dense hidden layer) over the lowest
    extent, and a linear layer to one logit or, if class-conditional, to a vector whose inner product with the class
    embedding is the logit. If the config asks for it, the frames of a video are channels of one picture to all this,
    and the mean logits of single frames and of profiles, by networks of the same kind, are added. An auxiliary
    classifier, if it has one, is linear in the values before the last layer.

    classifies: has an auxiliary classifier, if there are classes. Other arguments and errors as for Generator.
    """

    aligned_at_end = ("stages", "transitions")

    def __init__(
        self,
        shape: SampleShape,
        classes: int,
        config: R3GANConfig,
        classifies: bool = False,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        config = config.as_discriminator
        self.resample, self.bf16_stages = config.resample, config.bf16_stages
        self.stacks_frames, count, judging = config.stacked_frames, config.judged_frames, config.judging(shape)
        profiles = config.profiles(shape)
        seen, config = config.seen_whole(shape)
        ndim, widths = seen.ndim, config.widths[::-1]
        base, last = config.base(seen), widths[-1]
        self.steps = config.steps(ndim)[::-1]

        self.from_pixels: nn.Module
        if config.pixel_channels:
            self.from_pixels = _FromPixels(ndim, seen.channels, widths[0], config, generator=generator)
        else:
            self.from_pixels = Conv(
                ndim, seen.channels, widths[0], config.patch_kernel, stride=config.patch, generator=generator
            )
        self.stages = nn.ModuleList()
        self.transitions = nn.ModuleList()
        extents = extents_upward(base, self.steps[::-1])[::-1]
        for extent, width, following in zip(extents, widths, (*widths[1:], last), strict=True):
            self.stages.append(_residual_blocks(extent, width, config, generator))
            self.transitions.append(_transition(ndim, width, following, generator))
        self.reduce: nn.Module
        if config.head_units:
            hidden = Linear(last * prod(base), config.head_units, gain=LEAKY_GAIN, generator=generator)
            self.reduce = nn.Sequential(nn.Flatten(), hidden, BiasedLeakyReLU(config.head_units))
        else:
            self.reduce = Conv(ndim, last, last, base, padding=0, groups=last, generator=generator)
        self.head = Linear(config.head_units or last, last if classes else 1, generator=generator)
        # As in the generator, a linear layer on a one-hot vector, scaled down so that the projection keeps its
        # variance.
        self.embed = ClassEmbedding(classes, last, (classes * last) ** -0.5, generator=generator) if classes else None
        self.judged = [int((at + 0.5) * shape.spatial[0] / count) for at in range(count)]
        self.frames = None if judging is None else Discriminator(judging[0], classes, judging[1], generator=generator)
        self.profiles = nn.ModuleList(Discriminator(of, classes, its, generator=generator) for of, its in profiles)
        features = config.head_units or last
        self.classifier = auxiliary_classifier(features, classes if classifies else 0, generator=generator)

    def forward(self, x: Tensor, label: Tensor | None = None, classify: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """classify: return the auxiliary classifier's logits [B, classes] too."""
        seen = self._seen(x)
        logits = self._logits(seen, label)
        if self.frames is not None:
            pictures = torch.stack([x[:, :, at] for at in self.judged], 1)
            labels = None if label is None else label.repeat_interleave(len(self.judged), 0)
            of_frames = self.frames(pictures.flatten(0, 1), labels)
            logits = logits + of_frames.unflatten(0, pictures.shape[:2]).mean(1)
        for axis, judge in zip(_AXES_OF_FRAMES, self.profiles, strict=False):
            logits = logits + judge(_profile(x, axis), label) / len(self.profiles)
        if not classify:
            return logits
        assert self.classifier is not None
        return logits, self.classifier(seen)

    def _seen(self, x: Tensor) -> Tensor:
        """The values from which the last layer computes: [B, F]."""
        dtype = self.head.weight.dtype
        x = x.to(torch.bfloat16 if self.bf16_stages else dtype)
        x = self.from_pixels(x.flatten(1, 2) if self.stacks_frames else x)
        for index, (stage, transition) in enumerate(zip(self.stages, self.transitions, strict=True)):
            if index >= self.bf16_stages:
                x = x.to(dtype)
            x = stage(x)
            if index < len(self.stages) - 1:
                x = transition(downsample(x, self.resample, self.steps[index]))
        return self.reduce(x.to(dtype)).flatten(1)

    def _logits(self, seen: Tensor, label: Tensor | None) -> Tensor:
        features = self.head(seen)
        if self.embed is None:
            return features.squeeze(1)
        return (features * self.embed(label)).sum(1)

    def stages_from_input(self) -> list[list[nn.Module]]:
        """The modules of each stage, starting at the sample's resolution."""
        stages = [[stage, transition] for stage, transition in zip(self.stages, self.transitions, strict=True)]
        stages[0].insert(0, self.from_pixels)
        for judge in [*([] if self.frames is None else [self.frames]), *self.profiles]:
            stages = [[*one, *other] for one, other in zip(stages, judge.stages_from_input(), strict=True)]
        return stages
