"""Small data with conditions for tests of evaluation, and what a perfect and a confused generator make of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import to_float
from imagegen_dist.data.pack import pack
from imagegen_dist.distributed import World, process_group
from imagegen_dist.evaluation.engine import Answers, Generated, Wanted, over_ranks
from imagegen_dist.evaluation.reference import Reference, build_reference
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.objectives.base import Randomness
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from tests.runs import CPU

PLACES = ("left", "middle", "right")
IMAGES = 6_400
"""On which the classifier is trained."""


def pictures(folder: Path, count: int, seed: int = 0) -> str:
    """URL of grey pictures of 14×14: a bar in one of three places, of some brightness, with or without a frame."""
    random = np.random.default_rng(seed)
    store, samples = Store(folder), []
    for number in range(count):
        place, bright, framed = number % 3, float(random.uniform(0.3, 1)), bool(random.integers(2))
        picture = random.integers(0, 40, (1, 14, 14), np.uint8)
        picture[0, 2:12, 1 + 4 * place : 4 + 4 * place] += np.uint8(200 * bright)
        if framed:
            picture[0, [0, -1]] += 100
        samples.append((picture, {"condition": {"place": PLACES[place], "framed": framed, "bright": bright}}))
    pack(samples, store)
    return store.url


def beside(where: RunSettings, folder: Path) -> RunSettings:
    """The run on such data, with others held out."""
    return replace(where, data=pictures(folder / "train", 300), validation=pictures(folder / "val", 150, 1))


def opened(data: str, validation: str) -> tuple[Dataset, Dataset]:
    """Training and held-out samples."""
    training = Dataset.open(data)
    return training, Dataset.open(validation).told_as(training.index.known_conditions)


def reference_of(training: Dataset, held_out: Dataset, cache: Store) -> Reference:
    """The classifier of their conditions, trained once and cached."""
    return build_reference(cache, training, held_out, IMAGES, World(), CPU, lambda text: None)


@dataclass(frozen=True)
class Replayed:
    """A sampler that shows the real sample whose condition is requested, or the one so many samples later."""

    samples: Tensor
    conditions: Tensor
    later: int = 0
    continuous: bool = True

    def modules(self) -> dict[str, nn.Module]:
        return {}

    def prior(self, count: int, draw: Randomness) -> Tensor:
        return torch.zeros(count, 1)

    def generate(self, drawn: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        found = torch.cdist(label.double(), self.conditions.double()).argmin(1)
        return self.samples[(found + self.later) % len(self.samples)]


def replayed(real: Dataset, reference: Reference, samples: int, later: int = 0) -> Generated:
    """As many samples as are requested, in the conditions of the real ones."""
    shown, told = real.read(range(real.index.samples))
    assert told is not None
    assert real.index.conditions is not None
    rows = ConditionRows(real.index.conditions, told.numpy())
    wanted = [Wanted(reference.network, keep=True, answers=True)]
    requested = RequestedClasses(0, conditions=rows)
    return Generated(Replayed(to_float(shown), told, later), samples, 0, requested, wanted, CPU)


def answers_on(rank: int, ranks: int, data: str, validation: str, folder: str) -> None:
    """What so many ranks measure of a confused generator's 190 samples."""
    world = World(rank, ranks)
    with process_group(world, f"{folder}/meeting-{ranks}"):
        found = answers_of(data, validation, Store(f"{folder}/cache"), world)
    if rank == 0:
        torch.save(found.recognised and found.recognised.sums, f"{folder}/{ranks}.pt")


def answers_of(data: str, validation: str, cache: Store, world: World) -> Answers:
    """The classifier's answers for 190 samples of a confused generator, of all ranks."""
    training, held_out = opened(data, validation)
    reference = reference_of(training, held_out, cache)
    return over_ranks(replayed(held_out, reference, 190, later=1), world, CPU).answers
