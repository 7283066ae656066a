"""How an objective registers itself, how it and its networks are built, and what its trained networks offer.

An objective is one file: a config that derives from ObjectiveConfig, and a class with the phases of its loss
(objectives/base.py). The methods of the config state what the trained networks can do: `sampler` if they generate
samples (Generates), `autoencoder` if they also encode them (objectives/variational.py, Autoencodes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.config import Extensible
from imagegen_dist.objectives.base import Objective, Randomness
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.shape import SampleShape


@dataclass(frozen=True)
class AdamConfig:
    """Adam (arXiv:1412.6980)."""

    lr: Schedule = constant(2e-4)
    """Learning rate."""
    beta1: float = 0.0
    """Decay rate of the first moment, in [0, 1)."""
    beta2: Schedule = constant(0.99)
    """Decay rate of the second moment, in [0, 1)."""
    epsilon: float = 1e-8
    """Constant added to the denominator."""

    def __post_init__(self) -> None:
        if min(self.lr.start, self.lr.end) <= 0:
            raise ValueError(f"lr {self.lr} is not positive; set --optim.<network>.lr above 0")
        if not all(0 <= beta < 1 for beta in (self.beta1, self.beta2.start, self.beta2.end)):
            raise ValueError(
                f"beta1 {self.beta1} and beta2 {self.beta2} must be in [0, 1); set --optim.<network>.beta1 and .beta2"
            )


class OptimConfig(Extensible):
    """The optimizers of an objective: a frozen dataclass with an AdamConfig for each phase, named as the phase."""


@OptimConfig.register
@dataclass(frozen=True)
class GANOptimConfig(OptimConfig):
    """One optimizer per network."""

    discriminator: AdamConfig = field(default_factory=AdamConfig)
    """Optimizer of the discriminator."""
    generator: AdamConfig = field(default_factory=AdamConfig)
    """Optimizer of the generator."""


@OptimConfig.register
@dataclass(frozen=True)
class VAEOptimConfig(OptimConfig):
    """One optimizer for encoder, decoder and likelihood."""

    autoencoder: AdamConfig = field(default_factory=lambda: AdamConfig(beta1=0.9, beta2=constant(0.999)))
    """Optimizer of encoder, decoder and likelihood."""


class Build(Protocol):
    """Builds what an objective needs, for the data and settings of one experiment."""

    @property
    def shape(self) -> SampleShape:
        """Shape of one sample."""
        ...

    @property
    def samples(self) -> int:
        """Size of the training dataset; 0 if the networks are built for inference."""
        ...

    @property
    def conditions(self) -> Conditions | None:
        """The named conditions that samples are labelled with; None for classes or no labels, and for inference."""
        ...

    def network(self, part: str, role: str = "", **settings: Any) -> nn.Module:
        """The model's network for a part (`ModelConfig.parts`), with its initial weights, on the CPU.

        role: its name in a checkpoint, if it differs from the part's. settings: further arguments of the network's
        class.
        """
        ...

    def auxiliary(self, name: str, *arguments: Any, **settings: Any) -> Any:
        """What models/ registers under this name (`models.base.auxiliary`), called with these arguments."""
        ...

    def random(self, role: str) -> torch.Generator:
        """Generator of the initial weights of a network that the objective builds itself."""
        ...

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of tensors, compiled if the experiment compiles. Gradients within it are torch.func's."""
        ...


class ObjectiveConfig(Extensible):
    """Settings of a loss: a frozen dataclass, registered by `@ObjectiveConfig.register`."""

    parts: ClassVar[tuple[str, ...]]
    """The networks that a model must offer, by interface (`ModelConfig.parts`)."""
    optimizers: ClassVar[type[OptimConfig]]
    """The class of its optimizers' settings."""
    compiled: ClassVar[tuple[str, ...]] = ()
    """Networks that may be compiled, by role: those without double backward."""
    best: ClassVar[tuple[str, ...]] = ("frechet",)
    """Metrics that select the best checkpoint: the first one that is available."""
    files: ClassVar[tuple[str, ...]] = ()
    """Settings that hold the path or URL of a file. They do not distinguish one run from another."""

    joins_microbatches: ClassVar[bool] = False
    """Whether a pass may hold several microbatches: if the loss compares samples, it keeps microbatches apart by
    `Draw.apart`. Otherwise every microbatch is a pass of its own."""

    @property
    def held_out_every(self) -> int:
        """Images seen between two measurements on held-out samples (`objectives.base.Follows`); 0 for none."""
        return 0

    @property
    def period(self) -> int:
        """Steps after which losses compute the same again: the first of them everything, the others equally less."""
        return 1

    @property
    def least_microbatch(self) -> int:
        """Smallest number of samples in a microbatch."""
        return 1

    def networks(self, build: Build) -> dict[str, nn.Module]:
        """All networks by role, with their initial weights, on the CPU."""
        return {part: build.network(part) for part in self.parts}

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> Objective:
        """The loss over networks on their device. Raises ValueError if the networks do not fit."""
        raise NotImplementedError


class Sampler(Protocol):
    """Generates samples from draws of a prior."""

    # True if the prior is Gaussian, so that draws can be scaled, shifted and interpolated.
    continuous: bool

    def modules(self) -> dict[str, nn.Module]:
        """The networks that it uses, by their names in a checkpoint."""
        ...

    def prior(self, count: int, draw: Randomness) -> Tensor:
        """Draws of the prior, [count, ...], on the device of `draw`."""
        ...

    def generate(self, drawn: Tensor, label: Tensor | None = None) -> Tensor:
        """The samples for draws of the prior, [B, C, *S] in [-1, 1]. label: [B], [B, K] or None."""
        ...


@runtime_checkable
class Generates(Protocol):
    """An objective whose trained networks generate samples."""

    def sampler(self, networks: Mapping[str, nn.Module]) -> Sampler:
        """The trained networks as a sampler."""
        ...


class GeneratorSampler:
    """A network from z [B, Z] ~ N(0, I) and labels to samples, with Z as its `z_dim`.

    truncation: the network sees truncation * z.
    """

    continuous = True

    def __init__(self, generator: nn.Module, truncation: float = 1.0) -> None:
        self._generator = generator
        self._truncation = truncation

    def modules(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self._generator}

    def prior(self, count: int, draw: Randomness) -> Tensor:
        """Latents z, [count, Z]."""
        return draw.normal(count, cast(int, self._generator.z_dim))

    def generate(self, drawn: Tensor, label: Tensor | None = None) -> Tensor:
        """The generator's samples for latents z."""
        return self._generator(drawn if self._truncation == 1 else drawn * self._truncation, label)
