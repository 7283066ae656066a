"""An evaluation's work: pieces of samples, measured by Ray tasks or here, added up in their order."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from imagegen_dist.cli.evaluate.real import Real, find_real
from imagegen_dist.cli.evaluate.request import Network, Request
from imagegen_dist.cli.evaluate.tasks import EncodedBy, GeneratedBy, Piece, WantedOf, cut, measure
from imagegen_dist.data.modality import to_stored
from imagegen_dist.errors import TaskError
from imagegen_dist.evaluation.copying import SAMPLES, Copies, closest_to_training, show_neighbours
from imagegen_dist.evaluation.engine import InOrder, Measured
from imagegen_dist.evaluation.figures import (
    COPIES,
    METRICS,
    Comparison,
    Figure,
    agreement_of_reconstructions,
    compare,
    compare_reconstructions,
    figures_of_copies,
)
from imagegen_dist.evaluation.groups import Groups, groups_of
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.metrics.chance import chance_warnings
from imagegen_dist.metrics.copying import reading
from imagegen_dist.metrics.features import KEPT_AT_MOST
from imagegen_dist.ray.tasks import run_tasks
from imagegen_dist.resources import is_own_ray
from imagegen_dist.storage import Store
from imagegen_dist.tasks import Progress, TaskRunner, run_in_process
from imagegen_dist.wording import first_line

_IN_PROCESS_S = 20.0  # of work, up to which Ray's start would not pay


class Bar(Progress, Protocol):
    """Shows how much of the work is done, and what is done before and after the counted part."""

    def phase(self, text: str) -> None:
        """Show the current activity until the next sample is finished."""


@dataclass(frozen=True)
class Results:
    """What came of an evaluation: figures in each network's features, those of a VAE on real samples, and copies."""

    figures: tuple[tuple[Network, tuple[Figure, ...]], ...]
    of_real: dict[str, float]
    copies: Copies | None
    notes: tuple[str, ...]
    seconds: float


def evaluate(request: Request, bar: Bar) -> Results:
    """Measure what was asked for. Raises ValueError, and TaskError where a task died."""
    began = time.monotonic()
    notes: list[str] = []
    real = find_real(request)
    groups = {"generated": cut(_generated(request)), **real.pieces()}
    encoded = _encoded(request) if isinstance(request.model, AutoencoderModel) else None
    if encoded:
        groups["encoded"] = cut(encoded)
    measured = _measure(groups, request, bar)
    bar.phase("comparing")
    notes += real.take(measured)
    figures, copies = [], None
    by_class = _groups(request)
    for at, network in enumerate(request.networks):
        generated = measured["generated"]
        comparison = Comparison(
            generated.features[at],
            real.of(request.real, network),
            network.source.kind,
            generated.answers,
            network.class_counts,
            request.subset_size,
            request.seed,
            network.recognised,
            by_class,
            real.of(request.beside, network) if request.beside and network.has_beside else None,
            network.accuracy,
        )
        found = compare(network.metrics, comparison)
        if "encoded" in measured:
            rebuilt = measured["encoded"].features[at]
            found.append(compare_reconstructions(network.source.kind, rebuilt, real.of(request.real, network)))
            if "agreement" in network.metrics:
                found += agreement_of_reconstructions(measured["encoded"].answers)
        if COPIES in network.metrics:
            more, copies = _copies(request, network, generated.features[at].features()[:SAMPLES], real)
            found += more
            if told := reading({each.name: each.value for each in more}):
                notes.append(f"copies: {told}")
        figures.append((network, tuple(found)))
        notes += chance_warnings(network.doubts)
    of_real = {}
    if encoded and (sums := measured["encoded"].encoded):
        of_real = encoded.open(request.model.device).figures(sums)
    return Results(tuple(figures), of_real, copies, tuple(notes), time.monotonic() - began)


def _groups(request: Request) -> Groups:
    """The classes of generated and of real samples, as far as features are kept; {} unless a metric needs them."""
    if not any(METRICS[name].by_label for network in request.networks for name in network.metrics):
        return {}
    asked = request.classes.of(range(min(request.samples, KEPT_AT_MOST)))
    shown = request.real.dataset.labels(range(min(request.real.samples, KEPT_AT_MOST)))
    return groups_of(asked, shown, request.model.conditions)


def _copies(request: Request, network: Network, samples: Tensor, real: Real) -> tuple[list[Figure], Copies]:
    """Generated samples, as features [N, F], beside what training has seen."""
    assert request.seen is not None
    seen = real.of(request.seen, network).features()
    held_out = real.of(request.held_out, network).features()[: len(samples)] if request.held_out else None
    closest = closest_to_training(samples, seen, held_out)
    generated = _generated(request).open(request.model.device)
    with request.model.numerics.applied():
        shown = torch.cat([generated.generate(range(at, at + 1))[0] for at in closest.samples.tolist()])
    found = figures_of_copies(closest, len(samples), len(seen))
    return found, show_neighbours(to_stored(shown, request.model.shape.bits), closest, request.seen.dataset)


def _generated(request: Request) -> GeneratedBy:
    wanted = []
    for network in request.networks:
        metrics = [METRICS[name] for name in network.metrics]
        scored, answers = any(each.scored for each in metrics), any(each.of_a_classifier for each in metrics)
        wanted.append(WantedOf(network.source, network.keeps, scored, answers))
    return GeneratedBy(request.url, request.samples, request.seed, request.classes, tuple(wanted))


def _encoded(request: Request) -> EncodedBy:
    wanted = tuple(WantedOf(each.source, answers="agreement" in each.metrics) for each in request.networks)
    real, evaluation = request.real, request.experiment.evaluation
    of = request.url, real.dataset, real.samples, wanted
    return EncodedBy(*of, evaluation.importance_samples, evaluation.factors)


def _measure(groups: dict[str, list[Piece]], request: Request, bar: Bar) -> dict[str, Measured]:
    """What all pieces of each group measured together."""
    pieces = [piece for group in groups.values() for piece in group]
    places = [(name, number) for name, group in groups.items() for number in range(len(group))]
    samples = sum(piece.samples for piece in pieces)
    parallel = _in_parallel(groups, request)
    bar.start(samples, 0, "starting Ray" if parallel else "measuring")
    sums = {name: InOrder() for name in groups}
    work: Callable[..., Measured] = measure
    run: TaskRunner = partial(run_tasks, gpu=True) if parallel else run_in_process
    try:
        with closing(run(work, pieces, request.workers or None, bar.advance)) as results:
            for at, measured in results:
                name, number = places[at]
                sums[name].add(number, measured)
    except (ValueError, TaskError):
        raise
    except Exception as error:  # of whatever kind, it is one line for the user
        raise TaskError(f"samples could not be measured ({type(error).__name__}: {first_line(error)})") from error
    return {name: each.total for name, each in sums.items() if each.total is not None}


def _in_parallel(groups: dict[str, list[Piece]], request: Request) -> bool:
    """Whether Ray tasks measure: where the user says so, on a cluster, and where they are done sooner."""
    stores = (Store(request.url), request.real.dataset.store, request.cache)
    if request.workers == 0 or any(store.protocol == "memory" for store in stores):
        return False
    if request.workers or not is_own_ray():
        return True
    return sum(_seconds(group) for group in groups.values()) > _IN_PROCESS_S


def _seconds(group: list[Piece]) -> float:
    """How long a group of pieces would take here, by its second chunk: the first also builds networks."""
    chunk = replace(group[0], chunks=group[0].chunks[:1])
    measure(chunk)
    began = time.monotonic()
    measure(chunk)
    return (time.monotonic() - began) * sum(piece.samples for piece in group) / chunk.samples
