"""The composition root: builds networks, loss, plan and trainer from an experiment's settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import torch
from torch import Tensor, nn

from imagegen_dist import models, objectives
from imagegen_dist.conditions.part import Conditions
from imagegen_dist.config import kind
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.order import Plan, default_block
from imagegen_dist.distributed import World
from imagegen_dist.models.base import AUXILIARY, ModelConfig
from imagegen_dist.nn.compiling import compile_, compiled
from imagegen_dist.nn.layout import lay_out_, memory_format
from imagegen_dist.nn.recompute import recompute_
from imagegen_dist.noise import keyed_generator
from imagegen_dist.objectives.augment import random_flip
from imagegen_dist.objectives.base import Draw, Objective
from imagegen_dist.objectives.interface import ObjectiveConfig, OptimConfig
from imagegen_dist.settings import DataConfig, EvaluationConfig, TrainingConfig
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import file_at
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.freezing import frozen_parameters
from imagegen_dist.training.loop import Trainer
from imagegen_dist.training.optim import ScheduledAdam

for package in (models, objectives):  # each file registers its classes
    for module in iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)


@dataclass(frozen=True)
class Experiment:
    """All settings that determine a run's outcome. Raises ValueError if they are incompatible."""

    model: ModelConfig
    """The networks."""
    objective: ObjectiveConfig
    """The loss."""
    optim: OptimConfig
    """The optimizers."""
    data: DataConfig = field(default_factory=DataConfig)
    """The samples."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The course of the run."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """The metrics to compute."""

    def __post_init__(self) -> None:
        objective, name = self.objective, kind(type(self.objective))
        needed = set(objective.parts)
        if not needed <= self.model.parts().keys():
            fitting = ", ".join(each for each, cls in ModelConfig.registered.items() if needed <= cls.parts().keys())
            raise ValueError(
                f"{name} cannot be trained with a {kind(type(self.model))}; set --model to one of {fitting}"
            )
        if type(self.optim) is not objective.optimizers:
            raise ValueError(f"{name} needs --optim {kind(objective.optimizers)}, not {kind(type(self.optim))}")
        if self.training.pass_images > self.training.microbatch_size and not objective.joins_microbatches:
            raise ValueError(
                f"{name} takes one microbatch in a pass: set --training.pass-images to {self.training.microbatch_size}"
            )
        if (least := objective.least_microbatch) > self.training.microbatch_size:
            raise ValueError(
                f"{name} compares the samples of a microbatch: set --training.microbatch-size to {least} or more"
            )


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """The same experiment with absolute file paths, for workers in another directory. Raises StorageError."""
    return replace(
        experiment,
        objective=_with_absolute(experiment.objective, experiment.objective.files),
        evaluation=_with_absolute(experiment.evaluation, ("weights",)),
    )


def _with_absolute(settings: Any, names: tuple[str, ...]) -> Any:
    return replace(settings, **{name: _absolute(path) for name in names if (path := getattr(settings, name))})


def _absolute(path: str) -> str:
    store, name = file_at(path)
    return f"{store.url.rstrip('/')}/{name}"


def network_generator(seed: int, name: str) -> torch.Generator:
    """The generator that draws one network's initial weights."""
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return keyed_generator(int.from_bytes(key, "little"))


Labels = Conditions | int | None
"""What a dataset's samples are labelled with: conditions, one of so many classes, or nothing."""


def conditioning(experiment: Experiment, labels: Labels) -> int:
    """K, the length of the vector that networks are conditioned on, or 0 for none.

    Of conditions, the length of their vector; of classes, their number. A single class counts as none.
    """
    if not experiment.data.conditional:
        return 0
    if isinstance(labels, Conditions):
        return labels.width
    return labels if labels and labels > 1 else 0


@dataclass(frozen=True)
class _Builder:
    """Builds what an experiment's objective requests (`objectives.interface.Build`)."""

    experiment: Experiment
    shape: SampleShape
    classes: int
    samples: int = 0
    compiles: bool = False
    conditions: Conditions | None = None

    def network(self, part: str, role: str = "", **settings: Any) -> nn.Module:
        model = self.experiment.model
        return model.parts()[part](self.shape, self.classes, model, generator=self.random(role or part), **settings)

    def auxiliary(self, name: str, *arguments: Any, **settings: Any) -> Any:
        return AUXILIARY[name](*arguments, **settings)

    def random(self, role: str) -> torch.Generator:
        return network_generator(self.experiment.training.seed, role)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return compiled(function) if self.compiles else function


def build_networks(experiment: Experiment, shape: SampleShape, labels: Labels) -> dict[str, nn.Module]:
    """The objective's networks by role, with their initial weights, on the CPU.

    Raises ValueError if the model does not support samples of this shape.
    """
    return experiment.objective.networks(_Builder(experiment, shape, conditioning(experiment, labels)))


def build_objective(
    experiment: Experiment, networks: Mapping[str, nn.Module], index: DatasetIndex, compiles: bool = False
) -> Objective:
    """The loss over networks on their device. compiles: compile what the objective compiles.

    Raises ValueError if the networks do not fit the objective.
    """
    known = conditioning(experiment, index.labels)
    conditions = index.labels if isinstance(index.labels, Conditions) else None
    build = _Builder(experiment, index.shape, known, index.samples, compiles, conditions)
    return experiment.objective.objective(networks, build)


def build_plan(experiment: Experiment, index: DatasetIndex, draws: int) -> Plan:
    """The order of a dataset's samples, for an objective that draws `draws` times per step."""
    batching = experiment.training.batching
    lanes = -(-experiment.data.lanes // batching.microbatches) * batching.microbatches
    return Plan(
        seed=experiment.training.seed,
        microbatches=batching.microbatches,
        microbatch_size=batching.microbatch_size,
        draws=draws,
        lanes=lanes,
        block=experiment.data.block or default_block(index.counts, lanes),
    )


def build_trainer(experiment: Experiment, index: DatasetIndex, world: World, device: torch.device) -> Trainer:
    """The experiment at its first step: networks, loss, optimizers and weight averages on the device.

    Raises ValueError if the model does not fit the data, or if the workers cannot share a batch.
    """
    training = experiment.training
    built = build_networks(experiment, index.shape, index.labels)
    layout = memory_format(index.shape.ndim, training.channels_last)
    networks = {name: network.to(device) for name, network in built.items()}
    for network in networks.values():
        lay_out_(network, layout)
        recompute_(network, training.recompute_from)
    objective = build_objective(experiment, networks, index, training.compile)
    frozen = frozen_parameters(networks, training.freeze_d)
    averages = EMA(objective.modules(), objective.averaged(), training.ema_half_life)
    if training.compile:
        for network in (*(networks[name] for name in experiment.objective.compiled), *averages.modules().values()):
            compile_(network)
    return Trainer(
        objective,
        {
            phase.name: ScheduledAdam(phase.trains, getattr(experiment.optim, phase.name), frozen)
            for phase in objective.phases()
        },
        averages,
        training.batching,
        world,
        device,
        training.seed,
        augment=_flip if experiment.data.flip else None,
        bf16=training.bf16,
        pass_microbatches=max(1, training.pass_images // training.microbatch_size),
        layout=layout,
        compress_gradients=training.gradient_compression == "bf16",
    )


def _flip(x: Tensor, draw: Draw) -> Tensor:
    """Mirror each real sample with probability 1/2."""
    return random_flip(x, draw)


def parameter_counts(experiment: Experiment, shape: SampleShape, labels: Labels) -> dict[str, int]:
    """Number of trainable parameters of each network."""
    networks = build_networks(experiment, shape, labels)
    return {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
