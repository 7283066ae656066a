"""Feature networks, and what is measured in their features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

from imagegen_dist.metrics.class_scores import ClassScores
from imagegen_dist.metrics.frechet import Moments
from imagegen_dist.shape import SampleShape

_AVERAGE: dict[int, Callable[..., Tensor]] = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}
_PIXEL_EXTENT = 16


@dataclass(frozen=True)
class FeatureNetwork:
    """A fixed network in whose features distributions are compared.

    name: what a figure says beside it, e.g. "digit classifier".
    sha256: hash of its weights: figures compare only where it is equal, and it keys cached statistics.
    dim: number of features F.
    features: samples [B, C, *S] float in [-1, 1] -> [B, F].
    logits: samples [B, C, *S] float in [-1, 1] -> [B, K], where the network is a classifier.
    head: features [B, F] -> the same logits, where they follow from the features.
    classes: K, where there are logits.
    resize: how samples come to the size that the network takes, e.g. "bilinear (TensorFlow 1) to 299×299".
    """

    name: str
    sha256: str
    dim: int
    features: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor] | None = None
    head: Callable[[Tensor], Tensor] | None = None
    classes: int = 0
    resize: str = "none"

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both of samples, in one pass where that can be; None in place of logits where there are none."""
        features = self.features(x)
        if self.head is not None:
            return features, self.head(features)
        return features, None if self.logits is None else self.logits(x)


def pixel_network(shape: SampleShape) -> FeatureNetwork:
    """The samples themselves, averaged down to 16 positions an axis at most: where no network is at hand."""
    extents = [min(extent, _PIXEL_EXTENT) for extent in shape.spatial]
    name = f"pixels averaged to {' × '.join(map(str, extents))}"

    def features(x: Tensor) -> Tensor:
        return _AVERAGE[shape.ndim](x, extents).flatten(1)

    return FeatureNetwork(name, hashlib.sha256(name.encode()).hexdigest(), shape.channels * prod(extents), features)


KEPT_AT_MOST = 50_000
"""Samples whose features themselves are kept, the first ones: comparing each with each costs their square."""


@dataclass
class FeatureSums:
    """What samples leave behind in a network's features: moments, class scores, and the features where they are kept.

    Any split of the samples into batches and parts, added up in their order, gives one value.
    """

    moments: Moments
    scores: ClassScores | None = None
    kept: list[Tensor] | None = None

    @classmethod
    def empty(
        cls, network: FeatureNetwork, device: torch.device | str, *, keep: bool = False, scored_samples: int = 0
    ) -> FeatureSums:
        """Of no sample yet.

        keep: whether the features themselves are kept, of the first KEPT_AT_MOST. scored_samples: how many samples
        there will be in all, where classes are scored, else 0.
        """
        scores = ClassScores(scored_samples, network.classes, device=device) if scored_samples else None
        return cls(Moments(network.dim, device), scores, [] if keep else None)

    @torch.no_grad()
    def add(self, network: FeatureNetwork, x: Tensor, first: int) -> Tensor | None:
        """Count in samples x [B, C, *S] in [-1, 1], numbered from `first` on; their logits [B, K], if there are any."""
        features, logits = network.features_and_logits(x)
        self.moments.add(features)
        if self.scores is not None:
            assert logits is not None
            self.scores.add(logits, first)
        if self.kept is not None and first < KEPT_AT_MOST:
            self.kept.append(features[: KEPT_AT_MOST - first].float().cpu())
        return logits

    def merge(self, other: FeatureSums) -> None:
        """Count in what another one has counted, of samples that follow these."""
        self.moments = self.moments.merge(other.moments)
        if self.scores is not None and other.scores is not None:
            self.scores.merge(other.scores)
        if self.kept is not None and other.kept is not None:
            self.kept += other.kept

    def features(self) -> Tensor:
        """The features that were kept, [N, F] float32 on the CPU, in the order of the samples."""
        assert self.kept is not None
        return torch.cat(self.kept) if self.kept else torch.empty(0, self.moments.dim)

    def on_host(self) -> FeatureSums:
        """The same on the CPU, the kept features in one piece."""
        scores = None if self.scores is None else self.scores.on_host()
        return FeatureSums(
            Moments.decode(self.moments.encode()), scores, None if self.kept is None else [self.features()]
        )


def feature_statistics(
    network: FeatureNetwork, batches: Iterable[Tensor], device: torch.device | str | None = None
) -> Moments:
    """Moments of the network's features over batches [B, C, *S] in [-1, 1].

    device: where the sums are kept, by default where the first batch's features are; a rank that may get no batch at
    all names it, so that its sums can be reduced with the others'.
    """
    moments = None if device is None else Moments(network.dim, device)
    with torch.no_grad():
        for batch in batches:
            features = network.features(batch)
            if moments is None:
                moments = Moments(network.dim, features.device)
            moments.add(features)
    return Moments(network.dim) if moments is None else moments


def agreement(logits: Tensor, label: Tensor) -> Tensor:
    """1 where the likeliest class is the label, else 0: logits [B, K], label [B] -> [B] float32."""
    return (logits.argmax(1) == label).float()
