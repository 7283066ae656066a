"""What a checkpoint holds of a trainer: tensors by name, and how a trainer takes them back.

The model is what samples are made with, the averages of the networks that have them, as "network/tensor". The state is
what training goes on from: "weights/network/tensor" and "optimizers/network/tensor".
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from imagegen_dist.distributed import broadcast_
from imagegen_dist.training.loop import Trainer

Tensors = dict[str, Tensor]

WEIGHTS, _OPTIMIZERS = "weights", "optimizers"


def model_of(trainer: Trainer) -> Tensors:
    """Averaged weights, as they are in memory."""
    return flatten({name: module.state_dict() for name, module in trainer.averages.modules().items()})


def weights_of(trainer: Trainer) -> Tensors:
    """The weights that are trained, as they are in memory, by "network/tensor"."""
    return flatten({name: module.state_dict() for name, module in trainer.objective.modules().items()})


def state_dict(trainer: Trainer) -> Tensors:
    """What training goes on from, as it is in memory."""
    optimizers = flatten({name: adam.tensors() for name, adam in trainer.optimizers.items()})
    return flatten({WEIGHTS: weights_of(trainer), _OPTIMIZERS: optimizers})


def load_state_dict(trainer: Trainer, model: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Set a trainer's tensors to kept ones. Raises RuntimeError where they are another experiment's."""
    for name, module in trainer.objective.modules().items():
        module.load_state_dict(below(state, f"{WEIGHTS}/{name}"))
    for name, adam in trainer.optimizers.items():
        adam.load_tensors(below(state, f"{_OPTIMIZERS}/{name}"))
    for name, module in trainer.averages.modules().items():
        module.load_state_dict(below(model, name))


def broadcast_state_(trainer: Trainer) -> None:
    """Set the tensors of every rank's trainer to those of rank 0, whose clock all of them show already."""
    for adam in trainer.optimizers.values():
        if trainer.images and not trainer.world.is_main:
            adam.begin_()
    broadcast_(state_dict(trainer).values(), trainer.world)
    broadcast_(model_of(trainer).values(), trainer.world)


def flatten(nested: Mapping[str, Mapping[str, Tensor]]) -> Tensors:
    """Tensors by "outer/inner" name."""
    return {f"{outer}/{inner}": value for outer, group in nested.items() for inner, value in group.items()}


def below(tensors: Mapping[str, Tensor], name: str) -> Tensors:
    """The tensors under a name, by the rest of theirs."""
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def on_host(tensors: Mapping[str, Tensor]) -> Tensors:
    """Copies on the CPU that do not change when training goes on."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
