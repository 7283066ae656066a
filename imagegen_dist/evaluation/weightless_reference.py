"""The reference of the distances that need no weights, during training: real and held-out samples, measured once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.distributed import World, together
from imagegen_dist.evaluation.engine import Wanted
from imagegen_dist.evaluation.figures import Comparison, Figure, compare, compare_reconstructions
from imagegen_dist.evaluation.named_reference import moments_over_ranks
from imagegen_dist.evaluation.weightless import weightless_kinds, weightless_network
from imagegen_dist.metrics.features import FeatureNetwork, FeatureSums
from imagegen_dist.storage import Store


@dataclass(frozen=True)
class WeightlessReference:
    """Real samples in the features of every network for their modality; none for images.

    real, held_out: statistics of as many of the first samples as are generated, in the order of the networks.
    """

    networks: Sequence[tuple[str, FeatureNetwork]] = ()
    real: Sequence[FeatureSums] = ()
    held_out: Sequence[FeatureSums | None] = ()

    @property
    def wanted(self) -> list[Wanted]:
        """What is measured of generated samples."""
        return [Wanted(network) for _, network in self.networks]

    def compare(self, generated: Sequence[FeatureSums]) -> list[Figure]:
        """Their distances, each with that of held-out samples. Raises ValueError for fewer than 2 samples."""
        sums = zip(self.networks, generated, self.real, self.held_out, strict=True)
        return [
            figure
            for (kind, _), ours, real, held_out in sums
            for figure in compare([kind], Comparison(ours, real, kind, held_out=held_out))
        ]

    def compare_reconstructions(self, rebuilt: Sequence[FeatureSums]) -> list[Figure]:
        """The distances of reconstructions."""
        sums = zip(self.networks, rebuilt, self.real, strict=True)
        return [compare_reconstructions(kind, ours, real) for (kind, _), ours, real in sums]


def find_weightless(
    cache: Store,
    training: Dataset,
    held_out: Dataset | None,
    samples: int,
    world: World,
    device: torch.device,
    say: Callable[[str], None],
) -> WeightlessReference:
    """The reference of a run, from the cache, or computed and cached. Called by every rank.

    samples: the number of generated samples, 2 or more: as many real ones are taken, since these distances shrink with
    their number.
    """
    index = training.index
    kinds = weightless_kinds(index.modality, index.shape)
    networks = together(
        lambda: [(kind, weightless_network(kind, index.shape, device)) for kind in kinds], world, device
    )

    say_once = functools.cache(say)

    def sums_of(dataset: Dataset | None, network: FeatureNetwork) -> FeatureSums | None:
        count = min(samples, dataset.index.samples) if dataset is not None else 0
        if dataset is None or count < 2:
            return None
        return FeatureSums(moments_over_ranks(cache, dataset, count, network, world, device, say_once))

    real = [sums_of(training, network) for _, network in networks]
    if None in real:
        return WeightlessReference()
    return WeightlessReference(
        networks, [sums for sums in real if sums], [sums_of(held_out, network) for _, network in networks]
    )
