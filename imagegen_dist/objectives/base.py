"""What the training loop asks of a loss: phases to take turns, and nothing else."""

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

    sample: float [B, C, *S] in [-1, 1]. label: int64 [B], or None where the dataset has no classes.
    """

    sample: Tensor
    label: Tensor | None


class Randomness(Protocol):
    """What random values are drawn from: a microbatch's `Draw`, or the noise of samples (noise.py)."""

    def normal(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal values of the given size."""
        ...

    def uniform(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values uniform on [0, 1) of the given size."""
        ...


@dataclass(frozen=True)
class Draw:
    """The time and the randomness of one microbatch: a pure function of seed, images seen, phase and microbatch.

    images: the clock, global images seen before this step. generator: on the device of the samples.
    """

    images: int
    generator: torch.Generator

    def normal(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal values of the given size."""
        return torch.randn(size, generator=self.generator, device=self.generator.device, dtype=dtype)

    def uniform(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values uniform on [0, 1) of the given size."""
        return torch.rand(size, generator=self.generator, device=self.generator.device, dtype=dtype)

    def integers(self, low: int, high: int, *size: int) -> Tensor:
        """int64 values uniform on [low, high) of the given size."""
        return torch.randint(low, high, size, generator=self.generator, device=self.generator.device)


@dataclass(frozen=True)
class Phase:
    """One turn of a step: the module that it updates, and the loss that it minimises.

    Phases of one name share their optimizer: a critic trained five times a step is five equal phases.
    """

    name: str
    trains: nn.Module
    loss: Callable[[Batch, Draw], tuple[Tensor, Terms]]


class Objective(Protocol):
    """A loss over one or several networks. Every phase of a step draws real samples of its own."""

    def phases(self) -> Sequence[Phase]:
        """The turns of one step, in order."""
        ...

    def modules(self) -> Mapping[str, nn.Module]:
        """Every network with weights, by the name under which a checkpoint keeps it."""
        ...

    def averaged(self) -> Sequence[str]:
        """The names of the networks that inference needs: their exponential moving averages are kept."""
        ...
