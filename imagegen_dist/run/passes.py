"""How many microbatches the passes of a run hold on a GPU: as many as its memory is predicted to take."""

from __future__ import annotations

from collections.abc import Callable

import torch

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World, text_from_main
from imagegen_dist.experiment import Experiment
from imagegen_dist.prediction.counting import count_step
from imagegen_dist.prediction.predict import images_of_pass, usable_bytes
from imagegen_dist.run.context import Context
from imagegen_dist.training.passes import fit_pass
from imagegen_dist.wording import first_line


def choose_pass(run: Context, item: Item) -> None:
    """Set the passes of a run on GPUs by --training.pass-images, or else by memory; smaller ones if they do not fit.

    item: a step of this rank. Called on all ranks. Raises torch.OutOfMemoryError if one microbatch does not fit.
    """
    say = run.events.message if run.world.is_main else lambda text: None
    if not run.experiment.training.pass_images:
        memory = usable_bytes(torch.cuda.get_device_properties(run.device).total_memory)
        run.trainer.pass_microbatches = predicted_microbatches(
            run.experiment, run.training.index, memory, run.world, run.device, say
        )
    if run.trainer.pass_microbatches > 1:
        fit_pass(run.trainer, item, say)


def predicted_microbatches(
    experiment: Experiment,
    index: DatasetIndex,
    memory_bytes: int,
    world: World,
    device: torch.device,
    say: Callable[[str], None],
) -> int:
    """Microbatches of a pass that fits into rank 0's memory_bytes, on every rank; 1 where that cannot be predicted.

    say: is told why it cannot. A loss that reads a value of its tensors has none to read while it is counted.
    """
    if not experiment.objective.joins_microbatches:
        return 1
    size = found = experiment.training.microbatch_size
    if world.is_main:
        try:
            count = count_step(experiment, index, size)
            found = images_of_pass(experiment, count, memory_bytes, world.size)
        except RuntimeError as error:
            say(f"passes are of one microbatch, since their memory cannot be predicted: {first_line(error)}")
    return int(text_from_main(str(found // size), world, device))
