"""An evaluation's work: pieces of samples, measured by Ray tasks or here, added up in their order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from imagegen_dist.evaluation.figures import OF_EACH_SAMPLE, Figure, compare, compare_reconstructions
from imagegen_dist.evaluation.observer import CHUNK
from imagegen_dist.evaluation.pieces import Encoded, Generated, Measured, Piece, Reference, Wanted, cut, measure
from imagegen_dist.evaluation.statistics import StatisticsKey, find_statistics, keep_statistics
from imagegen_dist.evaluation.vae import VAEObserver
from imagegen_dist.launch.evaluate.request import Network, Request
from imagegen_dist.launch.tasks import TaskError, run_tasks
from imagegen_dist.metrics.features import FeatureSums
from imagegen_dist.storage import StorageError

_IN_PROCESS_S = 20.0  # of work, up to which Ray's start would not pay


class Bar(Protocol):
    """Shows how far the work is."""

    def start(self, total: int, done: int, phase: str) -> None:
        """So many samples in all, and some done; `phase` until the first of the rest is."""

    def phase(self, text: str) -> None:
        """What is done now, before the next sample is."""

    def advance(self, samples: int) -> None:
        """So many more are done."""


@dataclass(frozen=True)
class Results:
    """What came of an evaluation: figures in each network's features, and those of a VAE on real samples."""

    figures: tuple[tuple[Network, tuple[Figure, ...]], ...]
    of_real: dict[str, float]
    notes: tuple[str, ...]
    seconds: float


def evaluate(request: Request, bar: Bar) -> Results:
    """Measure what was asked for. Raises ValueError, and TaskError where a task died."""
    began = time.monotonic()
    notes: list[str] = []
    real, missing = _find_real(request)
    asked_real = [request.networks[at] for at in missing]
    groups: dict[str, list[Piece]] = {"generated": _generated(request)}
    if asked_real:
        groups["real"] = _real(request, asked_real)
    if request.model.autoencoder is not None:
        groups["encoded"] = _encoded(request)
    measured = _measure(groups, request, bar)
    bar.phase("comparing")
    if asked_real:
        for at, sums in zip(missing, measured["real"].features, strict=True):
            real[at] = sums
            notes += _keep(request, request.networks[at], sums)
    figures = []
    for at, network in enumerate(request.networks):
        generated = measured["generated"]
        found = compare(
            network.metrics,
            network.source.kind,
            generated.features[at],
            real[at],
            generated.answers,
            network.class_counts,
            request.subset_size,
            request.seed,
        )
        if request.model.autoencoder is not None:
            rebuilt = measured["encoded"].features[at]
            found.append(compare_reconstructions(network.source.kind, rebuilt, real[at]))
        figures.append((network, tuple(found)))
    of_real = _of_real(request, measured["encoded"]) if "encoded" in measured else {}
    return Results(tuple(figures), of_real, tuple(notes), time.monotonic() - began)


def _keeps(network: Network) -> bool:
    return any(name in OF_EACH_SAMPLE for name in network.metrics)


def _key(request: Request, network: Network) -> StatisticsKey:
    return StatisticsKey.of(request.dataset.index.fingerprint, request.references, network.network)


def _find_real(request: Request) -> tuple[dict[int, FeatureSums], list[int]]:
    """(statistics of the real samples that are known, by the network's place; the places of the others)."""
    found, missing = {}, []
    for at, network in enumerate(request.networks):
        kept = find_statistics(request.cache, _key(request, network), _keeps(network))
        if kept is None:
            missing.append(at)
        else:
            found[at] = kept
    return found, missing


def _keep(request: Request, network: Network, sums: FeatureSums) -> list[str]:
    """Keep statistics for the next evaluation; a note where that is not possible."""
    try:
        keep_statistics(request.cache, _key(request, network), sums)
    except StorageError as error:
        return [f"statistics of the real samples could not be kept: {error}; set --cache"]
    return []


def _generated(request: Request) -> list[Piece]:
    wanted = tuple(
        Wanted(
            network.source,
            _keeps(network),
            "is" in network.metrics,
            not {"agreement", "modes"}.isdisjoint(network.metrics),
        )
        for network in request.networks
    )
    url = request.model.checkpoint.url
    return [Generated(url, request.samples, ids, request.seed, wanted) for ids in cut(request.samples)]


def _real(request: Request, networks: list[Network]) -> list[Piece]:
    wanted = tuple(Wanted(network.source, _keeps(network)) for network in networks)
    return [Reference(request.dataset, ids, wanted) for ids in cut(request.references)]


def _encoded(request: Request) -> list[Piece]:
    wanted = tuple(Wanted(network.source) for network in request.networks)
    url, experiment = request.model.checkpoint.url, request.experiment
    return [
        Encoded(url, experiment, request.dataset, request.references, ids, wanted) for ids in cut(request.references)
    ]


def _of_real(request: Request, encoded: Measured) -> dict[str, float]:
    assert encoded.real is not None
    model = request.model
    device = next(iter(model.networks["decoder"].parameters())).device
    return VAEObserver.alone(model.networks, request.experiment, request.dataset, device).figures_of(encoded.real)


class _InOrder:
    """Adds up what pieces measured in the order of the pieces, as they come in any."""

    def __init__(self) -> None:
        self.total: Measured | None = None
        self._next = 0
        self._waiting: dict[int, Measured] = {}

    def add(self, number: int, measured: Measured) -> None:
        """Take what a piece measured."""
        self._waiting[number] = measured
        while (following := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            if self.total is None:
                self.total = following
            else:
                self.total.merge(following)


def _measure(groups: dict[str, list[Piece]], request: Request, bar: Bar) -> dict[str, Measured]:
    """What all pieces of each group measured together."""
    pieces = [piece for group in groups.values() for piece in group]
    places = [(name, number) for name, group in groups.items() for number in range(len(group))]
    samples = sum(len(piece.ids) for piece in pieces)
    parallel = _in_parallel(groups, request)
    bar.start(samples, 0, "starting Ray" if parallel else "measuring")
    sums = {name: _InOrder() for name in groups}
    work: Callable[..., Measured] = measure
    try:
        with closing(run_tasks(work, pieces, parallel, request.workers or None, bar.advance, gpu=True)) as results:
            for at, measured in results:
                name, number = places[at]
                sums[name].add(number, measured)
    except (ValueError, TaskError):
        raise
    except Exception as error:  # of whatever kind, it is one line for the user
        line = (str(error).strip().splitlines() or [""])[0]
        raise TaskError(f"samples could not be measured ({type(error).__name__}: {line})") from error
    return {name: each.total for name, each in sums.items() if each.total is not None}


def _in_parallel(groups: dict[str, list[Piece]], request: Request) -> bool:
    """Whether Ray tasks measure: where the user says so, on a cluster, and where they are done sooner."""
    stores = (request.model.checkpoint.store, request.dataset.store, request.cache)
    if request.workers == 0 or any(store.protocol == "memory" for store in stores):
        return False
    if request.workers or os.environ.get("RAY_ADDRESS", "") not in ("", "local"):
        return True
    return sum(_seconds(group) for group in groups.values()) > _IN_PROCESS_S


def _seconds(group: list[Piece]) -> float:
    """How long a group of pieces would take here, by its second chunk: the first also builds networks."""
    chunk = replace(group[0], ids=group[0].ids[:CHUNK])
    measure(chunk)
    began = time.monotonic()
    measure(chunk)
    return (time.monotonic() - began) * sum(len(piece.ids) for piece in group) / len(chunk.ids)
