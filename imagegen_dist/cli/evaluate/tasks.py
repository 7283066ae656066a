"""What a task of an evaluation is sent: where a source of samples comes from, and which of its chunks to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from imagegen_dist.cli.device import best_device
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.evaluation.encoding import Encoded
from imagegen_dist.evaluation.engine import CHUNK, Done, Generated, Measured, Real, Wanted, ids_of, pieces
from imagegen_dist.evaluation.feature_networks import FeatureSource, open_network
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.loading import load
from imagegen_dist.metrics.features import FeatureNetwork
from imagegen_dist.numerics import Numerics
from imagegen_dist.prediction.sampling import chunks_at_once
from imagegen_dist.shape import SampleShape


@dataclass(frozen=True)
class WantedOf:
    """What is measured in the features of the network that a source names; fields as of `Wanted`."""

    source: FeatureSource
    keep: bool = False
    scored: bool = False
    answers: bool = False


@dataclass(frozen=True)
class GeneratedBy:
    """Samples that a model generates. model: URL of a checkpoint or an exported folder."""

    model: str
    samples: int
    seed: int
    classes: RequestedClasses
    wanted: tuple[WantedOf, ...]

    def open(self, device: torch.device) -> Generated:
        """The source, with the model and the networks that this process keeps from one piece to the next."""
        model = _model(self.model, device)
        wanted = _opened(self.wanted, model.shape, device)
        together = _together(self.model, device)
        return Generated(
            model.sampler, self.samples, self.seed, self.classes, wanted, device, together, model.shape.bits
        )


@dataclass(frozen=True)
class RealOf:
    """The first samples of a dataset."""

    dataset: Dataset
    samples: int
    wanted: tuple[WantedOf, ...]

    def open(self, device: torch.device) -> Real:
        """The source."""
        return Real(self.dataset, self.samples, _opened(self.wanted, self.dataset.index.shape, device), device)


@dataclass(frozen=True)
class EncodedBy:
    """The first samples of a dataset as a model encodes them; fields as of `Encoded`."""

    model: str
    dataset: Dataset
    samples: int
    wanted: tuple[WantedOf, ...]
    importance_samples: int = 0
    chosen_factors: tuple[str, ...] = ()

    def open(self, device: torch.device) -> Encoded:
        """The source. Raises ValueError if the model is no autoencoder."""
        model = _model(self.model, device)
        if not isinstance(model, AutoencoderModel):
            raise ValueError(f"{self.model} is no autoencoder")
        wanted = _opened(self.wanted, model.shape, device)
        of = model.autoencoder, self.dataset, self.samples, wanted, device
        together = 1 if self.importance_samples else _together(self.model, device)
        return Encoded(*of, bool(model.label_width), self.importance_samples, self.chosen_factors, together)


@dataclass(frozen=True)
class Piece:
    """Some chunks of a source: what one task measures."""

    of: GeneratedBy | RealOf | EncodedBy
    chunks: range

    @property
    def samples(self) -> int:
        """How many samples these are."""
        return ids_of(self.chunks[-1], self.of.samples).stop - ids_of(self.chunks[0], self.of.samples).start


def cut(of: GeneratedBy | RealOf | EncodedBy) -> list[Piece]:
    """The whole source in pieces."""
    return [Piece(of, chunks) for chunks in pieces(of.samples)]


def measure(piece: Piece, done: Done = lambda samples: None) -> Measured:
    """What a task does. Raises what reading its samples raises."""
    device = best_device()
    with _numerics(piece.of, device).applied():
        return piece.of.open(device).measure(piece.chunks, done).on_host()


def _numerics(of: GeneratedBy | RealOf | EncodedBy, device: torch.device) -> Numerics:
    """How a GPU computes: for samples of a model, as in its training."""
    return Numerics() if isinstance(of, RealOf) else _model(of.model, device).numerics


def _opened(wanted: Sequence[WantedOf], shape: SampleShape, device: torch.device) -> list[Wanted]:
    return [Wanted(_network(each.source, shape, device), each.keep, each.scored, each.answers) for each in wanted]


@lru_cache(maxsize=1)
def _model(url: str, device: torch.device) -> GeneratorModel | AutoencoderModel:
    return load(url, device)


@lru_cache(maxsize=1)
def _together(url: str, device: torch.device) -> int:
    model = _model(url, device)
    return chunks_at_once(model.sampler, model.label_width, device, CHUNK, model.conditions is not None)


@lru_cache(maxsize=2)
def _network(source: FeatureSource, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    return open_network(source, shape, device)
