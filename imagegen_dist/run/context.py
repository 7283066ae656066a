"""What a run is prepared with before its first step, and its interface to whoever started it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.order import Plan
from imagegen_dist.data.stream import check_cache, prepare_loaders
from imagegen_dist.decoding.decoder import LatentDecoder
from imagegen_dist.decoding.pictures import Decoding
from imagegen_dist.distributed import Stopped, World, said, together
from imagegen_dist.evaluation.engine import CHUNK
from imagegen_dist.evaluation.evaluator import Evaluator
from imagegen_dist.experiment import Experiment, build_plan, build_trainer, conditioning
from imagegen_dist.metrics.stopwatch import Stopwatch
from imagegen_dist.objectives.interface import Generates
from imagegen_dist.prediction.sampling import chunks_at_once
from imagegen_dist.records import RunSettings
from imagegen_dist.run.held_out import check_measured
from imagegen_dist.run.latents import compared
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import Checkpoint
from imagegen_dist.training.loop import Trainer
from imagegen_dist.wording import counted

Result = TypeVar("Result")


class RunError(RuntimeError):
    """A run that cannot continue: one line that says why."""


class Events(Protocol):
    """The interface to whoever started the run."""

    def row(self, row: dict[str, float]) -> None:
        """Receive a row of metrics; called on rank 0 only."""
        ...

    def message(self, text: str) -> None:
        """Receive a message for the user; called on any rank."""
        ...

    def stop_requested(self) -> bool:
        """True if this rank has been asked to stop; called on all ranks together."""
        ...

    def interrupted(self) -> bool:
        """True if this rank knows that it has been asked to stop; called on any rank by itself, at any time."""
        ...

    def checkpoint(self, published: Callable[[], Checkpoint | None]) -> None:
        """A checkpoint is being written; `published` waits for it. Called on rank 0 only."""
        ...


class SilentEvents:
    """Events of a run that nobody follows: ignores all, and never stops it."""

    def row(self, row: dict[str, float]) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def stop_requested(self) -> bool:
        return False

    def interrupted(self) -> bool:
        return False

    def checkpoint(self, published: Callable[[], Checkpoint | None]) -> None:
        pass


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    images: images seen at the end. complete: False if it was stopped early on request. missing: why metrics of the
    trained model are missing; empty if they are not.
    """

    images: int
    complete: bool
    missing: str = ""


@dataclass(frozen=True)
class Context:
    """A rank's view of a run: its settings, its data and its trainer.

    training: the training samples. held_out: held-out samples, if there are any. folder: the run's directory. decoder:
    of the samples, if they are latents.
    """

    experiment: Experiment
    settings: RunSettings
    world: World
    device: torch.device
    events: Events
    folder: Store
    training: Dataset
    held_out: Dataset | None
    trainer: Trainer
    plan: Plan
    evaluator: Evaluator
    stopwatch: Stopwatch
    decoder: LatentDecoder | None = None

    @property
    def ended(self) -> bool:
        """True if all steps of the run have been taken."""
        return self.trainer.step_index >= self.experiment.training.steps

    def on_main(self, failure: str, action: Callable[[], Result]) -> Result | None:
        """Run an optional action on rank 0 while all ranks wait; None on other ranks, and if it fails.

        failure: what is missing if the action fails, for the message. Raises Stopped on all ranks if rank 0 was asked
        to stop meanwhile.
        """

        def guarded() -> Result | None:
            return self._guarded(failure, action) if self.world.is_main else None

        return together(guarded, self.world, self.device)

    def _guarded(self, failure: str, action: Callable[[], Result]) -> Result | None:
        try:
            return action()
        except Stopped:
            raise
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            self.events.message(f"{failure} at {self.trainer.images:,} images: {said(error)}; the run continues")
            return None


def prepare(
    experiment: Experiment,
    settings: RunSettings,
    world: World,
    device: torch.device,
    events: Events,
    clock: Callable[[], float],
) -> Context:
    """Open the data and build the trainer at its first step. Raises ValueError and the errors of storage and data."""

    def stop_if_interrupted() -> None:
        if events.interrupted():
            raise Stopped

    prepare_loaders(Store(settings.data), experiment.data)
    training = Dataset.open(settings.data, experiment.data)
    held_out = Dataset.open(settings.validation, experiment.data) if settings.validation else None
    check_measured(experiment, training.index, held_out.index if held_out else None)
    trainer = build_trainer(experiment, training.index, world, device)
    plan = build_plan(experiment, training.index, len(trainer.objective.phases()))
    held_out = None
    if settings.validation:
        held_out = Dataset.open(settings.validation, experiment.data).told_as(training.index.known_conditions)
    shown = compared(
        experiment, (training, settings.data), (held_out, settings.validation), world, device, events.message
    )
    evaluator = Evaluator(
        trainer.averages.modules(),
        experiment,
        shown.training,
        shown.held_out,
        settings.shared,
        replace(world, heed=stop_if_interrupted),
        device,
        events.message,
        _chunks_at_once(experiment, trainer, training, device, shown.decoding),
        shown.decoding,
    )
    node = world.share_of_node(plan.microbatches)
    check_cache(training.index, training.store, plan, node, experiment.data.cache)
    return Context(
        experiment,
        settings,
        world,
        device,
        events,
        settings.folder,
        training,
        held_out,
        trainer,
        plan,
        evaluator,
        Stopwatch(clock),
        shown.decoder,
    )


def _chunks_at_once(
    experiment: Experiment, trainer: Trainer, data: Dataset, device: torch.device, decoding: Decoding | None
) -> int:
    """Chunks of an evaluation that the averaged networks are predicted to take at once."""
    objective = experiment.objective
    if not isinstance(objective, Generates):
        return 1
    told, vectors = conditioning(experiment, data.index.labels), data.index.conditions is not None
    sampler = objective.sampler(trainer.averages.modules())
    shown = decoding.shown(sampler) if decoding else sampler
    return chunks_at_once(shown, told, device, CHUNK, vectors and told > 0)


def device_name(device: torch.device) -> str:
    """The device of one worker, in words."""
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    )
