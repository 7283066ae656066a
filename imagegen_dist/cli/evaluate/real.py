"""Real samples in the features of an evaluation's networks: from the cache, or else taken, and kept there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from imagegen_dist.cli.evaluate.request import Network, RealSamples, Request
from imagegen_dist.cli.evaluate.tasks import Piece, RealOf, WantedOf, cut
from imagegen_dist.evaluation.engine import Measured
from imagegen_dist.evaluation.figures import COPIES
from imagegen_dist.evaluation.statistics import StatisticsKey, find_statistics, keep_statistics
from imagegen_dist.metrics.features import FeatureSums
from imagegen_dist.storage import StorageError, Store


@dataclass
class Real:
    """What is known of real samples, and what has still to be taken.

    missing: groups of pieces by name, each with its samples and the networks in whose features they are taken.
    """

    cache: Store
    known: dict[StatisticsKey, FeatureSums] = field(default_factory=dict)
    missing: dict[str, tuple[RealSamples, list[Network]]] = field(default_factory=dict)

    def of(self, real: RealSamples, network: Network) -> FeatureSums:
        """Real samples in a network's features."""
        return self.known[_key(real, network)]

    def pieces(self) -> dict[str, list[Piece]]:
        """What has to be measured, by group."""
        return {name: _pieces(real, networks) for name, (real, networks) in self.missing.items()}

    def take(self, measured: Mapping[str, Measured]) -> list[str]:
        """Take what was measured, and keep it for the next evaluation; notes where that is not possible."""
        notes = []
        for name, (real, networks) in self.missing.items():
            for network, sums in zip(networks, measured[name].features, strict=True):
                self.known[_key(real, network)] = sums
                try:
                    keep_statistics(self.cache, _key(real, network), sums)
                except StorageError as error:
                    notes.append(f"statistics of the real samples could not be kept: {error}; set --cache")
        return notes


def find_real(request: Request) -> Real:
    """What is kept of the real samples that an evaluation needs."""
    found, awaited = Real(request.cache), set()
    for name, real, networks in _needed(request):
        for network in networks:
            key = _key(real, network)
            if key in found.known or key in awaited:
                continue
            kept = find_statistics(request.cache, key, network.keeps)
            if kept is not None:
                found.known[key] = kept
            else:
                awaited.add(key)
                found.missing.setdefault(name, (real, []))[1].append(network)
    return found


def _needed(request: Request) -> Iterator[tuple[str, RealSamples, list[Network]]]:
    """(name, samples, the networks in whose features they are needed)."""
    yield "real", request.real, list(request.networks)
    for name, real in (("seen", request.seen), ("held out", request.held_out)):
        if real is not None:
            yield name, real, [network for network in request.networks if COPIES in network.metrics]
    if request.beside is not None:
        yield "beside", request.beside, [network for network in request.networks if network.has_beside]


def _key(real: RealSamples, network: Network) -> StatisticsKey:
    return StatisticsKey.of(real.dataset.index.fingerprint, real.samples, network.network)


def _pieces(real: RealSamples, networks: list[Network]) -> list[Piece]:
    wanted = tuple(WantedOf(network.source, network.keeps) for network in networks)
    return cut(RealOf(real.dataset, real.samples, wanted))
