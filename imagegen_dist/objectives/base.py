"""The interface between the training loop and a loss: the phases of a step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from imagegen_dist.wording import counted

Terms = Mapping[str, Tensor]
"""Detached per-sample values to log, [B] each, by slash-grouped name."""


@dataclass(frozen=True)
class Batch:
    """The real samples of one pass: those of one or several microbatches, one after another.

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


class Draw:
    """The clock and the random numbers of the microbatches of a pass.

    Each microbatch has a generator, which is a pure function of seed, images seen, phase and microbatch, and draws its
    own share of the first axis: what a sample draws does not depend on the pass that it is in.
    images: the clock, images seen by all workers before this step. step: the steps before it. generators: on the
    device of the samples.
    """

    def __init__(self, images: int, *generators: torch.Generator, step: int = 0) -> None:
        self.images = images
        self.step = step
        self.generators = generators

    @property
    def device(self) -> torch.device:
        """The device of the samples."""
        return self.generators[0].device

    def normal(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal values of the given size."""
        return self._drawn(torch.randn, size, dtype=dtype)

    def uniform(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform values on [0, 1) of the given size."""
        return self._drawn(torch.rand, size, dtype=dtype)

    def integers(self, low: int, high: int, *size: int) -> Tensor:
        """Uniform int64 values on [low, high) of the given size."""
        return self._drawn(partial(torch.randint, low, high), size)

    def apart(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The shares of each microbatch in tensors [B, ...], for a loss that compares the samples of a microbatch."""
        yield from zip(*(tensor.chunk(len(self.generators)) for tensor in tensors), strict=True)

    def each(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Apply a function to each microbatch's shares, [b, ...], and concatenate its values, [B, ...]."""
        return torch.cat([function(*shares) for shares in self.apart(*tensors)])

    def _drawn(self, draw: Callable[..., Tensor], size: tuple[int, ...], **options: Any) -> Tensor:
        if len(self.generators) == 1:
            return draw(size, generator=self.generators[0], device=self.device, **options)
        if size[0] % len(self.generators):
            raise ValueError(f"{size[0]} draws cannot be shared by {counted(len(self.generators), 'microbatch')}")
        share = (size[0] // len(self.generators), *size[1:])
        return torch.cat([draw(share, generator=each, device=self.device, **options) for each in self.generators])


@dataclass(frozen=True)
class Phase:
    """One phase of a step: the module that it updates, and the loss that it minimises.

    Phases with the same name share their optimizer: a critic trained five times per step is five equal phases.
    """

    name: str
    trains: nn.Module
    loss: Callable[[Batch, Draw], tuple[Tensor, Terms]]


class Follows(Protocol):
    """An objective that measures itself on held-out samples (`ObjectiveConfig.held_out_every`) and follows them."""

    def measure(self, batch: Batch, held_out: Batch, draw: Draw) -> Tensor:
        """M measurements of each of B training samples, and of as many held-out ones, [M, B], without gradients."""
        ...

    def follow(self, means: Tensor, batch_size: int) -> Terms:
        """Change settings by the means of all ranks' measurements, float64 [M]; returns what to log, equal on all.

        batch_size: images of a step, the least between two measurements. The state that it keeps is in `modules`.
        """
        ...


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
