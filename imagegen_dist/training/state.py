"""Checkpoint contents of a trainer: tensors by name, and how to load them.

The model is what inference uses: averaged weights of the networks that have averages, as "network/tensor". The state is
what training resumes from: "weights/network/tensor" and "optimizers/network/tensor".
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from imagegen_dist.distributed import broadcast_
from imagegen_dist.training.loop import Trainer

Tensors = dict[str, Tensor]

WEIGHTS, _OPTIMIZERS = "weights", "optimizers"


def model_of(trainer: Trainer) -> Tensors:
    """Averaged weights, without a copy."""
    return flatten({name: module.state_dict() for name, module in trainer.averages.modules().items()})


def weights_of(trainer: Trainer) -> Tensors:
    """Trained weights, without a copy, by "network/tensor"."""
    return flatten({name: module.state_dict() for name, module in trainer.objective.modules().items()})


def state_dict(trainer: Trainer) -> Tensors:
    """The state that training resumes from, without a copy."""
    optimizers = flatten({name: adam.tensors() for name, adam in trainer.optimizers.items()})
    return flatten({WEIGHTS: weights_of(trainer), _OPTIMIZERS: optimizers})


def load_state_dict(trainer: Trainer, model: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Load a trainer's tensors. Raises RuntimeError if they belong to another experiment."""
    for name, module in trainer.objective.modules().items():
        module.load_state_dict(below(state, f"{WEIGHTS}/{name}"))
    for name, adam in trainer.optimizers.items():
        adam.load_tensors(below(state, f"{_OPTIMIZERS}/{name}"))
    for name, module in trainer.averages.modules().items():
        module.load_state_dict(below(model, name))


def broadcast_state_(trainer: Trainer) -> None:
    """Set every rank's trainer to rank 0's tensors; the clock must already agree."""
    for adam in trainer.optimizers.values():
        if trainer.images and not trainer.world.is_main:
            adam.begin_()
    broadcast_(state_dict(trainer).values(), trainer.world)
    broadcast_(model_of(trainer).values(), trainer.world)


def flatten(nested: Mapping[str, Mapping[str, Tensor]]) -> Tensors:
    """Tensors by "outer/inner" name."""
    return {f"{outer}/{inner}": value for outer, group in nested.items() for inner, value in group.items()}


def below(tensors: Mapping[str, Tensor], name: str) -> Tensors:
    """The tensors whose names start with `name/`, by the remainder of their names."""
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def on_host(tensors: Mapping[str, Tensor]) -> Tensors:
    """Copies on the CPU, which training does not change."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
