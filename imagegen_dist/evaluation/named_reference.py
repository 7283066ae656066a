"""The reference of the metrics during training, in the features of the network that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.distributed import World, text_from_main, together
from imagegen_dist.evaluation.engine import Real, Wanted, over_ranks
from imagegen_dist.evaluation.feature_networks import CLASSIFIER, FeatureSource, open_network
from imagegen_dist.evaluation.reference import Reference, build_reference, is_kept, reference_store
from imagegen_dist.evaluation.statistics import StatisticsKey, find_statistics, keep_statistics
from imagegen_dist.evaluation.weightless import WEIGHTLESS, modality_of
from imagegen_dist.metrics.features import FeatureNetwork, FeatureSums
from imagegen_dist.metrics.frechet import Moments, frechet_distance
from imagegen_dist.settings import EvaluationConfig
from imagegen_dist.storage import Store


def can_compare(evaluation: EvaluationConfig, index: DatasetIndex) -> bool:
    """True if samples can be compared: a network is named, or the labels can train one."""
    return bool(named_source(evaluation) or index.tells)


def named_source(evaluation: EvaluationConfig) -> FeatureSource | None:
    """The network that a run's settings name; None for a classifier of the dataset's labels. Raises ValueError."""
    if evaluation.features in ("", CLASSIFIER):
        return None
    if evaluation.features in WEIGHTLESS:
        raise ValueError(
            f"--evaluation.features {evaluation.features}: that distance is taken of all "
            f"{modality_of(evaluation.features)} anyway; leave it out"
        )
    source = FeatureSource.parse(evaluation.features, evaluation.resize, "--evaluation.")
    return replace(source, weights=evaluation.weights, sha256=evaluation.weights_sha256)


def is_reference_kept(cache: Store, training: Dataset, held_out: Dataset | None, evaluation: EvaluationConfig) -> bool:
    """True if `find_reference` has nothing left to compute; for a named network, this is not checked."""
    if named_source(evaluation) is not None:
        return False
    return is_kept(reference_store(cache, training, held_out, evaluation.classifier_images))


def find_reference(
    cache: Store,
    training: Dataset,
    held_out: Dataset | None,
    evaluation: EvaluationConfig,
    world: World,
    device: torch.device,
    say: Callable[[str], None],
) -> Reference:
    """The reference of a run's metrics, from the cache, or computed and cached. Called by every rank.

    Raises ValueError if the named network is not available, or if none is named and the dataset has no labels.
    """
    source = named_source(evaluation)
    if source is None:
        return build_reference(cache, training, held_out, evaluation.classifier_images, world, device, say)
    network = together(lambda: open_network(source, training.index.shape, device), world, device)
    moments = moments_over_ranks(cache, training, training.index.samples, network, world, device, say)
    real = None
    if held_out is not None and held_out.index.samples > 1:
        others = moments_over_ranks(cache, held_out, held_out.index.samples, network, world, device, say)
        real = together(lambda: frechet_distance(others, moments), world, device)
    # Its classes, if any, are not the dataset's.
    unclassified = torch.zeros(0, dtype=torch.int64, device=device)
    return Reference(replace(network, logits=None, head=None, classes=0), None, moments, real, unclassified)


def moments_over_ranks(
    cache: Store,
    dataset: Dataset,
    samples: int,
    network: FeatureNetwork,
    world: World,
    device: torch.device,
    say: Callable[[str], None],
) -> Moments:
    """Moments of a dataset's first samples, from the cache, or summed by all ranks and cached by rank 0.

    Called by every rank.
    """
    key = StatisticsKey.of(dataset.index.fingerprint, samples, network)
    known = together(lambda: world.is_main and find_statistics(cache, key) is not None, world, device)
    if text_from_main("known" if known else "", world, device):
        return together(lambda: _kept_moments(cache, key, device), world, device)
    if world.is_main:
        say(f"computing statistics of {samples:,} real samples, for the metrics")
    source = Real(dataset, samples, [Wanted(network)], device)
    moments = over_ranks(source, world, device).features[0].moments

    def keep() -> None:
        if world.is_main:
            keep_statistics(cache, key, FeatureSums(moments))

    together(keep, world, device)
    return moments


def _kept_moments(cache: Store, key: StatisticsKey, device: torch.device) -> Moments:
    found = find_statistics(cache, key)
    assert found is not None
    return Moments.decode(found.moments.encode(), device)
