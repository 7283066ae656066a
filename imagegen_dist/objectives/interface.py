"""How an objective registers itself, how it and its networks are built, and what it offers once it is trained.

An objective is one file: a config that derives from ObjectiveConfig, and a class with the phases of its loss
(objectives/base.py). What its trained networks can do, the config says by the methods that it has: `sampler` where they
generate samples (Generates), `autoencoder` where they also encode them (objectives/variational.py, Autoencodes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

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
            raise ValueError(f"lr {self.lr} is not positive; set --optim.<network>.lr")
        if not all(0 <= beta < 1 for beta in (self.beta1, self.beta2.start, self.beta2.end)):
            raise ValueError(f"beta1 {self.beta1} and beta2 {self.beta2} have to lie in [0, 1)")


class OptimConfig(Extensible):
    """The optimizers of an objective: a frozen dataclass with an AdamConfig for each phase, under the phase's name."""


@OptimConfig.register
@dataclass(frozen=True)
class GANOptimConfig(OptimConfig):
    """One optimizer a network."""

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
    """Builds what an objective needs, for the data and with the settings of one experiment."""

    @property
    def shape(self) -> SampleShape:
        """Of one sample."""
        ...

    @property
    def samples(self) -> int:
        """Size of the training dataset; 0 where networks are built to be used, not trained."""
        ...

    def network(self, part: str, role: str = "", **settings: Any) -> nn.Module:
        """The model's network for a part (`ModelConfig.parts`), with its initial weights, on the CPU.

        role: the name under which a checkpoint keeps it, if that is not the part's. settings: further arguments of the
        network's class.
        """
        ...

    def auxiliary(self, name: str, *arguments: Any, **settings: Any) -> Any:
        """What models/ registers under this name (`models.base.auxiliary`), from the arguments that it takes."""
        ...

    def random(self, role: str) -> torch.Generator:
        """Draws the initial weights of a network that the objective builds itself."""
        ...

    def compiled(self, network: nn.Module) -> nn.Module:
        """The network, compiled where the experiment compiles, over the same weights: for passes that no gradient
        passes through twice.
        """
        ...


class ObjectiveConfig(Extensible):
    """Settings of a loss: a frozen dataclass, registered by `@ObjectiveConfig.register`."""

    parts: ClassVar[tuple[str, ...]]
    """The networks that a model has to offer for it, by their interfaces (`ModelConfig.parts`)."""
    optimizers: ClassVar[type[OptimConfig]]
    """The class of its optimizers' settings."""
    compiled: ClassVar[tuple[str, ...]] = ()
    """Networks that may be compiled, by their roles: those that no gradient passes through twice in a step."""
    best: ClassVar[tuple[str, ...]] = ("frechet",)
    """Figures by which the best checkpoint is kept: the first of them that can be taken."""
    files: ClassVar[tuple[str, ...]] = ()
    """Settings that hold the path or URL of a file. They do not distinguish one run from another."""

    @property
    def least_microbatch(self) -> int:
        """Samples that a microbatch needs."""
        return 1

    def networks(self, build: Build) -> dict[str, nn.Module]:
        """All networks by their roles, with their initial weights, on the CPU."""
        return {part: build.network(part) for part in self.parts}

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> Objective:
        """The loss over networks on their device. Raises ValueError where the networks do not fit."""
        raise NotImplementedError


class Sampler(Protocol):
    """Generates samples from draws of a prior."""

    # Whether the prior is Gaussian, so that draws can be scaled, moved and mixed.
    continuous: bool

    def modules(self) -> dict[str, nn.Module]:
        """The networks that it needs, by the name under which a checkpoint keeps them."""
        ...

    def prior(self, count: int, draw: Randomness) -> Tensor:
        """Draws of the prior, [count, ...], on the device of `draw`."""
        ...

    def generate(self, drawn: Tensor, label: Tensor | None = None) -> Tensor:
        """The samples to show for draws of the prior, [B, C, *S] in [-1, 1]. label: [B], [B, K] or None."""
        ...


@runtime_checkable
class Generates(Protocol):
    """An objective whose trained networks generate samples."""

    def sampler(self, networks: Mapping[str, nn.Module]) -> Sampler:
        """The trained networks as a sampler."""
        ...


class GeneratorSampler:
    """A network from z [B, Z] ~ N(0, I) and labels to samples, with Z as its `z_dim`."""

    continuous = True

    def __init__(self, generator: nn.Module) -> None:
        self._generator = generator

    def modules(self) -> dict[str, nn.Module]:
        """The generator."""
        return {"generator": self._generator}

    def prior(self, count: int, draw: Randomness) -> Tensor:
        """Latents z, [count, Z]."""
        return draw.normal(count, cast(int, self._generator.z_dim))

    def generate(self, drawn: Tensor, label: Tensor | None = None) -> Tensor:
        """Samples of latents z."""
        return self._generator(drawn, label)
