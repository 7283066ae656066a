"""Whether samples copy training data: distances to the nearest training samples in a network's features."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from imagegen_dist.wording import counted

_COPIES_ABOVE = 3.0
"""Threshold for `Copied.z` (p = 0.001): above it, more samples than held-out ones have a single close neighbour."""

_OFF_ABOVE = 0.75
"""Threshold for `farther`: above it, samples are off the data."""

NOT_COPYING = "no sign of copying"

_TAIL = 0.05  # fraction of held-out samples that sets the threshold for a close neighbour

_QUERIES = 256  # processed at a time
_SPARE = 4  # additional candidates, whose order rounding may have changed


class Neighbours(NamedTuple):
    """The k nearest neighbours of each query, in order. distances: Euclidean, [Q, k] float64; rows: indices, [Q, k]."""

    distances: Tensor
    rows: Tensor


def nearest_neighbours(queries: Tensor, among: Tensor, k: int) -> Neighbours:
    """The k rows of `among` [N, F] nearest to each query [Q, F]. Raises ValueError if there are fewer than k.

    Equal rows have a distance of exactly 0.
    """
    if not 1 <= k <= len(among):
        raise ValueError(f"{k} neighbours among {counted(len(among), 'sample')}")
    among = among.double()
    norms = among.square().sum(1)
    candidates = min(k + _SPARE, len(among))
    distances, rows = [], []
    for some in queries.double().split(_QUERIES):
        # A matrix product finds candidates; distances from it would lose half their digits.
        found = torch.addmm(norms, some, among.T, alpha=-2).topk(candidates, largest=False).indices
        exact, order = (among[found] - some[:, None]).square().sum(2).sqrt().sort(1)
        distances.append(exact[:, :k])
        rows.append(found.gather(1, order)[:, :k])
    return Neighbours(torch.cat(distances), torch.cat(rows))


def closeness(found: Neighbours, among: Tensor) -> Tensor:
    """Each query's distance to its nearest row of `among`, over that row's distance to its nearest row: [Q] float64.

    A query with a ratio of at most 1 is not authentic: it is as close to that row as any other row, or closer.
    (Authenticity, the fraction of authentic samples, is Alaa et al.'s, arXiv:2102.08921.) 0 for a query that equals a
    row.
    """
    touched, back = found.rows[:, 0].unique(return_inverse=True)
    between = nearest_neighbours(among[touched], among, 2).distances[:, 1][back]
    ratio = found.distances[:, 0] / between
    return torch.where(found.distances[:, 0] == 0, 0.0, ratio)


def copying_z(samples: Tensor, held_out: Tensor) -> float:
    """Whether samples are closer to the training data than held-out data are: far below 0 if they copy.

    samples, held_out: distances to the nearest training sample, [N] and [M]. The z-score of their Mann-Whitney U, with
    ties; asymptotically standard normal if both come from one distribution. (Meehan et al., arXiv:2004.05675: the test
    Z_U, with the whole space as a single cell.) 0 if all distances are equal.
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
    """How many samples are close to a single training sample.

    share: fraction of samples. real: fraction of held-out ones. z: z-score of the difference.
    """

    share: float
    real: float
    z: float


def copied(samples: Tensor, held_out: Tensor) -> Copied:
    """Whether samples are much closer to one training sample than to the next, more often than held-out ones are.

    samples, held_out: distances to the two nearest training samples, [N, 2] and [M, 2]. Their ratio is invariant when
    blurred or faint samples shrink all distances; for a copy it is close to 0. The threshold is the lowest 5 % of the
    held-out ratios, and z is that of two proportions, pooled, so that a few copies among many samples are detected.
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
    """The probability that a sample is farther from its nearest training sample than a held-out one is from its own.

    samples, held_out: these distances, [N] and [M]. 0.5 if they are distributed alike; 1 if all samples are off the
    data.
    """
    ordered = held_out.double().sort().values
    below = torch.searchsorted(ordered, samples.double().contiguous(), side="left")
    upto = torch.searchsorted(ordered, samples.double().contiguous(), side="right")
    return float((below + upto).double().mean()) / (2 * len(held_out))


def reading(figures: Mapping[str, float]) -> str:
    """The metrics in words: "copies", "off the data", both, or NOT_COPYING; "" without held-out samples.

    figures: by the names that evaluation gives them. Samples count as copies if they have close single neighbours and
    are authentic less often than held-out ones: collapsed samples also have single close neighbours, by chance.
    """
    if "copied_z" not in figures:
        return ""
    copies = figures["copied_z"] > _COPIES_ABOVE and figures["authenticity"] < figures["authenticity_real"]
    off = figures["farther"] > _OFF_ABOVE
    words = ["copies"] * copies + ["off the data"] * off
    return ", and ".join(words) or NOT_COPYING
