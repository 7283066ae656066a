"""The held-out samples that an objective measures itself on during training: a function of images seen."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import cast

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.order import Plan, default_block
from imagegen_dist.data.stream import Item, stream
from imagegen_dist.distributed import World
from imagegen_dist.experiment import Experiment
from imagegen_dist.training.loop import crossed


def check_measured(experiment: Experiment, training: DatasetIndex, held_out: DatasetIndex | None) -> None:
    """Raise ValueError if the objective measures itself on held-out samples and there are none."""
    if not experiment.objective.held_out_every:
        return
    if held_out is None:
        raise ValueError(
            "--objective.adaptive-augment compares training samples with held-out ones, and --data.validation is not "
            "set: `imagegen data pack SOURCE OUT --split train:0.9,val:0.1` makes both"
        )
    if held_out.fingerprint == training.fingerprint:
        raise ValueError(
            "--objective.adaptive-augment compares training samples with held-out ones, and --data.validation names "
            "the training samples: set it to others"
        )


def with_held_out(
    items: Iterable[Item], experiment: Experiment, held_out: Dataset | None, world: World, begin: int
) -> Iterator[Item]:
    """Add to an item, if a measurement is due after its step, this rank's held-out samples, a batch over all ranks.

    begin: step of the first item. The order of held-out samples is an order of its own, of the same seed: measurement
    number m takes its step m, so that a run that resumes anywhere, on any number of ranks, measures the same samples.
    """
    training, wanted = experiment.training, experiment.objective.held_out_every
    if not wanted or held_out is None:
        yield from items
        return
    batch, number = training.batch_size, training.batching.microbatches
    every = max(wanted, batch)
    block = default_block(held_out.index.counts, number)
    plan = Plan(training.seed, number, training.microbatch_size, draws=1, lanes=number, block=block)
    reading = replace(held_out.reading, workers=min(held_out.reading.workers, 1))
    first, last = begin * batch // every, training.steps * batch // every
    source = cast(
        Generator[Item], stream(held_out.index, held_out.store, plan, world.share(number), first, last, reading)
    )
    with closing(source):
        for item in items:
            due = crossed(every, item.step * batch, (item.step + 1) * batch)
            yield replace(item, held_out=next(source)) if due else item
