"""The interface between the training loop and a loss: the phases of a step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

Terms = Mapping[str, Tensor]
"""Detached per-sample values to log, [B] each, by slash-grouped name."""


@dataclass(frozen=True)
class Batch:
    """One microbatch of real samples.

    sample: float [B, C, *S] in [-1, 1]. label: int64 [B], or None if the dataset has no classes.
    """

    sample: Tensor
    label: Tensor | None


class Randomness(Protocol):
    """A source of random values: a microbatch's `Draw`, or the noise of samples (noise.py)."""

    def normal(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal values of the given size."""
        ...

    def uniform(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform values on [0, 1) of the given size."""
        ...


@dataclass(frozen=True)
class Draw:
    """The clock and the random numbers of one microbatch: a pure function of seed, images seen, phase and microbatch.

    images: the clock, images seen by all workers before this step. generator: on the device of the samples.
    """

    images: int
    generator: torch.Generator

    def normal(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal values of the given size."""
        return torch.randn(size, generator=self.generator, device=self.generator.device, dtype=dtype)

    def uniform(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform values on [0, 1) of the given size."""
        return torch.rand(size, generator=self.generator, device=self.generator.device, dtype=dtype)

    def integers(self, low: int, high: int, *size: int) -> Tensor:
        """Uniform int64 values on [low, high) of the given size."""
        return torch.randint(low, high, size, generator=self.generator, device=self.generator.device)


@dataclass(frozen=True)
class Phase:
    """One phase of a step: the module that it updates, and the loss that it minimises.

    Phases with the same name share their optimizer: a critic trained five times per step is five equal phases.
    """

    name: str
    trains: nn.Module
    loss: Callable[[Batch, Draw], tuple[Tensor, Terms]]


class Objective(Protocol):
    """A loss over one or more networks. Each phase of a step draws its own real samples."""

    def phases(self) -> Sequence[Phase]:
        """The phases of one step, in order."""
        ...

    def modules(self) -> Mapping[str, nn.Module]:
        """Every network with weights, by its name in a checkpoint."""
        ...

    def averaged(self) -> Sequence[str]:
        """The names of the networks used for inference, whose exponential moving averages are kept."""
        ...
