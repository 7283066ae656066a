"""Precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797), from k-nearest-neighbour balls.

A sample's neighbourhood is the closed ball around it that reaches its k-th nearest neighbour on the same side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

PRECISION_K, DENSITY_K = 3, 5
"""k of precision and recall, and of density and coverage, as published."""

_ROWS = 512
# Tolerance for rounding: a point on a ball's surface, such as a copy, is inside.
_SURFACE = 1 + 1e-9


@dataclass(frozen=True)
class Neighbourhoods:
    """Precision, recall, density and coverage of generated samples."""

    # Fraction of generated samples in a real sample's neighbourhood.
    precision: float
    # Fraction of real samples in a generated sample's neighbourhood.
    recall: float
    # Real neighbourhoods per generated sample, over k; 1 if both distributions are equal, more if samples crowd.
    density: float
    # Fraction of real samples whose neighbourhood contains a generated one.
    coverage: float


def neighbourhoods(
    generated: Tensor, real: Tensor, precision_k: int = PRECISION_K, density_k: int = DENSITY_K
) -> Neighbourhoods:
    """Compare features, generated [N, F] with real [M, F]: N·M, N² and M² distances in float64, in blocks.

    nan if a feature was not finite. Raises ValueError if a side does not have more than k samples.
    """
    most = max(precision_k, density_k)
    if min(len(generated), len(real)) <= most:
        raise ValueError(
            f"precision, recall, density and coverage need more than {most} samples per side, and there are "
            f"{len(generated):,} generated and {len(real):,} real; set --samples or --references"
        )
    if not (generated.isfinite().all() and real.isfinite().all()):
        return Neighbourhoods(*[math.nan] * 4)
    origin = real.double().mean(0)  # centring preserves the digits of distances from products
    x, y = generated.double() - origin, real.double() - origin
    (x_radius,), (y_radius, y_density_radius) = _radii(x, precision_k), _radii(y, precision_k, density_k)
    inside, crowd = 0, 0
    recalled, covered = (torch.zeros(len(y), dtype=torch.bool, device=y.device) for _ in range(2))
    for rows, distance in _distances(x, y):
        inside += int((distance <= y_radius).any(1).sum())
        recalled |= (distance <= x_radius[rows, None]).any(0)
        within = distance <= y_density_radius
        crowd += int(within.sum())
        covered |= within.any(0)
    return Neighbourhoods(
        precision=inside / len(x),
        recall=float(recalled.double().mean()),
        density=crowd / (density_k * len(x)),
        coverage=float(covered.double().mean()),
    )


def _radii(x: Tensor, *ks: int) -> list[Tensor]:
    """For each k, every sample's distance to its k-th nearest neighbour, excluding itself: [N] each."""
    # The nearest is the sample itself.
    nearest = torch.cat([distance.topk(max(ks) + 1, largest=False).values for _, distance in _distances(x, x)])
    return [nearest[:, k] * _SURFACE for k in ks]


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(rows of x, their distances to all of y), block by block."""
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        yield rows, torch.cdist(x[rows], y)
