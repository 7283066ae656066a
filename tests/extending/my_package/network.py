"""Networks of one's own: perceptrons with SiLU, which are told the class as one of K."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from imagegen_dist.models.base import ModelConfig
from imagegen_dist.nn.conv import Linear
from imagegen_dist.shape import SampleShape


@ModelConfig.register
@dataclass(frozen=True)
class SwishConfig(ModelConfig):
    """Size of both networks."""

    units: int = 64
    """Units of the hidden layer."""
    z_dim: int = 16
    """Latent dimensions."""

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """What it offers: networks of a GAN."""
        return {"generator": Generator, "discriminator": Discriminator}


class Generator(nn.Module):
    """z [B, Z], label [B] -> samples [B, C, *S] in (-1, 1)."""

    def __init__(self, shape: SampleShape, classes: int, config: SwishConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.shape, self.classes, self.z_dim = shape, classes, config.z_dim
        self.hidden = Linear(config.z_dim + classes, config.units, bias=True, generator=generator)
        self.output = Linear(config.units, shape.numel, bias=True, generator=generator)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        hidden = nn.functional.silu(self.hidden(_with_class(z, label, self.classes)))
        return torch.tanh(self.output(hidden)).unflatten(1, self.shape.dims)


class Discriminator(nn.Module):
    """Samples [B, C, *S], label [B] -> logits [B]."""

    def __init__(self, shape: SampleShape, classes: int, config: SwishConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.classes = classes
        self.hidden = Linear(shape.numel + classes, config.units, bias=True, generator=generator)
        self.output = Linear(config.units, 1, bias=True, generator=generator)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        hidden = nn.functional.silu(self.hidden(_with_class(x.flatten(1), label, self.classes)))
        return self.output(hidden).squeeze(1)


def _with_class(x: Tensor, label: Tensor | None, classes: int) -> Tensor:
    """x [B, N] with the class appended: a label int64 [B], or weights [B, K] of a blend. Without classes, x."""
    if not classes or label is None:
        return x
    weights = label if label.is_floating_point() else one_hot(label, classes)
    return torch.cat([x, weights.to(x.dtype)], 1)
