"""Statistics of real samples in a network's features, cached for all runs and evaluations.

CACHE/statistics/KEY/facts.json          what they are of: written last
                     moments.safetensors
                     features.safetensors  if a metric has requested the features themselves
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from safetensors.torch import load, save

from imagegen_dist import config
from imagegen_dist.metrics.features import FeatureNetwork, FeatureSums
from imagegen_dist.metrics.frechet import Moments
from imagegen_dist.storage import Store

_VERSION = 1


@dataclass(frozen=True)
class StatisticsKey:
    """What statistics depend on: the samples, the network, and the resize filter."""

    # Fingerprint of the dataset.
    data: str
    # Number of its first samples.
    samples: int
    # The network, the SHA-256 of its weights, and its resize filter.
    network: str
    sha256: str
    resize: str
    version: int = _VERSION

    @classmethod
    def of(cls, data: str, samples: int, network: FeatureNetwork) -> StatisticsKey:
        """The key of a dataset's first samples in a network's features."""
        return cls(data, samples, network.name, network.sha256, network.resize)

    def place(self, cache: Store) -> Store:
        """Where they are cached."""
        return cache / "statistics" / config.fingerprint(asdict(self))[:16]


def find_statistics(cache: Store, key: StatisticsKey, keep: bool = False) -> FeatureSums | None:
    """The statistics cached under the key, or None. keep: the features themselves are needed."""
    place = key.place(cache)
    if not place.exists("facts.json") or (keep and not place.exists("features.safetensors")):
        return None
    features = [load(place.read("features.safetensors"))["features"]] if keep else None
    return FeatureSums(Moments.decode(load(place.read("moments.safetensors"))), kept=features)


def keep_statistics(cache: Store, key: StatisticsKey, sums: FeatureSums) -> None:
    """Cache them. Two processes may do this at once: both write the same."""
    place = key.place(cache)
    place.write("moments.safetensors", save(sums.moments.encode()))
    if sums.kept is not None:
        place.write("features.safetensors", save({"features": sums.features()}))
    place.write("facts.json", json.dumps(asdict(key), indent=1).encode())
