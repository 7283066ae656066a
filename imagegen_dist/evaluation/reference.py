"""The reference of the metrics: a classifier trained on the dataset's own labels, and statistics of its features.

The labels are classes, or named conditions, which the same network then recognises part by part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from safetensors.torch import load, save
from torch import Tensor

from imagegen_dist import config
from imagegen_dist.conditions.part import Conditions
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import modality, to_float
from imagegen_dist.data.order import Plan
from imagegen_dist.data.stacked import channel_classes
from imagegen_dist.data.stream import Item, stream
from imagegen_dist.distributed import World, together
from imagegen_dist.documents import parse_json
from imagegen_dist.experiment import network_generator
from imagegen_dist.metrics.chance import doubts
from imagegen_dist.metrics.features import FeatureNetwork, agreement, feature_statistics, of_classes
from imagegen_dist.metrics.frechet import Moments, frechet_distance
from imagegen_dist.metrics.recognition import Recognition
from imagegen_dist.models.classifier import (
    ChannelClassifier,
    Classifier,
    PooledClassifier,
    build_classifier,
    classifier_config,
)
from imagegen_dist.objectives.classify import Classify, ClassifyConfig
from imagegen_dist.objectives.interface import AdamConfig
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.loop import Batching, Hook, Trainer, train
from imagegen_dist.training.optim import ScheduledAdam

_SHIFT = 2  # pixels by which samples are moved in training the classifier; along time, they stay
_FACTS = "facts.json"  # written last
_FORM, _FORM_OF_CONDITIONS = 3, 4  # of what is cached


@dataclass(frozen=True)
class Reference:
    """What generated samples are compared with.

    network: a feature network, by default a classifier of the dataset's labels. accuracy: of the classifier on held-out
    samples, or None; of conditions, that of their only class part, or None. moments: of its features over the training
    samples. real_frechet: the distance of held-out real samples from these, if there are two or more. class_counts:
    training samples of each class that the network knows, [K]; empty if it knows none of them. recognised: how well the
    network recognises the conditions of held-out samples, by the names of `Recognition.figures`. doubts: what it hardly
    recognises of these, or of the training samples if there are none (`metrics.chance.doubts`).
    """

    network: FeatureNetwork
    accuracy: float | None
    moments: Moments
    real_frechet: float | None
    class_counts: Tensor
    recognised: Mapping[str, float] = field(default_factory=dict)
    doubts: Mapping[str, float] = field(default_factory=dict)


def build_reference(
    cache: Store,
    training: Dataset,
    held_out: Dataset | None,
    images: int,
    world: World,
    device: torch.device,
    say: Callable[[str], None],
) -> Reference:
    """Load the reference of a dataset from the cache, or let rank 0 train and cache it. Called by every rank.

    If each channel shows a class (`channel_classes`), one classifier is applied to every channel, as in the protocol of
    StackedMNIST. held_out: with conditions as those of the training samples (`Dataset.told_as`). images: number of
    training images. Raises ValueError if the dataset has no labels.
    """
    store = reference_store(cache, training, held_out, images)

    def make() -> None:
        if world.is_main and not is_kept(store):
            say(f"training a classifier on {training.index.samples:,} real samples, for the metrics")
            _make_reference(store, training, held_out, images, world, device)

    together(make, world, device)
    return together(lambda: _load_reference(store, training.index, device), world, device)


def reference_store(cache: Store, training: Dataset, held_out: Dataset | None, images: int) -> Store:
    """Where the reference of a dataset is cached. Arguments as for `build_reference`."""
    parts = {
        "form": _FORM if training.index.conditions is None else _FORM_OF_CONDITIONS,
        "training": training.index.fingerprint,
        "held_out": held_out.index.fingerprint if held_out else None,
        "classifier": config.encode(classifier_config(training.index.shape)),
        "images": images,
        "torch": torch.__version__.split("+")[0],
    }
    return cache / "features" / config.fingerprint(parts)[:16]


def is_kept(store: Store) -> bool:
    """True if a complete reference is cached."""
    return store.exists(_FACTS)


def _build_classifier(index: DatasetIndex, device: torch.device, images: int) -> Trainer:
    """A classifier of a dataset's own labels before its first step, for the same training loop, in a single process.

    images: number of training images. Raises ValueError if there are fewer than two classes.
    """
    classifier = build_classifier(*_classified(index), generator=network_generator(0, "classifier"))
    shifts = tuple(0 if axis == "T" else _SHIFT for axis in modality(index.modality).axes)
    objective = Classify(classifier.to(device), ClassifyConfig(shifts), index.conditions)
    optimizer = AdamConfig(lr=Schedule(2e-3, 1e-5, images), beta1=0.9, beta2=constant(0.99))
    return Trainer(
        objective,
        {"classifier": ScheduledAdam(classifier, optimizer)},
        EMA(objective.modules(), objective.averaged(), constant(2_000)),
        Batching(64, 64),
        World(),
        device,
        seed=0,
    )


def _make_reference(
    store: Store, training: Dataset, held_out: Dataset | None, images: int, world: World, device: torch.device
) -> None:
    """Train and cache the classifier, on this rank only; raises Stopped if the run was asked to stop."""
    trainer = _build_classifier(training.index, device, images)
    batching = trainer.batching
    plan = Plan(
        seed=0, microbatches=batching.microbatches, microbatch_size=batching.microbatch_size, draws=1, lanes=64, block=8
    )
    steps = -(-images // batching.batch_size)
    share = range(batching.microbatches)
    items = stream(training.index, training.store, plan, share, 0, steps, training.reading)
    shown = _shown(training.index)
    train(trainer, items if shown is None else _single_channels(items, shown), [Hook(batching.batch_size, world.heed)])
    network = cast(Classifier | PooledClassifier, trainer.averages.modules()["classifier"])
    weights = save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})
    features = _feature_network(network, training.index, hashlib.sha256(weights).hexdigest())
    moments, class_counts = Moments(features.dim, device), torch.zeros(features.classes, dtype=torch.int64)
    with torch.no_grad():
        for x, label in world.heeding(_batches(training, device)):
            assert label is not None
            moments.add(features.features(x))
            if features.classes:
                class_counts += torch.bincount(
                    _classes_of(label, features.conditions).cpu(), minlength=features.classes
                )
    facts: dict[str, Any] = {"sha256": features.sha256, "accuracy": None, "real_frechet": None}
    if held_out is None or held_out.index.labels is None:
        facts["on_training"] = _held_out_facts(features, training, world, device)
    if held_out is not None:
        facts |= _held_out_facts(features, held_out, world, device)
        if held_out.index.samples > 1:
            real = feature_statistics(features, (x for x, _ in world.heeding(_batches(held_out, device))), device)
            facts["real_frechet"] = frechet_distance(real, moments)
    store.write("classifier.safetensors", weights)
    store.write("moments.safetensors", save(moments.encode() | {"class_counts": class_counts}))
    store.write(_FACTS, json.dumps(facts).encode())


def _load_reference(store: Store, index: DatasetIndex, device: torch.device) -> Reference:
    facts = parse_json(store.read(_FACTS))
    classifier = build_classifier(*_classified(index), generator=torch.Generator())
    classifier.load_state_dict(load(store.read("classifier.safetensors")))
    network = _feature_network(classifier.to(device), index, facts["sha256"])
    sums = load(store.read("moments.safetensors"))
    class_counts = sums.pop("class_counts").to(device)
    moments, recognised = Moments.decode(sums, device), facts.get("recognised", {})
    known = facts.get("on_training", facts)
    chance = float(class_counts.max() / class_counts.sum()) if class_counts.sum() else None
    doubted = doubts(known["accuracy"], chance, known.get("recognised", {}), known.get("chances", {}))
    return Reference(network, facts["accuracy"], moments, facts["real_frechet"], class_counts, recognised, doubted)


def _shown(index: DatasetIndex) -> Tensor | None:
    """The class that each channel shows, by the sample's class, [K, C]; None if channels have no own classes."""
    table = channel_classes(index)
    return None if table is None else torch.from_numpy(table)


def _classified(index: DatasetIndex) -> tuple[SampleShape, int]:
    """Shape of the classifier's inputs, whole samples or their single channels, and number of its outputs.

    Raises ValueError if there are fewer than two classes and no conditions.
    """
    if index.conditions is not None:
        return index.shape, index.conditions.width
    if (index.classes or 0) < 2:
        raise ValueError(
            f"{index.classes or 0} classes: a classifier needs a dataset with labels of at least 2 classes"
        )
    shown = _shown(index)
    if shown is None:
        return index.shape, index.classes or 0
    return replace(index.shape, channels=1), int(shown.max()) + 1


def _single_channels(items: Iterator[Item], shown: Tensor) -> Iterator[Item]:
    """One channel of every sample, in turn, with the class that it shows."""
    for item in items:
        assert item.label is not None
        at = torch.arange(item.id.numel()).view(item.id.shape) % shown.shape[1]
        sample = item.sample.flatten(0, 2)[torch.arange(at.numel()), at.flatten(), None].unflatten(0, item.id.shape)
        yield replace(item, sample=sample, label=shown[item.label, at])


def _feature_network(classifier: Classifier | PooledClassifier, index: DatasetIndex, sha256: str) -> FeatureNetwork:
    classifier.eval().requires_grad_(False)
    if index.conditions is not None:
        return _of_conditions(classifier, index.conditions, sha256)
    shown, classes, width = _shown(index), index.classes or 0, classifier.output.weight.shape[1]
    if shown is None:
        name, dim = "classifier of the dataset's labels", width
        return FeatureNetwork(name, sha256, dim, classifier.features, classifier, classifier.output, classes)
    assert isinstance(classifier, Classifier)
    channels = ChannelClassifier(classifier, shown.to(next(classifier.parameters()).device))
    dim = shown.shape[1] * width
    return FeatureNetwork(
        "classifier of every channel", sha256, dim, channels.features, channels, channels.head, classes
    )


def _of_conditions(classifier: Classifier | PooledClassifier, conditions: Conditions, sha256: str) -> FeatureNetwork:
    name, only = "classifier of the dataset's conditions", conditions.only_class
    return FeatureNetwork(
        *(name, sha256, classifier.output.weight.shape[1], classifier.features, classifier, classifier.output),
        classes=only.size if only is not None else 0,
        conditions=conditions,
    )


def _classes_of(label: Tensor, conditions: Conditions | None) -> Tensor:
    """The class of each sample, int64 [B]: its label, or that in the only part of its conditions that is a class."""
    return label if conditions is None else of_classes(label, conditions).argmax(1)


@torch.no_grad()
def _held_out_facts(network: FeatureNetwork, dataset: Dataset, world: World, device: torch.device) -> dict[str, Any]:
    """How well the network recognises a dataset's labels; nothing if it has none."""
    assert network.logits is not None
    if dataset.index.labels is None:
        return {"accuracy": None}
    recognised = None if network.conditions is None else Recognition(network.conditions)
    hits = []
    for x, label in world.heeding(_batches(dataset, device)):
        assert label is not None
        logits = network.logits(x)
        if network.classes:
            hits.append(agreement(network.class_logits(logits), _classes_of(label, network.conditions)))
        if recognised is not None:
            recognised.add(logits, label)
    accuracy = float(torch.cat(hits).mean()) if hits else None
    if recognised is None:
        return {"accuracy": accuracy}
    return {"accuracy": accuracy, "recognised": recognised.figures(), "chances": recognised.chances()}


def _batches(dataset: Dataset, device: torch.device, size: int = 250) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The whole dataset once, in the order of its shards: [B, C, *S] in [-1, 1] and labels."""
    for start in range(0, dataset.index.samples, size):
        sample, label = dataset.read(range(start, min(start + size, dataset.index.samples)))
        yield to_float(sample.to(device)), None if label is None else label.to(device)
