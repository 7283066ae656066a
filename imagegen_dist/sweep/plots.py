"""Plots of a sweep's report, as positions on their axes that the template draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from imagegen_dist.metrics.formatting import count
from imagegen_dist.metrics.report import Tick, linear_ticks, log_ticks
from imagegen_dist.sweep.trial_store import Trial

_LOG_RATIO = 30.0  # positive numbers that span more are placed by their logarithms
_MAX_TICKS = 7
_TICK_SPACE = 7.0  # of a tick's number, in percent of the axis


class Axis(NamedTuple):
    """A vertical axis of parallel coordinates, at `x` percent."""

    label: str
    x: float
    ticks: list[Tick]


class Thread(NamedTuple):
    """A trial's line over all axes, as an SVG path over 1000 × 1000 units. rank: 0 for the best to 1."""

    path: str
    rank: float
    caption: str


class Strip(NamedTuple):
    """Reconstructions of one trial beside its rate and distortion in nats. picture: encoded; note: its other values."""

    label: str
    rate: float
    distortion: float
    picture: bytes = b""
    note: str = ""


class TradeOff(NamedTuple):
    """Rate and distortion. others: (run, rate, distortion) of trials without a strip. joined: strips are a curve."""

    strips: Sequence[Strip]
    others: Sequence[tuple[str, float, float]] = ()
    joined: bool = True


class Scatter(NamedTuple):
    """Points over 1000 × 1000 units with their labels, a line through them, and other points; ticks in percent."""

    points: list[tuple[float, float, str]]
    others: list[tuple[float, float, str]]
    path: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]


class Lineage(NamedTuple):
    """A population over 1000 × 1000 units: runs as (name, x0, x1, y, rank), and links from parents to successors."""

    runs: list[tuple[str, float, float, float, float]]
    links: list[str]
    x_ticks: list[Tick]
    members: list[Tick]


def parallel(
    columns: Mapping[str, Sequence[Any]], ranks: Sequence[float], captions: Sequence[str]
) -> tuple[list[Axis], list[Thread]]:
    """An axis for each column, by label, and a line for each trial; nothing for fewer than two of either."""
    if len(columns) < 2 or len(ranks) < 2:
        return [], []
    step = 1000 / (len(columns) - 1)
    placed = [place(column) for column in columns.values()]
    axes = [Axis(label, i * step / 10, placed[i][0]) for i, label in enumerate(columns)]
    threads = []
    for trial, (rank, caption) in enumerate(zip(ranks, captions, strict=True)):
        points = [(i * step, 1000 - 10 * heights[trial]) for i, (_, heights) in enumerate(placed)]
        threads.append(Thread(_path(points), rank, caption))
    return axes, threads


def place(column: Sequence[Any]) -> tuple[list[Tick], list[float]]:
    """Ticks of an axis, and the height of each value on it, both in percent: numbers by size, others one by one.

    A few numbers that are well apart, as those of a grid, are the ticks themselves.
    """
    if not all(isinstance(value, int | float) for value in column):
        texts = list(dict.fromkeys(map(str, column)))
        shelf = {text: 100 * (i + 0.5) / len(texts) for i, text in enumerate(texts)}
        return [Tick(height, text) for text, height in shelf.items()], [shelf[str(value)] for value in column]
    low, high = min(column), max(column)
    logarithmic = low > 0 and high > _LOG_RATIO * low
    scale = math.log10 if logarithmic else float

    def height(value: float) -> float:
        return 100 * (scale(value) - scale(low)) / (scale(high) - scale(low)) if high > low else 50.0

    heights = [height(value) for value in column]
    if all(b - a >= _TICK_SPACE for a, b in pairwise(sorted(set(heights)))):
        marks = sorted(set(column))
    else:
        marks = [mark for mark in (log_ticks if logarithmic else linear_ticks)(low, high) if low <= mark <= high]
        marks = [low, *marks, high] if len(marks) < 2 else marks
        marks = marks[:: -(-len(marks) // _MAX_TICKS)]
    return [Tick(height(mark), f"{mark:.4g}") for mark in marks], heights


def rate_distortion(trade_off: TradeOff) -> Scatter:
    """Distortion over rate, in nats, with the label of each strip at its point."""
    known = [(strip.label, strip.rate, strip.distortion) for strip in trade_off.strips]
    everything = [*known, *trade_off.others]
    x_marks, y_marks = (
        linear_ticks(min(values), max(values)) for values in ([e[1] for e in everything], [e[2] for e in everything])
    )

    def share(value: float, marks: Sequence[float]) -> float:
        return (value - marks[0]) / (marks[-1] - marks[0])

    def placed(entries: Sequence[tuple[str, float, float]]) -> list[tuple[float, float, str]]:
        return [(1000 * share(rate, x_marks), 1000 - 1000 * share(dist, y_marks), name) for name, rate, dist in entries]

    points = placed(known)
    return Scatter(
        points,
        placed(trade_off.others),
        _path([(x, y) for x, y, _ in sorted(points)]) if trade_off.joined else "",
        [Tick(100 * share(mark, x_marks), f"{mark:g}") for mark in x_marks],
        [Tick(100 * share(mark, y_marks), f"{mark:g}") for mark in y_marks],
    )


def lineage(trials: Sequence[Trial], ranks: Mapping[str, float]) -> Lineage:
    """The runs of a population, one row per member, and which of them continued from whose checkpoint."""
    end = max(trial.images for trial in trials) or 1
    members = sorted({trial.number for trial in trials})
    height = {member: 1000 * (i + 0.5) / len(members) for i, member in enumerate(members)}
    by_run = {trial.run: trial for trial in trials}
    runs, links = [], []
    for trial in trials:
        x0, x1, y = 1000 * trial.born / end, 1000 * trial.images / end, height[trial.number]
        runs.append((trial.run, x0, max(x1, x0 + 4), y, ranks[trial.run]))
        if trial.parent in by_run:
            links.append(_path([(x0, height[by_run[trial.parent].number]), (x0, y)]))
    marks = [Tick(100 * mark / end, count(mark)) for mark in linear_ticks(0.0, end) if mark <= end]
    return Lineage(runs, links, marks, [Tick(100 - height[member] / 10, f"{member:04d}") for member in members])


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
