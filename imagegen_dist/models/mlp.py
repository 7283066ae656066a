"""Multi-layer perceptrons: the article's generator and discriminator, and wider ones of the same form."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imagegen_dist.models.base import ModelConfig
from imagegen_dist.nn.blocks import LEAKY_GAIN, LEAKY_SLOPE
from imagegen_dist.nn.conv import ClassEmbedding, Linear, auxiliary_classifier
from imagegen_dist.shape import SampleShape


@ModelConfig.register
@dataclass(frozen=True)
class MLPConfig(ModelConfig):
    """Widths of both networks; the default is the article's. Raises ValueError if one is not positive."""

    hidden: tuple[int, ...] = (128, 128)
    """Units of every hidden layer, in both the generator and the discriminator."""
    z_dim: int = 100
    """Latent dimensions."""
    embed_dim: int = 32
    """Dimensions of the generator's class embedding."""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden {self.hidden}: give the units of each hidden layer, as --model.hidden 128 128")
        for name in ("z_dim", "embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} {getattr(self, name)} is below 1; set --model.{name.replace('_', '-')} to 1 or more"
                )

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """Generator and discriminator."""
        return {"generator": Generator, "discriminator": Discriminator}


def _hidden_layers(features: int, config: MLPConfig, generator: torch.Generator) -> nn.Sequential:
    """[B, features] -> [B, hidden[-1]]: linear layers, each followed by a leaky ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip((features, *config.hidden), config.hidden, strict=False):
        layers.append(Linear(inputs, outputs, bias=True, gain=LEAKY_GAIN, generator=generator))
        layers.append(nn.LeakyReLU(LEAKY_SLOPE))
    return nn.Sequential(*layers)


class Generator(nn.Module):
    """z [B, Z], label int64 [B] or None -> samples [B, C, *S] in (-1, 1): hidden layers, then tanh.

    classes: number of classes, 0 for none (labels are then ignored); the class embedding is concatenated to z.
    generator: draws the initial weights. Raises ValueError if a class-conditional call has no labels.
    """

    def __init__(self, shape: SampleShape, classes: int, config: MLPConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.shape, self.classes, self.z_dim = shape, classes, config.z_dim
        self.embed = ClassEmbedding(classes, config.embed_dim, generator=generator) if classes else None
        features = config.z_dim + (config.embed_dim if classes else 0)
        self.hidden = _hidden_layers(features, config, generator)
        self.output = Linear(config.hidden[-1], shape.numel, bias=True, generator=generator)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        return torch.tanh(self.output(self.hidden(z))).unflatten(1, self.shape.dims)


class Discriminator(nn.Module):
    """x [B, C, *S], label int64 [B] or None -> logits [B]: hidden layers, then a linear layer to the logit.

    A class-conditional discriminator adds the inner product of its last features and the class embedding: projection
    (arXiv:1802.05637, Eq. 3). classifies: has an auxiliary classifier, if there are classes. Other arguments and
    errors as for Generator.
    """

    def __init__(
        self,
        shape: SampleShape,
        classes: int,
        config: MLPConfig,
        classifies: bool = False,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        last = config.hidden[-1]
        self.hidden = _hidden_layers(shape.numel, config, generator)
        self.output = Linear(last, 1, bias=True, generator=generator)
        self.embed = ClassEmbedding(classes, last, last**-0.5, generator=generator) if classes else None
        self.classifier = auxiliary_classifier(last, classes if classifies else 0, generator=generator)

    def forward(self, x: Tensor, label: Tensor | None = None, classify: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """classify: return the auxiliary classifier's logits [B, classes] too."""
        features = self.hidden(x.flatten(1))
        logits = self.output(features).squeeze(1)
        if self.embed is not None:
            logits = logits + (features * self.embed(label)).sum(1)
        if not classify:
            return logits
        assert self.classifier is not None
        return logits, self.classifier(features)

    def stages_from_input(self) -> list[list[nn.Module]]:
        """The hidden layers, starting at the sample."""
        return [[layer] for layer in self.hidden if isinstance(layer, Linear)]
