"""Whether samples repeat training data: distances to the nearest training samples in some network's features."""

from typing import NamedTuple

import torch
from torch import Tensor

COPIES_BELOW = -3.0
"""Of `copying_z`: the level below which samples lie nearer to training data than held-out data do, at p = 0.001."""

_QUERIES = 256  # looked up at a time
_SPARE = 4  # candidates beyond those asked for, whose order rounding may have changed


class Neighbours(NamedTuple):
    """The k nearest of each query, nearest first. distances: Euclidean, [Q, k] float64; rows: their places, [Q, k]."""

    distances: Tensor
    rows: Tensor


def nearest(queries: Tensor, among: Tensor, k: int) -> Neighbours:
    """The k rows of `among` [N, F] nearest to each query [Q, F]. Raises ValueError where there are fewer than k.

    Equal rows have the distance 0 exactly.
    """
    if not 1 <= k <= len(among):
        raise ValueError(f"{k} neighbours among {len(among)} samples")
    among = among.double()
    norms = among.square().sum(1)
    candidates = min(k + _SPARE, len(among))
    distances, rows = [], []
    for some in queries.double().split(_QUERIES):
        # A matrix product finds candidates; it cannot give the distances, which would lose half their digits.
        found = torch.addmm(norms, some, among.T, alpha=-2).topk(candidates, largest=False).indices
        exact, order = (among[found] - some[:, None]).square().sum(2).sqrt().sort(1)
        distances.append(exact[:, :k])
        rows.append(found.gather(1, order)[:, :k])
    return Neighbours(torch.cat(distances), torch.cat(rows))


def closeness(found: Neighbours, among: Tensor) -> Tensor:
    """Each query's distance to its nearest row of `among`, over that row's to the next one there: [Q] float64.

    A query at 1 or less is not authentic: it lies as near to that row as any other row does, or nearer. (Authenticity,
    the share of the others, is Alaa et al.'s, arXiv:2102.08921.) 0 for a query that equals a row.
    """
    touched, back = found.rows[:, 0].unique(return_inverse=True)
    between = nearest(among[touched], among, 2).distances[:, 1][back]
    ratio = found.distances[:, 0] / between
    return torch.where(found.distances[:, 0] == 0, 0.0, ratio)


def copying_z(samples: Tensor, held_out: Tensor) -> float:
    """Whether samples lie nearer to the training data than held-out data do: far below 0 where they copy.

    samples, held_out: distances to the nearest training sample, [N] and [M]. The z-score of their Mann-Whitney U, with
    ties; asymptotically standard normal where both come from one distribution. (Meehan et al., arXiv:2004.05675: the
    test Z_U, with all of the space as one cell.) 0 where all distances are equal.
    """
    n, m = len(samples), len(held_out)
    _, place, ties = torch.cat([samples, held_out]).unique(return_inverse=True, return_counts=True)
    ties = ties.double()
    ranks = ties.cumsum(0) - (ties - 1) / 2
    u = float(ranks[place[:n]].sum()) - n * (n + 1) / 2
    total = n + m
    variance = n * m / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    return (u - n * m / 2) / variance**0.5 if variance > 0 else 0.0
