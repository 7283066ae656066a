"""How many microbatches go through the networks together, so that a device's memory is used and is enough."""

from __future__ import annotations

from collections.abc import Callable

import torch

from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World, sum_over_ranks
from imagegen_dist.training.loop import Trainer
from imagegen_dist.training.memory import give_back, half_of
from imagegen_dist.wording import counted


def fit_pass(trainer: Trainer, item: Item, say: Callable[[str], None]) -> None:
    """Halve the trainer's pass, on all ranks together, until the gradients of every phase fit into the device's memory.

    item: a step of this rank. The weights stay as they are. say: is told about a smaller pass. Called on all ranks.
    Raises torch.OutOfMemoryError if one microbatch does not fit.
    """
    wanted = trainer.pass_microbatches
    while True:
        error = _tried(trainer, item)
        if not _on_any_rank(error is not None, trainer.world, trainer.device):
            break
        if trainer.pass_microbatches == 1:
            raise error or torch.OutOfMemoryError("one microbatch does not fit into the memory of another worker")
        trainer.pass_microbatches = half_of(trainer.pass_microbatches)
    if trainer.pass_microbatches < wanted:
        size = trainer.batching.microbatch_size
        say(
            f"a pass of {counted(wanted * size, 'image')} does not fit into memory: passes are of "
            f"{trainer.pass_microbatches * size}"
        )


def _tried(trainer: Trainer, item: Item) -> torch.OutOfMemoryError | None:
    try:
        trainer.rehearse(item)
    except torch.OutOfMemoryError as error:
        # The frames of the error keep the tensors of the pass alive.
        return torch.OutOfMemoryError(*error.args)
    finally:
        give_back(trainer.device)
    return None


def _on_any_rank(flag: bool, world: World, device: torch.device) -> bool:
    return bool(sum_over_ranks(torch.tensor(float(flag), device=device), world) > 0)
