"""Small runs for tests: the digits preset cut to seconds, trained in this process or by a few gloo processes."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from imagegen_dist import config
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World, process_group
from imagegen_dist.experiment import Experiment, build_trainer
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.run import Outcome, execute
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import Checkpoint, newest
from imagegen_dist.training.loop import Trainer
from tests.ranks import run_ranks

CPU = torch.device("cpu")

TINY = {
    "model.widths": (16,),
    "model.blocks_per_stage": 1,
    "model.pixel_channels": 0,
    "model.mapping_units": 0,
    "model.head_units": 0,
    "training.batch_size": 24,
    "training.microbatch_size": 4,
    "training.total_images": 24 * 20,
    "training.report_every": 24 * 4,
    "training.listen_every": 24 * 4,
    "training.sample_every": 24 * 1000,
    "training.checkpoint_every": 24 * 5,
    "evaluation.samples": 0,
}


def tiny(**changes: Any) -> Experiment:
    """The digits preset with one narrow block, 6 microbatches of 4, 20 steps; `changes` by path, "__" for a dot."""
    changed = TINY | {path.replace("__", "."): value for path, value in changes.items()}
    return config.overrides(find_preset("digits").experiment, changed.items())


@dataclass
class Listener:
    """Collects what a run says; asks it to stop once `stop_at` images were reported, or a message has `stop_after`.

    killed: (rank, report) at which this process gets SIGKILL.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    stop_at: float = float("inf")
    stop_after: str = ""
    killed: tuple[int, int] | None = None
    rank: int = 0
    reports: int = 0

    def row(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def checkpoint(self, published: Callable[[], Checkpoint | None]) -> None:
        pass

    def stop_requested(self) -> bool:
        self.reports += 1
        if self.killed == (self.rank, self.reports):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.interrupted() or (bool(self.rows) and self.rows[-1]["images"] >= self.stop_at)

    def interrupted(self) -> bool:
        return bool(self.stop_after) and any(self.stop_after in message for message in self.messages)


@cache
def _packed_digits() -> Path:
    """The digits, packed once for all tests of a process."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for split in ("train", "val"):
        builtin_dataset("digits", split, Store(folder))
    return folder


def digits(data: Path | str, split: str) -> Store:
    """A split of the digits below `data`, where they are copied to unless they are there."""
    if (local := Store(data).local_path()) and not Path(local).exists():
        shutil.copytree(_packed_digits(), local)
    return builtin_dataset("digits", split, Store(data))


def settings(storage: Path | str, name: str, data: Path | str, attempt: str = "0") -> RunSettings:
    """A run below `storage` on the digits packed below `data`, without W&B."""
    return RunSettings(
        name=name,
        storage=Store(storage).url,
        preset="digits",
        job="train_gan",
        data=digits(data, "train").url,
        validation=digits(data, "val").url,
        attempt=attempt,
        wandb_mode="disabled",
    )


def train_here(experiment: Experiment, where: RunSettings, listener: Listener | None = None) -> Outcome:
    """Run in this process."""
    return execute(experiment, where, World(), CPU, listener or Listener())


def train_on(
    ranks: int, experiment: Experiment, where: RunSettings, meeting: Path, listener: Listener | None = None
) -> None:
    """Run on so many gloo processes, which meet in a new file; each rank has a copy of the listener."""
    run_ranks(ranks, _rank, ranks, experiment, where, str(meeting), listener or Listener())


def _rank(rank: int, ranks: int, experiment: Experiment, where: RunSettings, meeting: str, listener: Listener) -> None:
    world = World(rank, ranks)
    listener.rank = rank
    with process_group(world, meeting):
        execute(experiment, where, world, CPU, listener)


def final_tensors(where: RunSettings) -> dict[str, torch.Tensor]:
    """Everything in the newest checkpoint of a run: raw weights, optimizer state, averaged weights."""
    found = newest(where.folder, lambda why: None)
    assert found is not None
    return {**found.state, **{f"averaged/{name}": value for name, value in found.model.items()}}


def assert_bit_identical(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Equal names, and every tensor equal to the last bit."""
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different


def noise(
    experiment: Experiment, modality: str, dims: tuple[int, ...], classes: int | None, world: World | None = None
) -> tuple[Trainer, Item]:
    """A trainer, and a step of noise for it: this rank's share of 6 microbatches of 4."""
    world = world or World()
    shape = SampleShape(dims[0], dims[1:])
    index = DatasetIndex(modality, shape, (ShardInfo("0.tar", 1, 40, 0, "0" * 64),), classes)
    trainer = build_trainer(experiment, index, world, CPU)
    share, size = world.share(6), (len(trainer.objective.phases()), 6, 4)
    generator = torch.Generator().manual_seed(0)
    sample = torch.randint(0, 256, (*size, *dims), dtype=torch.uint8, generator=generator)
    label = None if classes is None else torch.randint(0, classes, size, generator=generator)[:, share]
    return trainer, Item(0, sample[:, share], label, torch.zeros(size, dtype=torch.int64)[:, share], {}, [])


def one_step(experiment: Experiment, modality: str, dims: tuple[int, ...], classes: int | None) -> Trainer:
    """A trainer that has taken one step on noise."""
    trainer, item = noise(experiment, modality, dims, classes)
    trainer.step(item)
    return trainer
