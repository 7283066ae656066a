"""DCGAN: strided and transposed convolutions (arXiv:1511.06434), without batch normalisation.

Batch statistics would make a sample's output depend on the rest of its microbatch, and so on the number of workers.
Instead, the generator normalises each sample over all channels and positions (GroupNorm with one group), and the
discriminator is not normalised.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from imagegen_dist.models.base import ModelConfig
from imagegen_dist.nn.blocks import LEAKY_SLOPE
from imagegen_dist.nn.conv import ClassEmbedding, Conv, Linear, TransposedConv, auxiliary_classifier
from imagegen_dist.nn.placement import Placement
from imagegen_dist.nn.strides import Strides, check_strides, strides_of
from imagegen_dist.shape import SampleShape

# Standard deviation of all initial weights (arXiv:1511.06434, Sec. 4).
_INITIAL_STD = 0.02


@ModelConfig.register
@dataclass(frozen=True)
class DCGANConfig(ModelConfig):
    """Widths of both networks. Raises ValueError if one is not positive."""

    widths: tuple[int, ...] = (512, 256, 128, 64)
    """Channels of every stage, starting at the lowest resolution.

    A sample that can be halved fewer times than there are widths uses the last ones: 28×28 is halved twice, to 7×7.
    """
    z_dim: int = 100
    """Latent dimensions."""
    embed_dim: int = 64
    """Dimensions of the generator's class embedding."""
    strides: tuple[str, ...] = ("2",)
    """Growth of the axes in every stage: 2 doubles all axes, 1x2x2 keeps the first; one entry for all stages."""
    placement: Literal["none", "whole"] = "none"
    """Whether the generator's drawing is shifted and scaled by functions of z and the class: no, as published, or yes
    (arXiv:1506.02025)."""

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths {self.widths}: give a positive width for each stage, as --model.widths 256 128")
        for name in ("z_dim", "embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} {getattr(self, name)} is below 1; set --model.{name.replace('_', '-')} to 1 or more"
                )
        check_strides(self.strides, len(self.widths))
        if self.placement not in ("none", "whole"):
            raise ValueError(f"placement {self.placement!r} is not known; set --model.placement to none or whole")

    def steps(self, ndim: int) -> list[Strides]:
        """Growth of every axis in each stage, lowest resolution first."""
        return strides_of(self.strides, len(self.widths), ndim)

    def stages(self, shape: SampleShape) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Widths in use, those of the last stages, lowest resolution first, and the lowest extent, S / their strides.

        Raises ValueError if not even the last stage divides S.
        """
        extent, used = shape.spatial, 0
        for step in reversed(self.steps(shape.ndim)):
            if any(size % stride for size, stride in zip(extent, step, strict=True)):
                break
            extent = tuple(size // stride for size, stride in zip(extent, step, strict=True))
            used += 1
        if used == 0:
            raise ValueError(f"spatial shape {shape.spatial}: every axis that is halved must be even for this network")
        return self.widths[-used:], extent

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """Generator and discriminator."""
        return {"generator": Generator, "discriminator": Discriminator}


def _kernel(step: Strides) -> tuple[int, ...]:
    """4 along the axes of stride 2, 3 along the others."""
    return tuple(2 + stride for stride in step)


def _initialise_(network: nn.Module, generator: torch.Generator) -> None:
    """Initialise every weight of a convolution, linear layer or embedding from N(0, 0.02²)."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=_INITIAL_STD, generator=generator)


class Generator(nn.Module):
    """z [B, Z], label int64 [B] or None -> samples [B, C, *S] in (-1, 1).

    A linear layer to the lowest extent, then transposed convolutions of kernel 4 and stride 2, with normalisation and
    ReLU between them and tanh at the end. With a placement, what is drawn so is shifted and scaled before the tanh, as
    a function of the same z and embedding.

    classes: number of classes, 0 for none (labels are then ignored); the class embedding is concatenated to z.
    generator: draws the initial weights. Raises ValueError if an axis is odd, or if a class-conditional call has no
    labels.
    """

    def __init__(self, shape: SampleShape, classes: int, config: DCGANConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.shape, self.classes, self.z_dim = shape, classes, config.z_dim
        widths, base = config.stages(shape)
        steps = config.steps(shape.ndim)[-len(widths) :]
        self.base = (widths[0], *base)
        self.embed = ClassEmbedding(classes, config.embed_dim, generator=generator) if classes else None
        features = config.z_dim + (config.embed_dim if classes else 0)
        self.input = Linear(features, prod(self.base), generator=generator)
        layers: list[nn.Module] = []
        for width, following, step in zip(widths, (*widths[1:], shape.channels), steps, strict=True):
            layers += [nn.GroupNorm(1, width), nn.ReLU()]
            kernel = _kernel(step)
            layers.append(TransposedConv(shape.ndim, width, following, kernel, step, bias=True, generator=generator))
        self.layers = nn.Sequential(*layers)
        _initialise_(self, generator)
        self.placement: Placement | None = None  # with initial weights of its own
        if config.placement != "none":
            self.placement = Placement(shape.spatial, features, generator=generator)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        x = self.layers(self.input(z).unflatten(1, self.base))
        if self.placement is not None:
            x = self.placement(x, z)
        return torch.tanh(x)


class Discriminator(nn.Module):
    """x [B, C, *S], label int64 [B] or None -> logits [B].

    Convolutions of kernel 4 and stride 2, each followed by a leaky ReLU of slope 0.2, then a linear layer to the logit.
    A class-conditional discriminator adds the inner product of its last features and the class embedding: projection
    (arXiv:1802.05637, Eq. 3). classifies: has an auxiliary classifier, if there are classes. Other arguments and
    errors as for Generator.
    """

    aligned_at_end = ("layers",)

    def __init__(
        self,
        shape: SampleShape,
        classes: int,
        config: DCGANConfig,
        classifies: bool = False,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        widths, base = config.stages(shape)
        steps = config.steps(shape.ndim)[-len(widths) :]
        layers: list[nn.Module] = []
        for previous, width, step in zip((shape.channels, *widths[:0:-1]), widths[::-1], steps[::-1], strict=True):
            layers.append(Conv(shape.ndim, previous, width, _kernel(step), step, bias=True, generator=generator))
            layers.append(nn.LeakyReLU(LEAKY_SLOPE))
        self.layers = nn.Sequential(*layers)
        features = widths[0] * prod(base)
        self.output = Linear(features, 1, bias=True, generator=generator)
        self.embed = ClassEmbedding(classes, features, generator=generator) if classes else None
        _initialise_(self, generator)
        self.classifier = auxiliary_classifier(features, classes if classifies else 0, generator=generator)

    def forward(self, x: Tensor, label: Tensor | None = None, classify: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """classify: return the auxiliary classifier's logits [B, classes] too."""
        features = self.layers(x).flatten(1)
        logits = self.output(features).squeeze(1)
        if self.embed is not None:
            logits = logits + (features * self.embed(label)).sum(1)
        if not classify:
            return logits
        assert self.classifier is not None
        return logits, self.classifier(features)

    def stages_from_input(self) -> list[list[nn.Module]]:
        """The convolutions, starting at the sample's resolution."""
        return [[layer] for layer in self.layers if isinstance(layer, Conv)]
