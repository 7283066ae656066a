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

from imagegen_dist.data.modality import to_float
from imagegen_dist.evaluation.asked_classes import AskedClasses
from imagegen_dist.evaluation.evaluator import CHUNK, Dataset
from imagegen_dist.evaluation.feature_networks import FeatureSource, open_network
from imagegen_dist.evaluation.figures import Answers
from imagegen_dist.evaluation.reading import chunks_of, read_chunks
from imagegen_dist.evaluation.vae import RealSums, VAEEvaluator
from imagegen_dist.experiment import Experiment
from imagegen_dist.inference.loading import load
from imagegen_dist.inference.model import AutoencoderModel, GeneratorModel, Model
from imagegen_dist.metrics.features import FeatureNetwork, FeatureSums
from imagegen_dist.shape import SampleShape

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
    # Of real samples, what a VAE's evaluator adds up.
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
    """Samples that a model generates, some of `samples` in all. model: URL of a checkpoint or an exported folder."""

    model: str
    samples: int
    ids: range
    seed: int
    classes: AskedClasses
    wanted: tuple[Wanted, ...]

    def measure(self, tell: Tell) -> Measured:
        """Generate and measure them."""
        device = best_device()
        model = _model(self.model, device)
        measured, networks = _nothing(self.wanted, model.shape, device, self.samples)
        for ids in chunks_of(self.ids):
            x, label = generate(model, ids, self.seed, self.classes)
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

    model: str
    experiment: Experiment
    dataset: Dataset
    samples: int
    ids: range
    wanted: tuple[Wanted, ...]

    def measure(self, tell: Tell) -> Measured:
        """Encode and measure them; features are of their reconstructions. Raises ShardError."""
        device = best_device()
        model = _model(self.model, device)
        measured, networks = _nothing(self.wanted, self.dataset.index.shape, device)
        evaluator = VAEEvaluator.alone(dict(model.networks.items()), self.experiment, self.dataset, device)

        def rebuilt(x: Tensor, ids: range) -> None:
            for network, sums in zip(networks, measured.features, strict=True):
                sums.add(network, x, ids.start)
            tell(len(ids))

        numbered = ((ids.start // CHUNK, ids) for ids in chunks_of(self.ids))
        measured.real = evaluator.measure(numbered, self.samples, rebuilt).on_host()
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
def generate(model: Model, ids: range, seed: int, classes: AskedClasses) -> tuple[Tensor, Tensor | None]:
    """The samples of those numbers, [B, C, *S] in [-1, 1] and rounded as stored ones are, and their classes."""
    label = classes.of(ids, model.device)
    return to_float(model.generate(model.latents(len(ids), seed, ids.start), label)), label


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
def _model(url: str, device: torch.device) -> GeneratorModel | AutoencoderModel:
    """A process's model, from one piece to the next; its networks see whole chunks."""
    model = load(url, device)
    model.batch = CHUNK
    return model


@lru_cache(maxsize=2)
def _network(source: FeatureSource, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    """A process's feature networks, from one piece to the next."""
    return open_network(source, shape, device)
