"""Figures of generated samples, in the features of a classifier that is trained on the dataset's own labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from imagegen_dist import config
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import to_float, to_uint8
from imagegen_dist.data.order import Plan
from imagegen_dist.data.stream import read_samples, stream
from imagegen_dist.distributed import World, sum_over_ranks, wait_for_all
from imagegen_dist.experiment import CLASSIFIER, Experiment, build_classifier, conditioning
from imagegen_dist.metrics.features import FeatureNetwork, agreement, feature_statistics
from imagegen_dist.metrics.frechet import Moments, frechet_distance
from imagegen_dist.models.classifier import Classifier
from imagegen_dist.storage import Store
from imagegen_dist.training.loop import keyed_draw, train

CHUNK = 50
"""Samples generated at a time; its latents depend on its number alone, so any number of workers gives one value."""

GRID_ROWS = 10
"""Samples of each class in a grid."""


class Observer(Protocol):
    """What is looked at while a kind of model trains."""

    # The figure by which the best checkpoint is kept (lower is better), and the picture that the report shows.
    figure: str
    picture: str

    def figures(self) -> dict[str, float]:
        """Figures by plain name; called on every rank, equal on all of them; empty where none can be taken."""
        ...

    def pictures(self) -> dict[str, tuple[np.ndarray, int]]:
        """By name, samples uint8 [N, C, *S] and in how many columns they are shown; called on rank 0."""
        ...


@dataclass(frozen=True)
class Dataset:
    """An indexed dataset and where its shards are."""

    index: DatasetIndex
    store: Store

    @classmethod
    def open(cls, url: str) -> Dataset:
        """Load the index at `url`. Raises DatasetError."""
        store = Store(url)
        index = DatasetIndex.load(store)
        return cls(index, index.location(store))


@dataclass(frozen=True)
class Reference:
    """What generated samples are measured against.

    network: a classifier of the dataset's labels. accuracy: its share of right answers on held-out samples, or None.
    moments: of its features over the training samples. real_frechet: the distance of held-out real samples from these.
    """

    network: FeatureNetwork
    accuracy: float | None
    moments: Moments
    real_frechet: float | None


def build_reference(
    cache: Store,
    training: Dataset,
    held_out: Dataset | None,
    images: int,
    world: World,
    device: torch.device,
    say: Callable[[str], None],
) -> Reference:
    """Load the reference of a dataset from the cache, or let rank 0 train and keep it. Called by every rank.

    images: on how many the classifier is trained. Raises ValueError where the dataset has no labels.
    """
    parts = {
        "training": training.index.fingerprint,
        "held_out": held_out.index.fingerprint if held_out else None,
        "classifier": config.encode(CLASSIFIER),
        "images": images,
        "torch": torch.__version__.split("+")[0],
    }
    store = cache / "features" / config.fingerprint(parts)[:16]
    if world.is_main and not store.exists("facts.json"):
        say(f"training a classifier on {training.index.samples:,} real samples, for the figures")
        _make_reference(store, training, held_out, images, device)
    wait_for_all(world)
    return _load_reference(store, training.index, device)


def _make_reference(
    store: Store, training: Dataset, held_out: Dataset | None, images: int, device: torch.device
) -> None:
    trainer = build_classifier(training.index, device, images)
    batching = trainer.batching
    plan = Plan(
        seed=0, microbatches=batching.microbatches, microbatch_size=batching.microbatch_size, draws=1, lanes=64, block=8
    )
    steps = -(-images // batching.batch_size)
    train(trainer, stream(training.index, training.store, plan, range(batching.microbatches), 0, steps), [])
    network = trainer.averages.modules()["classifier"]
    weights = save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})
    features = _feature_network(network, hashlib.sha256(weights).hexdigest())
    moments = feature_statistics(features, (x for x, _ in _batches(training, device)), device)
    facts: dict[str, float | str | None] = {"sha256": features.sha256, "accuracy": None, "real_frechet": None}
    if held_out is not None:
        facts["accuracy"] = _accuracy(features, held_out, device)
        real = feature_statistics(features, (x for x, _ in _batches(held_out, device)), device)
        facts["real_frechet"] = frechet_distance(real, moments)
    store.write("classifier.safetensors", weights)
    store.write("moments.safetensors", save(moments.encode()))
    store.write("facts.json", json.dumps(facts).encode())


def _load_reference(store: Store, index: DatasetIndex, device: torch.device) -> Reference:
    facts = json.loads(store.read("facts.json"))
    classifier = Classifier(index.shape, index.classes or 0, CLASSIFIER, generator=torch.Generator())
    classifier.load_state_dict(load(store.read("classifier.safetensors")))
    network = _feature_network(classifier.to(device), facts["sha256"])
    moments = Moments.decode(load(store.read("moments.safetensors")), device)
    return Reference(network, facts["accuracy"], moments, facts["real_frechet"])


def _feature_network(classifier: nn.Module, sha256: str) -> FeatureNetwork:
    assert isinstance(classifier, Classifier)
    classifier.eval().requires_grad_(False)
    return FeatureNetwork(
        "classifier of the dataset's labels", sha256, CLASSIFIER.features, classifier.features, classifier
    )


def _batches(dataset: Dataset, device: torch.device, size: int = 250) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The whole dataset once, in the order of its shards: [B, C, *S] in [-1, 1] and labels."""
    for start in range(0, dataset.index.samples, size):
        ids = range(start, min(start + size, dataset.index.samples))
        sample, label = read_samples(dataset.index, dataset.store, ids)
        yield to_float(sample.to(device)), None if label is None else label.to(device)


@torch.no_grad()
def _accuracy(network: FeatureNetwork, dataset: Dataset, device: torch.device) -> float:
    assert network.logits is not None
    hits = [agreement(network.logits(x), label) for x, label in _batches(dataset, device) if label is not None]
    return float(torch.cat(hits).mean())


class GANObserver:
    """Looks at the averaged generator: a grid of the same latents, a column a class; figures where data have labels."""

    figure = "frechet"
    picture = "grid"

    def __init__(
        self,
        generator: nn.Module,
        experiment: Experiment,
        training: Dataset,
        held_out: Dataset | None,
        cache: Store,
        world: World,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self._generator = generator
        self._experiment = experiment
        self._training = training
        self._held_out = held_out
        self._cache = cache
        self._world = world
        self._device = device
        self._say = say
        self._classes = conditioning(experiment, training.index.classes)
        self._z_dim = cast(int, generator.z_dim)
        self._reference: Reference | None = None

    def figures(self) -> dict[str, float]:
        """ "frechet" and "label_agreement" of generated samples, "frechet_real" of held-out real ones beside them."""
        evaluation = self._experiment.evaluation
        if not evaluation.samples or not self._training.index.classes:
            return {}
        if self._reference is None:
            self._reference = build_reference(
                self._cache,
                self._training,
                self._held_out,
                evaluation.classifier_images,
                self._world,
                self._device,
                self._say,
            )
        reference = self._reference
        figures = self._of_generated(reference, evaluation.samples)
        if reference.real_frechet is not None:
            figures["frechet_real"] = reference.real_frechet
        if reference.accuracy is not None:
            figures["classifier_accuracy"] = reference.accuracy
        return figures

    @torch.no_grad()
    def pictures(self) -> dict[str, tuple[np.ndarray, int]]:
        """The grid, rounded as a stored image is."""
        columns = self._classes if 0 < self._classes <= 20 else 10
        count = columns * GRID_ROWS
        label = None
        if self._classes:
            label = torch.arange(count, device=self._device) % columns * self._classes // columns
        draw = keyed_draw(self._experiment.training.seed, 0, "grid", 0, self._device)
        x = self._generator(draw.normal(count, self._z_dim), label)
        return {"grid": (to_uint8(x).cpu().numpy(), columns)}

    @torch.no_grad()
    def _of_generated(self, reference: Reference, samples: int) -> dict[str, float]:
        """Figures of `samples` generated samples, their classes in turn; the ranks share the work, all get them."""
        moments = Moments(reference.network.dim, self._device)
        hits = torch.zeros(2, dtype=torch.float64, device=self._device)
        for chunk in range(self._world.rank, -(-samples // CHUNK), self._world.size):
            size = min(CHUNK, samples - chunk * CHUNK)
            draw = keyed_draw(0, 0, "evaluate", chunk, self._device)
            label = None
            if self._classes:
                label = (torch.arange(size, device=self._device) + chunk * CHUNK) % self._classes
            x = to_float(to_uint8(self._generator(draw.normal(size, self._z_dim), label)))
            moments.add(reference.network.features(x))
            if label is not None and reference.network.logits is not None:
                right = agreement(reference.network.logits(x), label).double()
                hits += torch.stack([right.sum(), torch.ones_like(right).sum()])
        moments = moments.reduce(lambda values: sum_over_ranks(values, self._world))
        figures = {"frechet": frechet_distance(moments, reference.moments)}
        right, asked = sum_over_ranks(hits, self._world).tolist()
        if asked:
            figures["label_agreement"] = right / asked
        return figures
