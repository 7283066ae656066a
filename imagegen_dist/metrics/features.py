"""Feature networks, and statistics of their features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.metrics.class_scores import ClassScores
from imagegen_dist.metrics.frechet import Moments
from imagegen_dist.shape import SampleShape

_AVERAGE: dict[int, Callable[..., Tensor]] = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}
_PIXEL_EXTENT = 16


@dataclass(frozen=True)
class FeatureNetwork:
    """A fixed network in whose features distributions are compared.

    name: shown beside metrics, e.g. "digit classifier".
    sha256: hash of its weights: metrics are comparable only if it is equal, and it keys cached statistics.
    dim: number of features F.
    features: samples [B, C, *S] float in [-1, 1] -> [B, F].
    logits: samples [B, C, *S] float in [-1, 1] -> [B, K], if the network is a classifier.
    head: features [B, F] -> the same logits, if they are a function of the features.
    classes: K, if there are logits; if they are of conditions, the size of the only part that is a class.
    resize: how samples are resized for the network, e.g. "bilinear (TensorFlow 1) to 299×299".
    conditions: that the network recognises, if its logits are of the places of their vector in place of classes.
    """

    name: str
    sha256: str
    dim: int
    features: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor] | None = None
    head: Callable[[Tensor], Tensor] | None = None
    classes: int = 0
    resize: str = "none"
    conditions: Conditions | None = None

    @property
    def answers(self) -> bool:
        """True if the network predicts classes or conditions."""
        return self.classes > 0 or self.conditions is not None

    def class_logits(self, logits: Tensor) -> Tensor:
        """The logits, of [B, K], of classes: all, or of conditions those of their only class part (`of_classes`)."""
        return logits if self.conditions is None else of_classes(logits, self.conditions)

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features and logits of samples, in one pass if possible; logits are None if the network has none."""
        features = self.features(x)
        if self.head is not None:
            return features, self.head(features)
        return features, None if self.logits is None else self.logits(x)


def pixel_network(shape: SampleShape) -> FeatureNetwork:
    """The samples themselves, averaged to at most 16 positions per axis: used if no feature network is available."""
    extents = [min(extent, _PIXEL_EXTENT) for extent in shape.spatial]
    name = f"pixels averaged to {' × '.join(map(str, extents))}"

    def features(x: Tensor) -> Tensor:
        return _AVERAGE[shape.ndim](x, extents).flatten(1)

    return FeatureNetwork(name, hashlib.sha256(name.encode()).hexdigest(), shape.channels * prod(extents), features)


KEPT_AT_MOST = 50_000
"""Maximum number of samples whose features are kept: pairwise comparison is quadratic in it."""


@dataclass
class FeatureSums:
    """What is accumulated over samples in a network's features: moments, class scores, and optionally the features.

    The result does not depend on how the samples are divided into batches and parts, as long as parts are merged in
    order.
    """

    moments: Moments
    scores: ClassScores | None = None
    kept: list[Tensor] | None = None

    @classmethod
    def empty(
        cls, network: FeatureNetwork, device: torch.device | str, *, keep: bool = False, scored_samples: int = 0
    ) -> FeatureSums:
        """Statistics of no samples.

        keep: keep the features of the first KEPT_AT_MOST samples. scored_samples: the total number of samples if
        classes are scored, else 0.
        """
        scores = ClassScores(scored_samples, network.classes, device=device) if scored_samples else None
        return cls(Moments(network.dim, device), scores, [] if keep else None)

    @torch.no_grad()
    def add(self, network: FeatureNetwork, x: Tensor, first: int) -> Tensor | None:
        """Add samples x [B, C, *S] in [-1, 1], numbered from `first`; returns their logits [B, K], if any."""
        features, logits = network.features_and_logits(x)
        self.moments.add(features)
        if self.scores is not None:
            assert logits is not None
            self.scores.add(network.class_logits(logits), first)
        if self.kept is not None and first < KEPT_AT_MOST:
            self.kept.append(features[: KEPT_AT_MOST - first].float().cpu())
        return logits

    def merge(self, other: FeatureSums) -> None:
        """Add the statistics of the samples that follow these."""
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
        """A copy on the CPU, with the kept features concatenated."""
        scores = None if self.scores is None else self.scores.on_host()
        return FeatureSums(
            Moments.decode(self.moments.encode()), scores, None if self.kept is None else [self.features()]
        )


def feature_statistics(
    network: FeatureNetwork, batches: Iterable[Tensor], device: torch.device | str | None = None
) -> Moments:
    """Moments of the network's features over batches [B, C, *S] in [-1, 1].

    device: of the sums, by default that of the first batch's features. A rank that may receive no batch must name it,
    so that its sums can be reduced with the others'.
    """
    moments = None if device is None else Moments(network.dim, device)
    with torch.no_grad():
        for batch in batches:
            features = network.features(batch)
            if moments is None:
                moments = Moments(network.dim, features.device)
            moments.add(features)
    return Moments(network.dim) if moments is None else moments


def of_classes(vectors: Tensor, conditions: Conditions) -> Tensor:
    """The places of the only part that is a class, of conditions or of logits [B, K]; [B, 0] without such a part."""
    only = conditions.only_class
    return vectors[:, :0] if only is None else vectors[:, conditions.slices[only.name]]


def agreement(logits: Tensor, label: Tensor) -> Tensor:
    """1 if the predicted class is the label, else 0: logits [B, K], label [B] -> [B] float32."""
    return (logits.argmax(1) == label).float()
