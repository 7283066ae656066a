"""Feature networks, and what is measured in their features."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from imagegen_dist.metrics.frechet import Moments


@dataclass(frozen=True)
class FeatureNetwork:
    """A fixed network in whose features distributions are compared.

    name: what a figure says beside it, e.g. "digit classifier".
    sha256: hash of its weights: figures compare only where it is equal, and it keys cached statistics.
    dim: number of features F.
    features: samples [B, C, *S] float in [-1, 1] -> [B, F].
    logits: samples [B, C, *S] float in [-1, 1] -> [B, K], where the network is a classifier.
    """

    name: str
    sha256: str
    dim: int
    features: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor] | None = None


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
