"""How many microbatches the passes of a run hold: as many as a GPU's memory is predicted to take, and has taken."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World, text_from_main
from imagegen_dist.documents import parse_json
from imagegen_dist.experiment import Experiment
from imagegen_dist.prediction.counting import count_step
from imagegen_dist.prediction.predict import images_of_pass, usable_bytes
from imagegen_dist.run.context import Context
from imagegen_dist.training.passes import fit_pass
from imagegen_dist.wording import first_line

_SMALLER = "passes.json"
"""In the run's directory once a pass did not fit: the size of passes from then on, on such devices."""


def choose_pass(run: Context, item: Item) -> None:
    """Set the passes of a run by --training.pass-images, or else by memory, and smaller ones if they do not fit.

    Without either, a CPU takes one microbatch. item: a step of this rank. Called on all ranks. Raises
    torch.OutOfMemoryError if one microbatch does not fit.
    """
    say = run.events.message if run.world.is_main else lambda text: None
    on_gpu = run.device.type == "cuda"
    if on_gpu and not run.experiment.training.pass_images:
        memory = usable_bytes(torch.cuda.get_device_properties(run.device).total_memory)
        run.trainer.pass_microbatches = predicted_microbatches(
            run.experiment, run.training.index, memory, run.world, run.device, say
        )
    _remember_smaller(run, say)
    if on_gpu and run.trainer.pass_microbatches > 1:
        fit_pass(run.trainer, item, say)


def record_smaller(run: Context) -> None:
    """Record the size of this rank's passes, for the next attempt of the run. Raises StorageError."""
    found = {"microbatches": run.trainer.pass_microbatches, **_valid_for(run)}
    run.folder.write(_SMALLER, json.dumps(found).encode())


def _remember_smaller(run: Context, say: Callable[[str], None]) -> None:
    """Take passes no larger than an earlier attempt recorded, on all ranks."""
    most = 0
    if run.world.is_main and run.folder.exists(_SMALLER):
        recorded = parse_json(run.folder.read(_SMALLER))
        most = recorded["microbatches"] if _valid_for(run).items() <= recorded.items() else 0
    most = int(text_from_main(str(most), run.world, run.device))
    if 0 < most < run.trainer.pass_microbatches:
        run.trainer.pass_microbatches = most
        say(f"passes are of {most * run.trainer.batching.microbatch_size} images, since larger ones did not fit")


def _valid_for(run: Context) -> dict[str, object]:
    """With another device, or another --training.pass-images, larger passes are tried again."""
    name = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else run.device.type
    return {"device": name, "pass_images": run.experiment.training.pass_images}


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
