"""The engine of all metrics: statistics of samples, accumulated chunk by chunk.

A source (Generated, Real, or Encoded in encoding.py) measures any of its chunks, and the results add up. The ranks of a
training divide the chunks among them (`over_ranks`); an evaluation divides them into the tasks of a cluster (`pieces`,
`InOrder`). A chunk's randomness depends only on its number, and a generated sample on the seed and its own number, so
that the result does not depend on how the work is divided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import quantised, to_float
from imagegen_dist.distributed import World, sum_over_ranks, together
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.metrics.features import KEPT_AT_MOST, FeatureNetwork, FeatureSums, agreement, of_classes
from imagegen_dist.metrics.recognition import Recognition
from imagegen_dist.noise import SampleNoise
from imagegen_dist.objectives.interface import Sampler

CHUNK = 50
"""Samples of a chunk, the unit of randomness and of dividing the work; a source may take several at a time."""

_BLOCK_BYTES = 64 << 20  # real samples read at a time: opening shards costs more than decoding a chunk
_MOST_PIECES = 64
_FEWEST_CHUNKS = 10

AllReduce = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Wanted:
    """What is measured in one network's features."""

    network: FeatureNetwork
    # True if a metric needs the features themselves, not only their moments.
    keep: bool = False
    # True if classes are scored.
    scored: bool = False
    # True if the network is a classifier that predicts the classes, or the conditions, of generated samples.
    answers: bool = False


@dataclass
class Answers:
    """A classifier's predictions for generated samples, as additive sums.

    shown: number of predictions of each class, [K] float64; empty before the first. right, asked: number of correct
    predictions, and of samples for which a class was requested. recognised: the conditions that were requested in place
    of classes, if any; one part of these that is a class counts as the class.
    """

    shown: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    right: int = 0
    asked: int = 0
    recognised: Recognition | None = None

    def add(self, logits: Tensor, label: Tensor | None, conditions: Conditions | None = None) -> None:
        """Add samples: logits [B, K], and the classes requested, [B], or None.

        conditions: that the logits are of, and that were requested, [B, K], in place of classes.
        """
        if conditions is None:
            self._add_classes(logits, label)
            return
        of_part = of_classes(logits, conditions)
        if of_part.shape[1]:
            self._add_classes(of_part, None if label is None else of_classes(label, conditions).argmax(1))
        if label is not None:
            found = Recognition(conditions)
            found.add(logits, label)
            self.merge(Answers(recognised=found))

    def _add_classes(self, logits: Tensor, label: Tensor | None) -> None:
        shown = torch.bincount(logits.argmax(1), minlength=logits.shape[1]).double().cpu()
        self.merge(Answers(shown))
        if label is not None:
            self.right += int(agreement(logits, label).sum())
            self.asked += len(label)

    def merge(self, other: Answers) -> None:
        """Add the sums of another."""
        if not len(self.shown):
            self.shown = torch.zeros_like(other.shown)
        if len(other.shown):
            self.shown = self.shown + other.shown
        self.right += other.right
        self.asked += other.asked
        if self.recognised is None:
            self.recognised = other.recognised and other.recognised.copy()
        elif other.recognised is not None:
            self.recognised.merge(other.recognised)

    def reduce(self, all_reduce: AllReduce, network: FeatureNetwork, device: torch.device) -> Answers:
        """The sums over all ranks. network: the classifier, also known to a rank without samples."""
        shown = self.shown if len(self.shown) else self.shown.new_zeros(network.classes)
        counts = torch.cat([torch.tensor([self.right, self.asked], dtype=torch.float64), shown])
        right, asked, *each = all_reduce(counts.to(device)).tolist()
        recognised = None
        if network.conditions is not None:
            found = (self.recognised or Recognition(network.conditions)).reduce(all_reduce, device)
            recognised = found if found.samples else None
        return Answers(torch.tensor(each, dtype=torch.float64), int(right), int(asked), recognised)


@dataclass
class EncodedSums:
    """Accumulated statistics of encoded samples.

    terms: sums of per-sample metrics, in the order of their names. codes: the highest latents without noise, [N, Z],
    with zeros for samples of others; without columns if latents are not a vector. All float64.
    """

    terms: Tensor
    codes: Tensor

    def merge(self, other: EncodedSums) -> None:
        """Add the statistics of other samples."""
        self.terms += other.terms
        self.codes += other.codes

    def reduce(self, all_reduce: AllReduce) -> EncodedSums:
        """The sums over all ranks."""
        return EncodedSums(all_reduce(self.terms), all_reduce(self.codes) if self.codes.numel() else self.codes)


@dataclass
class Measured:
    """Accumulated statistics of samples: sums in each network's features, and those specific to the kind of source."""

    features: list[FeatureSums]
    answers: Answers = field(default_factory=Answers)
    encoded: EncodedSums | None = None

    @classmethod
    def nothing(cls, wanted: Sequence[Wanted], device: torch.device, samples: int = 0) -> Measured:
        """Statistics of no samples. samples: the total number, if classes are scored."""
        return cls(
            [
                FeatureSums.empty(each.network, device, keep=each.keep, scored_samples=samples if each.scored else 0)
                for each in wanted
            ]
        )

    def merge(self, other: Measured) -> None:
        """Add the statistics of the samples that follow."""
        for ours, theirs in zip(self.features, other.features, strict=True):
            ours.merge(theirs)
        self.answers.merge(other.answers)
        if self.encoded is not None and other.encoded is not None:
            self.encoded.merge(other.encoded)

    def on_host(self) -> Measured:
        """A copy on the CPU."""
        encoded = self.encoded and EncodedSums(self.encoded.terms.cpu(), self.encoded.codes.cpu())
        return Measured([sums.on_host() for sums in self.features], self.answers, encoded)


Done = Callable[[int], None]
"""Called after each chunk with its number of samples."""


class Source(Protocol):
    """Samples that can be measured chunk by chunk."""

    @property
    def samples(self) -> int:
        """The total number."""
        ...

    @property
    def wanted(self) -> Sequence[Wanted]:
        """What is measured of them."""
        ...

    @property
    def in_blocks(self) -> bool:
        """True if adjacent chunks are cheaper together."""
        ...

    def measure(self, chunks: range, done: Done) -> Measured:
        """Measure chunks by number. Raises the errors of reading the samples."""
        ...


class Passing(Protocol):
    """Samples of a model, several adjacent chunks of which go through its networks together."""

    @property
    def samples(self) -> int:
        """The total number."""
        ...

    @property
    def together(self) -> int:
        """The number of chunks."""
        ...

    def nothing(self) -> Measured:
        """Statistics of no samples."""
        ...

    def add(self, chunks: range, measured: Measured) -> None:
        """Measure adjacent chunks at once: several full ones, or one."""
        ...


def measure_in_passes(source: Passing, chunks: range, done: Done) -> Measured:
    """Measure chunks several at a time, and half as many where they do not fit into the device's memory."""
    total, together, rest = source.nothing(), source.together, chunks
    full = source.samples // CHUNK
    while rest:
        some = rest[:together] if rest[:together][-1] < full else rest[: max(1, full - rest[0])]
        if together == 1:
            source.add(some, total)
        else:
            found = source.nothing()
            try:
                source.add(some, found)
            except torch.OutOfMemoryError:
                together = max(1, min(together, len(some)) // 2)
                continue
            total.merge(found)
        done(sum(len(ids_of(chunk, source.samples)) for chunk in some))
        rest = rest[len(some) :]
    return total


@dataclass(frozen=True)
class Generated:
    """Samples that a model generates: sample i is a function of the seed, of i and of its class.

    together: chunks that are generated at once. bits: of stored samples, to whose levels these are rounded.
    """

    sampler: Sampler
    samples: int
    seed: int
    classes: RequestedClasses
    wanted: Sequence[Wanted]
    device: torch.device
    together: int = 1
    bits: int = 8

    @property
    def in_blocks(self) -> bool:
        """True if several chunks are generated at once."""
        return self.together > 1

    @torch.no_grad()
    def generate(self, ids: range) -> tuple[Tensor, Tensor | None]:
        """Samples by number, [B, C, *S] in [-1, 1], rounded as stored samples are, and their classes."""
        label = self.classes.of(ids, self.device)
        drawn = self.sampler.prior(len(ids), SampleNoise.of(self.seed, ids, self.device))
        return quantised(self.sampler.generate(drawn, label), self.bits), label

    def measure(self, chunks: range, done: Done) -> Measured:
        """Generate and measure them."""
        return measure_in_passes(self, chunks, done)

    def nothing(self) -> Measured:
        """Statistics of no samples."""
        return Measured.nothing(self.wanted, self.device, self.samples)

    def add(self, chunks: range, measured: Measured) -> None:
        """Generate and measure adjacent chunks at once."""
        ids = ids_in(chunks, self.samples)
        x, label = self.generate(ids)
        for wanted, sums in zip(self.wanted, measured.features, strict=True):
            logits = sums.add(wanted.network, x, ids.start)
            if wanted.answers and logits is not None:
                measured.answers.add(logits, label, wanted.network.conditions)


@dataclass(frozen=True)
class Real:
    """The first samples of a dataset."""

    dataset: Dataset
    samples: int
    wanted: Sequence[Wanted]
    device: torch.device
    in_blocks: bool = True

    def measure(self, chunks: range, done: Done) -> Measured:
        """Read and measure them. Raises ShardError."""
        measured = Measured.nothing(self.wanted, self.device)
        for ids, sample in read_chunks(self.dataset, chunks, self.samples):
            x = to_float(sample.to(self.device))
            for wanted, sums in zip(self.wanted, measured.features, strict=True):
                sums.add(wanted.network, x, ids.start)
            done(len(ids))
        return measured


def ids_of(chunk: int, samples: int) -> range:
    """The numbers of a chunk's samples."""
    return range(chunk * CHUNK, min((chunk + 1) * CHUNK, samples))


def ids_in(chunks: range, samples: int) -> range:
    """The numbers of the samples of adjacent chunks."""
    return range(chunks[0] * CHUNK, ids_of(chunks[-1], samples).stop)


def chunks_in(samples: int) -> int:
    """The number of chunks."""
    return -(-samples // CHUNK)


def read_chunks(dataset: Dataset, chunks: range, samples: int) -> Iterator[tuple[range, Tensor]]:
    """The numbers and samples, uint8 [B, C, *S], of adjacent chunks, read in blocks. Raises ShardError."""
    size = max(1, _BLOCK_BYTES // (CHUNK * dataset.index.shape.numel))
    for start in range(chunks.start, chunks.stop, size):
        block = range(start, min(start + size, chunks.stop))
        first = block.start * CHUNK
        read, _ = dataset.read(range(first, min(block.stop * CHUNK, samples)))
        for chunk in block:
            ids = ids_of(chunk, samples)
            yield ids, read[ids.start - first : ids.stop - first]


def over_ranks(source: Source, world: World, device: torch.device) -> Measured:
    """Measure a source on all ranks together, with an equal result on each. Called by every rank."""
    count = chunks_in(source.samples)
    share = world.share(count) if source.in_blocks else range(world.rank, count, world.size)

    def all_reduce(values: Tensor) -> Tensor:
        return sum_over_ranks(values, world)

    def measure() -> Measured:
        world.heed()
        return source.measure(share, lambda _: world.heed())

    of_rank = together(measure, world, device)
    features = [_reduced(sums, share, source.samples, all_reduce, device) for sums in of_rank.features]
    classifier = next((each.network for each in source.wanted if each.answers and each.network.answers), None)
    answers = of_rank.answers.reduce(all_reduce, classifier, device) if classifier else of_rank.answers
    return Measured(features, answers, of_rank.encoded and of_rank.encoded.reduce(all_reduce))


def _reduced(
    sums: FeatureSums, chunks: range, samples: int, all_reduce: AllReduce, device: torch.device
) -> FeatureSums:
    """The sums over all ranks. chunks: those of this rank, whose kept features are placed by sample number."""
    moments = sums.moments.reduce(all_reduce)
    if sums.kept is None:
        return FeatureSums(moments)
    features = torch.zeros(min(samples, KEPT_AT_MOST), moments.dim)
    features[[number for chunk in chunks for number in ids_of(chunk, samples) if number < len(features)]] = (
        sums.features()
    )
    return FeatureSums(moments, None, [all_reduce(features.to(device)).cpu()])


def pieces(samples: int) -> list[range]:
    """All chunks divided into at most a few dozen tasks, which depend only on the number of samples."""
    count = chunks_in(samples)
    size = max(_FEWEST_CHUNKS, -(-count // _MOST_PIECES))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class InOrder:
    """Merges the results of tasks in the order of the tasks, as they arrive in any order."""

    def __init__(self) -> None:
        self.total: Measured | None = None
        self._next = 0
        self._waiting: dict[int, Measured] = {}

    def add(self, number: int, measured: Measured) -> None:
        """Add the result of a task."""
        self._waiting[number] = measured
        while (following := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            if self.total is None:
                self.total = following
            else:
                self.total.merge(following)
