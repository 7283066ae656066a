"""Evaluation in pieces: what one task measures of some samples, so that any number of tasks gives one value.

Pieces are cut by the number of samples alone, and added up in their order. A generated sample is a function of the seed
and its number: the same that `imagegen_dist.load(...).sample` gives for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from imagegen_dist.data.modality import to_float, to_uint8
from imagegen_dist.evaluation.feature_networks import FeatureSource, open_network
from imagegen_dist.evaluation.figures import Answers
from imagegen_dist.evaluation.observer import CHUNK, Dataset
from imagegen_dist.evaluation.reading import chunks_of, read_chunks
from imagegen_dist.evaluation.restored import Restored, find_checkpoint
from imagegen_dist.evaluation.vae import RealSums, VAEObserver
from imagegen_dist.experiment import Experiment
from imagegen_dist.metrics.features import FeatureNetwork, FeatureSums
from imagegen_dist.objectives.base import Draw
from imagegen_dist.shape import SampleShape
from imagegen_dist.training.loop import keyed_draw

_MOST_PIECES = 64
_FEWEST_CHUNKS = 10

Tell = Callable[[int], None]


@dataclass(frozen=True)
class Wanted:
    """What is taken in one network's features."""

    source: FeatureSource
    # Whether the features themselves are needed, and not their moments alone.
    keep: bool = False
    # Whether classes are scored.
    scored: bool = False
    # Whether the network, a classifier, is asked what generated samples show.
    answers: bool = False


@dataclass
class Measured:
    """What was measured of some samples: sums in each network's features, and what the kind of samples adds."""

    features: list[FeatureSums]
    # What the classifier said of generated samples.
    answers: Answers = field(default_factory=Answers)
    # Of real samples, what a VAE's observer adds up.
    real: RealSums | None = None

    def merge(self, other: Measured) -> None:
        """Count in what was measured of the samples that follow."""
        for ours, theirs in zip(self.features, other.features, strict=True):
            ours.merge(theirs)
        self.answers.merge(other.answers)
        if self.real is not None and other.real is not None:
            self.real.merge(other.real)


@dataclass(frozen=True)
class Generated:
    """Samples that a model generates, some of `samples` in all."""

    checkpoint: str
    samples: int
    ids: range
    seed: int
    wanted: tuple[Wanted, ...]

    def measure(self, tell: Tell) -> Measured:
        """Generate and measure them."""
        device = best_device()
        model = _model(self.checkpoint, device)
        measured, networks = _nothing(self.wanted, model.shape, device, self.samples)
        for ids in chunks_of(self.ids):
            x, label = generate(model, ids, self.seed, device)
            for wanted, network, sums in zip(self.wanted, networks, measured.features, strict=True):
                logits = sums.add(network, x, ids.start)
                if wanted.answers and logits is not None:
                    measured.answers.add(logits, label)
            tell(len(ids))
        return _on_host(measured)


@dataclass(frozen=True)
class Reference:
    """Real samples of a dataset that others are held against."""

    dataset: Dataset
    ids: range
    wanted: tuple[Wanted, ...]

    def measure(self, tell: Tell) -> Measured:
        """Read and measure them. Raises ShardError."""
        device = best_device()
        measured, networks = _nothing(self.wanted, self.dataset.index.shape, device)
        for ids, sample in read_chunks(self.dataset, self.ids):
            x = to_float(sample.to(device))
            for network, sums in zip(networks, measured.features, strict=True):
                sums.add(network, x, ids.start)
            tell(len(ids))
        return _on_host(measured)


@dataclass(frozen=True)
class Encoded:
    """Real samples of a dataset as a VAE sees them, some of `samples` in all, and their reconstructions."""

    checkpoint: str
    experiment: Experiment
    dataset: Dataset
    samples: int
    ids: range
    wanted: tuple[Wanted, ...]

    def measure(self, tell: Tell) -> Measured:
        """Encode and measure them; features are of their reconstructions. Raises ShardError."""
        device = best_device()
        model = _model(self.checkpoint, device)
        measured, networks = _nothing(self.wanted, self.dataset.index.shape, device)
        observer = VAEObserver.alone(model.networks, self.experiment, self.dataset, device)

        def rebuilt(x: Tensor, ids: range) -> None:
            for network, sums in zip(networks, measured.features, strict=True):
                sums.add(network, x, ids.start)
            tell(len(ids))

        numbered = ((ids.start // CHUNK, ids) for ids in chunks_of(self.ids))
        measured.real = observer.measure(numbered, self.samples, rebuilt).on_host()
        return _on_host(measured)


Piece = Generated | Reference | Encoded


def measure(piece: Piece, tell: Tell = lambda samples: None) -> Measured:
    """What a task does."""
    return piece.measure(tell)


def cut(samples: int) -> list[range]:
    """Numbers of samples in pieces of whole chunks, a few dozen of them at most."""
    chunks = -(-samples // CHUNK)
    size = CHUNK * max(_FEWEST_CHUNKS, -(-chunks // _MOST_PIECES))
    return [range(start, min(start + size, samples)) for start in range(0, samples, size)]


def best_device() -> torch.device:
    """The GPU that this process was given, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def generate(model: Restored, ids: range, seed: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The samples of a chunk, [B, C, *S] in [-1, 1], rounded as stored samples are, and their classes, in turn.

    The networks see whole chunks: a product of fewer rows might be rounded in another way.
    """
    whole = range(ids.start, ids.start + CHUNK)
    label = torch.tensor(whole, device=device) % model.known if model.known else None
    x = to_float(to_uint8(model.generate(CHUNK, NumberedDraw.of(seed, whole, device), label)))
    return x[: len(ids)], None if label is None else label[: len(ids)]


@dataclass(frozen=True)
class NumberedDraw(Draw):
    """The randomness of several samples at once, of each a function of the seed and its number alone.

    Drawn on the CPU, whose numbers are the same everywhere. The first axis of what is drawn is the samples'.
    """

    generators: Sequence[torch.Generator] = ()
    device: torch.device = torch.device("cpu")

    @classmethod
    def of(cls, seed: int, ids: range, device: torch.device) -> NumberedDraw:
        """Of the samples of those numbers, as `Model.sample` draws them."""
        generators = [keyed_draw(seed, 0, "sample", number, torch.device("cpu")).generator for number in ids]
        return cls(0, generators[0], generators, device)

    def normal(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._each(size, lambda draw, one: draw.normal(*one, dtype=dtype))

    def uniform(self, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._each(size, lambda draw, one: draw.uniform(*one, dtype=dtype))

    def integers(self, low: int, high: int, *size: int) -> Tensor:
        return self._each(size, lambda draw, one: draw.integers(low, high, *one))

    def _each(self, size: Sequence[int], drawn: Callable[[Draw, tuple[int, ...]], Tensor]) -> Tensor:
        assert size[0] == len(self.generators)
        one = (1, *size[1:])
        return torch.cat([drawn(Draw(0, generator), one) for generator in self.generators]).to(self.device)


def _nothing(
    wanted: Sequence[Wanted], shape: SampleShape, device: torch.device, samples: int = 0
) -> tuple[Measured, list[FeatureNetwork]]:
    """Sums of no sample yet in the features of the networks, and these."""
    networks = [_network(each.source, shape, device) for each in wanted]
    sums = [
        FeatureSums.empty(network, device, keep=each.keep, scored_samples=samples if each.scored else 0)
        for each, network in zip(wanted, networks, strict=True)
    ]
    return Measured(sums), networks


def _on_host(measured: Measured) -> Measured:
    return Measured([sums.on_host() for sums in measured.features], measured.answers, measured.real)


@lru_cache(maxsize=1)
def _model(url: str, device: torch.device) -> Restored:
    """A process's model, from one piece to the next."""
    return Restored.open(find_checkpoint(url), device)


@lru_cache(maxsize=2)
def _network(source: FeatureSource, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    """A process's feature networks, from one piece to the next."""
    return open_network(source, shape, device)
