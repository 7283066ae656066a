"""How much of what trials differ in follows from one of their values."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby

MOST_GROUPS = 5
"""Groups of neighbouring numbers, at most."""

_PER_GROUP = 3


def importance(values: Sequence[Hashable], losses: Sequence[float]) -> float | None:
    """Share, 0 to 1, of the variance of the losses' ranks that the groups of a value explain; None for too few trials.

    values: of one setting, one a trial; numbers are cut into groups of neighbours, others are groups themselves.
    losses: likewise, less is better, infinite for the worst. It is epsilon squared of the ranks' analysis of variance,
    held at 0 or above: without the bias of eta squared where nothing follows from the value.
    """
    ranks = ranked(losses)
    groups = _groups(values)
    n, k = len(ranks), len(groups)
    if k < 2 or n <= k:
        return None
    mean = sum(ranks) / n
    total = sum((rank - mean) ** 2 for rank in ranks)
    if total == 0:
        return None
    within = sum((ranks[i] - sum(ranks[j] for j in group) / len(group)) ** 2 for group in groups for i in group)
    return max(0.0, (total - within - (k - 1) * within / (n - k)) / total)


def ranked(losses: Sequence[float]) -> list[float]:
    """The place of each loss among them, from 0; equal ones share the mean of their places."""
    order = sorted(range(len(losses)), key=lambda i: losses[i])
    ranks = [0.0] * len(losses)
    place = 0
    for _, same in groupby(order, key=lambda i: losses[i]):
        members = list(same)
        for i in members:
            ranks[i] = place + (len(members) - 1) / 2
        place += len(members)
    return ranks


def _groups(values: Sequence[Hashable]) -> list[list[int]]:
    """Indices of trials that have one value, or neighbouring numbers."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) > MOST_GROUPS and all(isinstance(value, int | float) for value in values):
        order = sorted(range(len(values)), key=lambda i: values[i])  # type: ignore[arg-type,return-value]  # numbers
        count = min(MOST_GROUPS, max(2, len(values) // _PER_GROUP))
        return [order[i * len(order) // count : (i + 1) * len(order) // count] for i in range(count)]
    return [[i for i, value in enumerate(values) if value == one] for one in distinct]
