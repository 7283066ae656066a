"""Feature networks, and what is measured in their features."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

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
    """

    name: str
    sha256: str
    dim: int
    features: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor] | None = None
    head: Callable[[Tensor], Tensor] | None = None

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
