"""Multi-layer perceptrons as encoder and decoder of a VAE.

The published networks are instances: the default, 784-400-40-400-784 with ReLU for 28×28 digits, and that of the
importance-weighted autoencoder (arXiv:1509.00519), `MLPVAEConfig(hidden=(200, 200), latent=50, activation="tanh")`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from imagegen_dist.models.base import ModelConfig
from imagegen_dist.nn.conv import ClassEmbedding, Linear
from imagegen_dist.nn.mlp import RELU_GAIN, mlp
from imagegen_dist.shape import SampleShape

_PYTORCH_GAIN = 3**-0.5


@ModelConfig.register
@dataclass(frozen=True)
class MLPVAEConfig(ModelConfig):
    """Widths of both networks. Raises ValueError if a field is outside its range."""

    hidden: tuple[int, ...] = (400,)
    """Units of the encoder's hidden layers, starting at the sample; the decoder uses them in reverse order."""
    latent: int = 40
    """Latent dimensions."""
    activation: Literal["relu", "tanh"] = "relu"
    """Activation after every hidden layer."""
    embed_dim: int = 32
    """Dimensions of the class embeddings of encoder and decoder."""
    init: Literal["he", "pytorch"] = "he"
    """Initial weights: normal with a variance that keeps the values' (arXiv:1502.01852), which learns faster, or with
    the smaller one of torch.nn.Linear, 1 / (3 · inputs), which overfits few samples later."""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden {self.hidden}: give the units of each hidden layer, as --model.hidden 200 200")
        for name in ("latent", "embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} {getattr(self, name)} is below 1; set --model.{name.replace('_', '-')} to 1 or more"
                )
        if self.activation not in ("relu", "tanh"):
            raise ValueError(f"activation {self.activation!r} is not known; set --model.activation to relu or tanh")
        if self.init not in ("he", "pytorch"):
            raise ValueError(f"init {self.init!r} is not known; set --model.init to he or pytorch")

    @property
    def gains(self) -> tuple[float, float]:
        """Initial gains of hidden layers and of outputs."""
        if self.init == "pytorch":
            return _PYTORCH_GAIN, _PYTORCH_GAIN
        return RELU_GAIN if self.activation == "relu" else 1.0, 1.0

    @staticmethod
    def parts() -> Mapping[str, type[nn.Module]]:
        """Encoder and decoder."""
        return {"encoder": Encoder, "decoder": Decoder}


def _hidden_layers(widths: tuple[int, ...], config: MLPVAEConfig, generator: torch.Generator) -> nn.Sequential:
    """[B, widths[0]] -> [B, widths[-1]], with the config's activation after each layer."""
    activation = nn.Tanh if config.activation == "tanh" else nn.ReLU
    return mlp(widths, activation, gain=config.gains[0], generator=generator)


class Encoder(nn.Module):
    """x [B, C, *S] in [-1, 1], label int64 [B] or None -> raw parameters of the posterior [B, parameters · Z].

    The first layer sees values in [0, 1], as in the papers: a black pixel contributes no gradient to its weights.
    classes: number of classes, 0 for none (labels are then ignored); the class embedding is concatenated to x.
    parameters: values per latent, concatenated along dimension 1 (mean and log-variance are 2).
    generator: draws the initial weights. Raises ValueError if a class-conditional call has no labels.
    """

    def __init__(
        self, shape: SampleShape, classes: int, config: MLPVAEConfig, *, parameters: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.latent_dims: tuple[int, ...] = (config.latent,)
        self.embed = ClassEmbedding(classes, config.embed_dim, generator=generator) if classes else None
        features = shape.numel + (config.embed_dim if classes else 0)
        self.hidden = _hidden_layers((features, *config.hidden), config, generator)
        outputs, gain = parameters * config.latent, config.gains[1]
        self.output = Linear(config.hidden[-1], outputs, bias=True, gain=gain, generator=generator)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        features = (x.flatten(1) + 1) / 2
        if self.embed is not None:
            features = torch.cat([features, self.embed(label)], dim=1)
        return self.output(self.hidden(features))


class Decoder(nn.Module):
    """z [B, Z], label int64 [B] or None -> raw parameters of the likelihood [B, outputs · C, *S], unbounded.

    classes: number of classes, 0 for none (labels are then ignored); the class embedding is concatenated to z.
    outputs: values per channel of the sample. Other arguments and errors as for Encoder.
    """

    def __init__(
        self, shape: SampleShape, classes: int, config: MLPVAEConfig, *, outputs: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.latent_dims: tuple[int, ...] = (config.latent,)
        self.raw_dims = (outputs * shape.channels, *shape.spatial)
        self.embed = ClassEmbedding(classes, config.embed_dim, generator=generator) if classes else None
        features = config.latent + (config.embed_dim if classes else 0)
        self.hidden = _hidden_layers((features, *config.hidden[::-1]), config, generator)
        values, gain = outputs * shape.numel, config.gains[1]
        self.output = Linear(config.hidden[0], values, bias=True, gain=gain, generator=generator)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last layer."""
        return self.output.weight

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], dim=1)
        return self.output(self.hidden(z)).unflatten(1, self.raw_dims)
