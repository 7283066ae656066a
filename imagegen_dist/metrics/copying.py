"""Whether samples repeat training data: distances to the nearest training samples in some network's features."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from imagegen_dist.wording import counted

_COPIES_ABOVE = 3.0
"""Of `Copied.z`: the level above which more samples single out one training sample than held-out ones do, p = 0.001."""

_OFF_ABOVE = 0.75
"""Of `farther`: the level above which samples lie off the data."""

NOT_COPYING = "no sign of copying"

_TAIL = 0.05  # of held-out samples, by which it is decided what singles a training sample out

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
        raise ValueError(f"{k} neighbours among {counted(len(among), 'sample')}")
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


class Copied(NamedTuple):
    """How many samples single out one training sample.

    share: of samples. real: of held-out ones. z: of the difference.
    """

    share: float
    real: float
    z: float


def copied(samples: Tensor, held_out: Tensor) -> Copied:
    """Whether samples lie much nearer to one training sample than to the next, more often than held-out ones do.

    samples, held_out: distances to the two nearest training samples, [N, 2] and [M, 2]. Their ratio does not change
    where samples are blurred or faint, and all of their distances shrink; of a copy it is near 0. Counted is who has a
    ratio no higher than that of the lowest 5 % of held-out samples, and z is of two proportions, pooled: some copies
    among many other samples are found too.
    """
    ours, theirs = _ratio(samples), _ratio(held_out)
    n, m = len(ours), len(theirs)
    threshold = theirs.sort().values[max(int(_TAIL * m), 1) - 1]
    share, real = float((ours <= threshold).double().mean()), float((theirs <= threshold).double().mean())
    pooled = (share * n + real * m) / (n + m)
    variance = pooled * (1 - pooled) * (1 / n + 1 / m)
    return Copied(share, real, (share - real) / variance**0.5 if variance > 0 else 0.0)


def _ratio(distances: Tensor) -> Tensor:
    nearest_two = distances[:, :2].double()
    return torch.where(nearest_two[:, 0] == 0, 0.0, nearest_two[:, 0] / nearest_two[:, 1])


def farther(samples: Tensor, held_out: Tensor) -> float:
    """The probability that a sample lies farther from its nearest training sample than a held-out one from its own.

    samples, held_out: these distances, [N] and [M]. A half where they are alike; 1 where all samples lie off the data.
    """
    ordered = held_out.double().sort().values
    below = torch.searchsorted(ordered, samples.double().contiguous(), side="left")
    upto = torch.searchsorted(ordered, samples.double().contiguous(), side="right")
    return float((below + upto).double().mean()) / (2 * len(held_out))


def reading(figures: Mapping[str, float]) -> str:
    """What figures say in words: "copies", "off the data", both, or NOT_COPYING; "" without held-out samples.

    figures: by the names that evaluation gives them. Samples are copies where they single out training samples and are
    authentic less often than held-out ones: samples that are all alike single one out as well, by chance.
    """
    if "copied_z" not in figures:
        return ""
    copies = figures["copied_z"] > _COPIES_ABOVE and figures["authenticity"] < figures["authenticity_real"]
    off = figures["farther"] > _OFF_ABOVE
    words = ["copies"] * copies + ["off the data"] * off
    return ", and ".join(words) or NOT_COPYING
