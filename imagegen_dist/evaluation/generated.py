"""Figures of generated samples, and the classes that they are asked for: the same for every kind of model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from imagegen_dist.data.modality import to_float, to_uint8
from imagegen_dist.distributed import World, sum_over_ranks, together
from imagegen_dist.evaluation.asked_classes import AskedClasses
from imagegen_dist.evaluation.evaluator import CHUNK
from imagegen_dist.evaluation.reference import Reference
from imagegen_dist.metrics.features import agreement
from imagegen_dist.metrics.frechet import Moments, frechet_distance
from imagegen_dist.metrics.modes import mode_coverage
from imagegen_dist.noise import SampleNoise

Generate = Callable[[int, SampleNoise, Tensor | None], Tensor]
"""(count, noise, labels [count] or None) to samples [count, C, *S] in [-1, 1]."""


def chunks(count: int, world: World) -> Iterator[tuple[int, range]]:
    """(number, ids) of a rank's chunks of `count` samples."""
    for chunk in world.heeding(range(world.rank, -(-count // CHUNK), world.size)):
        yield chunk, range(chunk * CHUNK, min((chunk + 1) * CHUNK, count))


def grid_label(count: int, columns: int, classes: int, device: torch.device) -> Tensor | None:
    """A class for each sample of a grid, the same down a column: [count]; None without classes."""
    return torch.arange(count, device=device) % columns * classes // columns if classes else None


def column_labels(columns: int, classes: int, names: Sequence[str] | None) -> list[str]:
    """The class of each column of a grid as `grid_label` fills it; [] without classes. names: of all classes."""
    numbers = [at * classes // columns for at in range(columns)] if classes else []
    return [names[number] if names else str(number) for number in numbers]


@torch.no_grad()
def score_generated(
    generate: Generate,
    samples: int,
    classes: AskedClasses,
    reference: Reference,
    world: World,
    device: torch.device,
) -> dict[str, float]:
    """ "frechet" of generated samples; with classes, "label_agreement"; without, "modes" and "modes_kl".

    Their noise is that of seed 0. The ranks share the work, and all get the figures.
    """
    moments = Moments(reference.network.dim, device)
    hits = torch.zeros(2, dtype=torch.float64, device=device)
    modes = torch.zeros(len(reference.class_counts), dtype=torch.float64, device=device)

    def measure() -> None:
        for _, ids in chunks(samples, world):
            label = classes.of(ids, device)
            x = to_float(to_uint8(generate(len(ids), SampleNoise.of(0, ids, device), label)))
            features, logits = reference.network.features_and_logits(x)
            moments.add(features)
            if logits is None:
                continue
            if label is None:
                modes.add_(torch.bincount(logits.argmax(1), minlength=len(modes)))
            else:
                right = agreement(logits, label).double()
                hits.add_(torch.stack([right.sum(), torch.ones_like(right).sum()]))

    together(measure, world, device)
    figures = {"frechet": distance_over_ranks(moments, reference, world, device)}
    right, asked = sum_over_ranks(hits, world).tolist()
    if asked:
        figures["label_agreement"] = right / asked
    counts = sum_over_ranks(modes, world) if len(modes) else modes
    if counts.sum():
        covered = mode_coverage(counts, reference.class_counts)
        figures |= {"modes": float(covered.modes), "modes_kl": covered.kl}
    return figures


def distance_over_ranks(moments: Moments, reference: Reference, world: World, device: torch.device) -> float:
    """Fréchet distance of what all ranks have added up from the reference."""
    of_all = moments.reduce(lambda values: sum_over_ranks(values, world))
    return together(lambda: frechet_distance(of_all, reference.moments), world, device)
