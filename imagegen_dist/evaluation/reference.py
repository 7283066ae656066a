"""What generated samples are measured against: a classifier trained on the dataset's own labels, and its features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors.torch import load, save
from torch import nn

from imagegen_dist import config
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.order import Plan
from imagegen_dist.data.stream import stream
from imagegen_dist.distributed import World, wait_for_all
from imagegen_dist.evaluation.observer import Dataset, batches
from imagegen_dist.experiment import CLASSIFIER, build_classifier
from imagegen_dist.metrics.features import FeatureNetwork, agreement, feature_statistics
from imagegen_dist.metrics.frechet import Moments, frechet_distance
from imagegen_dist.models.classifier import Classifier
from imagegen_dist.storage import Store
from imagegen_dist.training.loop import train


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
    share = range(batching.microbatches)
    train(trainer, stream(training.index, training.store, plan, share, 0, steps, training.reading), [])
    network = trainer.averages.modules()["classifier"]
    weights = save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})
    features = _feature_network(network, hashlib.sha256(weights).hexdigest())
    moments = feature_statistics(features, (x for x, _ in batches(training, device)), device)
    facts: dict[str, float | str | None] = {"sha256": features.sha256, "accuracy": None, "real_frechet": None}
    if held_out is not None:
        facts["accuracy"] = _accuracy(features, held_out, device)
        real = feature_statistics(features, (x for x, _ in batches(held_out, device)), device)
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


@torch.no_grad()
def _accuracy(network: FeatureNetwork, dataset: Dataset, device: torch.device) -> float:
    assert network.logits is not None
    hits = [agreement(network.logits(x), label) for x, label in batches(dataset, device) if label is not None]
    return float(torch.cat(hits).mean())
