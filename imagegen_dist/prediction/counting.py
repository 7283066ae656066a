"""FLOPs, traffic and memory of a training step, counted operator by operator.

The step is the trainer's own. On fake tensors it computes nothing and takes no memory; on real ones the same counts are
measurements. A FLOP is a multiplication or an addition, so that a multiply-add is two.
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.reader import Item, empty_labels
from imagegen_dist.distributed import World
from imagegen_dist.experiment import Experiment, build_trainer
from imagegen_dist.models.base import AUXILIARY
from imagegen_dist.models.lpips import untrained_lpips

_aten = torch.ops.aten


class Kernel(NamedTuple):
    """What one operator does: FLOPs, in which type, and bytes of its inputs and outputs."""

    flops: int
    dtype: torch.dtype
    bytes: int


@dataclass(frozen=True)
class StepCount:
    """What one worker's share of a step does.

    images: those of its microbatches. draws: samples that are read for each of them. kernels: how often each kind of
    kernel runs, on average where steps differ (`ObjectiveConfig.period`); the rest is of the largest step. operators:
    calls, those that only make views included. state_bytes: weights, gradients, averages, optimizers' states and the
    step's samples. peak_bytes: the largest sum of all tensors' bytes. turns: bytes of the gradients of each phase in
    its turn. networks: bytes of each trained network's gradients.
    """

    images: int
    draws: int
    kernels: Mapping[Kernel, float]
    operators: int
    convolutions: int
    state_bytes: int
    peak_bytes: int
    turns: tuple[int, ...]
    networks: Mapping[str, int]

    @property
    def flops(self) -> int:
        """FLOPs of the step."""
        return round(sum(kernel.flops * times for kernel, times in self.kernels.items()))

    @property
    def launches(self) -> int:
        """Kernels that a GPU would be asked to run."""
        return round(sum(self.kernels.values()))


def count_step(
    experiment: Experiment,
    index: DatasetIndex,
    images: int,
    fake: bool = True,
    watch: AbstractContextManager[Any] | None = None,
) -> StepCount:
    """Count one step of one pass of `images` images, halfway through the run, without compilation.

    The pass holds several microbatches where the objective joins them, else one of that size. Gradients, optimizers and
    averages are there, as after other steps. fake: False takes the step on real tensors. watch: surrounds the step.
    Raises ValueError where the networks do not fit the samples.
    """
    size = experiment.training.microbatch_size
    joined = experiment.objective.joins_microbatches and images % size == 0
    training = replace(
        experiment.training,
        batch_size=images,
        microbatch_size=size if joined else images,
        pass_images=images if joined else 0,
        compile=False,
    )
    counter, period = OperatorCounter(), experiment.objective.period
    with _fake_tensors() if fake else nullcontext(), counter, _untrained_auxiliaries():
        trainer = build_trainer(replace(experiment, training=training), index, World(), torch.device("cpu"))
        trainer.images = halfway(experiment, images)
        for optimizer in trainer.optimizers.values():
            optimizer.begin_()
            for weight in optimizer.parameters:
                weight.grad = torch.zeros_like(weight)
        batching = training.batching
        item = grey_item(index, len(trainer.objective.phases()), batching.microbatches, batching.microbatch_size)
        with counter.counting(), watch or nullcontext():
            trainer.step(item)
        kernels: Mapping[Kernel, float] = counter.kernels
        operators, convolutions = counter.operators, counter.convolutions
        state_bytes, peak_bytes = counter.state_bytes, counter.peak_bytes
        if period > 1:
            kernels = _mean_of_period(kernels, counter, period, lambda: trainer.step(item))
    phases = trainer.objective.phases()
    networks = {phase.name: sum(map(_bytes_of, phase.trains.parameters())) for phase in phases}
    return StepCount(
        images=images,
        draws=len(phases),
        kernels=kernels,
        operators=operators,
        convolutions=convolutions,
        state_bytes=state_bytes,
        peak_bytes=peak_bytes,
        turns=tuple(networks[phase.name] for phase in phases),
        networks=networks,
    )


def halfway(experiment: Experiment, batch_size: int) -> int:
    """Images seen halfway through a run, where the largest step of a period is next (`ObjectiveConfig.period`)."""
    images = experiment.training.total_images // 2
    return images - images % (batch_size * experiment.objective.period)


def _mean_of_period(
    first: Mapping[Kernel, float], counter: OperatorCounter, period: int, take_step: Callable[[], None]
) -> dict[Kernel, float]:
    """Kernels of a step of which one in `period` is as the first, and the others as the one that is taken here."""
    counter.kernels = Counter()
    with counter.counting():
        take_step()
    return {
        kernel: (first.get(kernel, 0) + (period - 1) * counter.kernels[kernel]) / period
        for kernel in {**first, **counter.kernels}
    }


def grey_item(index: DatasetIndex, draws: int, microbatches: int, images: int) -> Item:
    """A step's samples, [draws, microbatches, images, C, *S], all grey, of class 0 or with conditions of zeros."""
    kind = torch.uint16 if index.shape.bits == 16 else torch.uint8
    sample = torch.full((draws, microbatches, images, *index.shape.dims), index.shape.levels // 2, dtype=kind)
    numbers = torch.zeros(draws, microbatches, images, dtype=torch.int64)
    label: torch.Tensor | None = None
    if index.labels is not None:
        label = torch.from_numpy(empty_labels(index, numbers.numel())).zero_().unflatten(0, tuple(numbers.shape))
    return Item(0, sample, label, numbers, {}, [])


@contextmanager
def _fake_tensors() -> Iterator[None]:
    """New tensors have a shape, a type and a device, and no memory.

    Modules stay on the device where they are made: torch cannot move those of fake tensors.
    """
    with (
        warnings.catch_warnings(),
        patch.object(nn.Module, "to", lambda module, *_, **__: module),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        # copy.deepcopy of a module asks each tensor whether it has memory.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor", UserWarning)
        yield


@contextmanager
def _untrained_auxiliaries() -> Iterator[None]:
    """LPIPS with drawn weights in place of those of a file, which do not change what is counted."""
    given = AUXILIARY["lpips"]
    AUXILIARY["lpips"] = untrained_lpips
    try:
        yield
    finally:
        AUXILIARY["lpips"] = given


class OperatorCounter(TorchDispatchMode):
    """Counts the operators of a block, and the bytes of all tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[Kernel] = Counter()
        self.operators = self.convolutions = self.state_bytes = self.peak_bytes = 0
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._bytes = 0
        self._counts = False

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what happens within the block."""
        self.state_bytes = self.peak_bytes = self._bytes
        self._counts = True
        yield
        self._counts = False

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), settings: dict[str, Any] | None = None
    ) -> Any:
        settings = settings or {}
        result = function(*arguments, **settings)
        self.operators += self._counts
        if _only_views(function):
            return result
        made = [value for value in tree_iter(result) if isinstance(value, Tensor)]
        for tensor in made:
            self._hold(tensor)
        if self._counts:
            self._add(function, arguments, settings, result, made)
        return result

    def _add(self, function: Any, arguments: Any, settings: dict[str, Any], result: Any, made: list[Tensor]) -> None:
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        if function is _aten.empty.memory_format:
            return
        taken = [value for value in tree_iter((arguments, settings)) if isinstance(value, Tensor)]
        flops = _flops(function, arguments, settings, result)
        self.convolutions += function.overloadpacket in (_aten.convolution, _aten.convolution_backward)
        dtype = taken[0].dtype if flops else torch.float32
        self.kernels[Kernel(flops, dtype, sum(map(_traffic, taken)) + sum(map(_traffic, made)))] += 1

    def _hold(self, tensor: Tensor) -> None:
        """Count a tensor's memory until it is given back."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = storage.nbytes()

        def forget(_: Any) -> None:
            self._bytes -= self._alive.pop(key)[1]

        self._alive[key] = weakref.ref(storage, forget), size
        self._bytes += size


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _traffic(tensor: Tensor) -> int:
    """Bytes that a kernel reads or writes: an expanded tensor's are those of its memory."""
    return min(_bytes_of(tensor), tensor.untyped_storage().nbytes())


@cache
def _only_views(function: Any) -> bool:
    """True if an operator computes nothing: its results are views of what it takes."""
    returns = function._schema.returns
    aliases = bool(returns) and all(each.alias_info is not None and not each.alias_info.is_write for each in returns)
    return aliases or function is _aten._unsafe_view.default


def _flops(function: Any, arguments: Any, settings: dict[str, Any], result: Any) -> int:
    packet = function.overloadpacket
    if packet is _aten.convolution:
        return _convolution(arguments[1], result if not arguments[6] else arguments[0])
    if packet is _aten.convolution_backward:
        gradient, x, weight, *_, mask = arguments
        return _convolution(weight, x if arguments[7] else gradient) * (bool(mask[0]) + bool(mask[1]))
    return int(flop_registry[packet](*arguments, **settings, out_val=result)) if packet in flop_registry else 0


def _convolution(weight: Tensor, positions: Tensor) -> int:
    """FLOPs of a convolution, forward or for one gradient: two for each weight that meets each position.

    weight: [O, I / groups, *K], or [I, O / groups, *K] where it is transposed. positions: [B, C, *S], the smaller side:
    the output, or the input of a transposed one.
    """
    return 2 * positions.shape[0] * prod(positions.shape[2:]) * weight.numel()
