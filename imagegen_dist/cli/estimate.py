"""How fast a training is, measured by a few small steps of its networks on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from imagegen_dist.cli.device import best_device
from imagegen_dist.cpu_threads import torch_threads
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.distributed import World
from imagegen_dist.experiment import Experiment, build_trainer
from imagegen_dist.prediction.counting import grey_item
from imagegen_dist.wording import counted

_MEASURED_S = 1.0
"""For how long the speed is measured."""

_WARM_STEPS = 2

PATIENCE_S = 10.0
"""For how long somebody waits at most; a step that takes longer is given up."""


@dataclass(frozen=True)
class Speed:
    """The speed of a training, without figures, pictures and waiting for data."""

    images_per_s: float
    """0 if one step takes so long that it was given up."""
    conditions: str
    """How it was measured, in words."""


class _TooSlow(Exception):
    """A step that takes longer than anybody waits."""


def estimate(experiment: Experiment, index: DatasetIndex, workers: int, threads: int) -> Speed:
    """The speed of a training on this machine. One worker is measured, of which several count as multiples.

    threads: CPU threads of a worker.
    """
    device = best_device()
    conditions = f"{device.type}, {counted(threads, 'thread')}"
    conditions += f", one worker counted {workers} times" if workers > 1 else ""
    with torch_threads(threads), experiment.training.numerics.applied():
        return Speed(workers * _measured_speed(experiment, index, device), conditions)


def _measured_speed(
    experiment: Experiment, index: DatasetIndex, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Images a second of one worker in steps of one microbatch of grey samples, over _MEASURED_S; 0 for none in time.

    A whole step of a large preset takes minutes on a CPU, as its compilation does, which is left out there.
    """
    training = experiment.training
    compiled = training.compile and device.type == "cuda"
    small = replace(training, batch_size=training.microbatch_size, compile=compiled)
    trainer = build_trainer(replace(experiment, training=small), index, World(), device)
    item = grey_item(index, len(trainer.objective.phases()), 1, training.microbatch_size)
    began, images = clock(), 0
    ended = began
    with suppress(_TooSlow), _giving_up(compiled, clock, began + PATIENCE_S):
        for step in range(1_000_000):
            trainer.step(item)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            ended = clock()
            if step < _WARM_STEPS and ended - began < _MEASURED_S:
                began, images = ended, trainer.images
            elif ended - began >= _MEASURED_S:
                break
    return (trainer.images - images) / (ended - began) if trainer.images > images else 0.0


@contextmanager
def _giving_up(compiled: bool, clock: Callable[[], float], at: float) -> Iterator[None]:
    """Raise _TooSlow where a module is called after a time. Compiled ones cannot be interrupted."""
    if compiled:
        yield
        return

    def look(*_: Any) -> None:
        if clock() > at:
            raise _TooSlow

    hook = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
