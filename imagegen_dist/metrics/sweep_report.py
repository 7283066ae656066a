"""One self-contained HTML page about a sweep: which values were tried, what came of them, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from imagegen_dist.metric_table import EVALUATION, describe
from imagegen_dist.metrics.formatting import count, figure
from imagegen_dist.metrics.importance import importance, ranked
from imagegen_dist.metrics.report import Chart, Point, Tick, chart, data_url, linear_ticks, log_ticks, template

_LOG_RATIO = 30.0  # numbers above 0 that span more are placed by their logarithms
_READ = 8  # curves that a pointer reads
_ROWS = 60  # trials of the table
_MOST_TICKS = 7
_TICK_ROOM = 7.0  # of a tick's number, in percent of the axis


@dataclass(frozen=True)
class TrialView:
    """One trial as the page shows it.

    name: its run's. values: by path, numbers or text. figures: by plain name. loss: by which it is ranked, less is
    better, infinite where it has none. curve: images seen and the first figure. start: images at which it began;
    parent: from whose checkpoint. picture: encoded data and extension, of the best alone.
    """

    name: str
    values: Mapping[str, float | str]
    figures: Mapping[str, float]
    loss: float
    state: str
    note: str = ""
    images: int = 0
    start: int = 0
    parent: str = ""
    member: int = 0
    curve: Sequence[Point] = ()
    picture: tuple[bytes, str] | None = None


@dataclass(frozen=True)
class Strip:
    """Reconstructions of one trial beside its rate and distortion in nats.

    label: what it is known by. data: encoded picture. note: its other values.
    """

    label: str
    rate: float
    distortion: float
    data: bytes = b""
    extension: str = "png"
    note: str = ""


@dataclass(frozen=True)
class TradeOff:
    """Rate against distortion: strips, other trials as (name, rate, distortion), and whether the strips are a curve."""

    strips: Sequence[Strip]
    others: Sequence[tuple[str, float, float]] = ()
    joined: bool = True


@dataclass(frozen=True)
class Axis:
    """One upright axis of parallel coordinates, at `x` percent."""

    label: str
    x: float
    ticks: list[Tick]


@dataclass(frozen=True)
class Thread:
    """A trial's line over all axes, as an SVG path over 1000 × 1000 units. rank: 0 for the best to 1."""

    name: str
    path: str
    rank: float
    said: str


@dataclass(frozen=True)
class Scatter:
    """Points over 1000 × 1000 units with their labels, a line through them, other points; ticks in percent."""

    points: list[tuple[float, float, str]]
    others: list[tuple[float, float, str]]
    path: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]


@dataclass(frozen=True)
class Lineage:
    """A population through time, over 1000 × 1000 units: runs as (name, x0, x1, y, rank), links between them."""

    runs: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    x_ticks: list[Tick] = field(default_factory=list)
    members: list[Tick] = field(default_factory=list)


def render_sweep_report(
    title: str,
    facts: Sequence[tuple[str, str]],
    figures: Sequence[tuple[str, str]],
    trials: Sequence[TrialView],
    labels: Mapping[str, str],
    best: str,
    front: Sequence[str],
    trade_off: TradeOff | None,
    commands: Sequence[tuple[str, str]],
    config: str = "",
) -> str:
    """The page as HTML.

    title: the sweep's name. facts: (name, value) of what it is. figures: (name, value), the headline ones. trials: all
    of them. labels: short names of the settings by path, in order. best: name of the best trial, "" for none. front:
    names of those that no other beats in every figure. trade_off: of VAEs. commands: (what it does, command line).
    config: the best trial's configuration as text.
    """
    ranks = dict(zip([trial.name for trial in trials], relative_ranks([trial.loss for trial in trials]), strict=True))
    order = sorted(trials, key=lambda trial: (ranks[trial.name], trial.name))
    names = list(dict.fromkeys(name for trial in trials for name in trial.figures))
    curves, drawn = _curves(order, names)
    is_population = any(trial.parent for trial in trials)
    axes, threads = parallel(order, labels, names, ranks)
    return template("sweep.html.j2").render(
        title=title,
        facts=facts,
        figures=figures,
        rows=[_row(trial, labels, names, best, front, ranks) for trial in order[:_ROWS]],
        more=max(0, len(order) - _ROWS),
        heads=[*labels.values(), "images", *(name.replace("_", " ") for name in names)],
        axes=axes,
        threads=threads[::-1],
        curves=curves,
        curve_ranks=[ranks[trial.name] for trial in drawn],
        read=_READ,
        importances=importances(trials, labels),
        scatter=rate_distortion(trade_off) if trade_off and len(trade_off.strips) > 1 else None,
        is_curve=trade_off is not None and trade_off.joined,
        strips=[
            {"strip": strip, "source": data_url(strip.data, strip.extension)}
            for strip in (trade_off.strips if trade_off else ())
            if strip.data
        ],
        pictures=[
            {"caption": _caption(trial, labels, names), "source": data_url(*trial.picture)}
            for trial in order
            if trial.picture
        ],
        lineage=lineage(trials, ranks) if is_population else None,
        commands=commands,
        config=config,
    )


def relative_ranks(losses: Sequence[float]) -> list[float]:
    """The place of each loss, 0 for the best to 1 for the worst."""
    places = ranked(losses)
    most = max(places, default=0.0)
    return [place / most if most else 0.0 for place in places]


def importances(trials: Sequence[TrialView], labels: Mapping[str, str]) -> list[tuple[str, float]]:
    """(short name, share) of each setting that can be judged, the largest first. See metrics/importance.py.

    Trials that were ended early are left out: their figures are those of fewer images. There is none for a
    population, whose members had other values before.
    """
    if any(trial.parent for trial in trials):
        return []
    judged = [trial for trial in trials if trial.state in ("complete", "diverged")]
    found = []
    for path, label in labels.items():
        share = importance([trial.values[path] for trial in judged], [trial.loss for trial in judged])
        if share is not None:
            found.append((label, share))
    return sorted(found, key=lambda pair: -pair[1])


def parallel(
    trials: Sequence[TrialView], labels: Mapping[str, str], names: Sequence[str], ranks: Mapping[str, float]
) -> tuple[list[Axis], list[Thread]]:
    """An axis for each setting and figure, and a line for each trial; nothing where there is no figure."""
    shown = [trial for trial in trials if all(name in trial.figures for name in names)]
    columns = [(label, [trial.values[path] for trial in shown]) for path, label in labels.items()]
    columns += [(name.replace("_", " "), [trial.figures[name] for trial in shown]) for name in names]
    if not names or len(columns) < 2 or len(shown) < 2:
        return [], []
    axes, places = [], []
    for i, (label, column) in enumerate(columns):
        ticks, heights = place(column)
        axes.append(Axis(label, 100 * i / (len(columns) - 1), ticks))
        places.append(heights)
    threads = []
    for i, trial in enumerate(shown):
        steps = [(1000 * a / (len(columns) - 1), 1000 - 10 * places[a][i]) for a in range(len(columns))]
        path = "".join(f"{'L' if a else 'M'}{x:.1f} {y:.1f}" for a, (x, y) in enumerate(steps))
        threads.append(Thread(trial.name, path, ranks[trial.name], _caption(trial, labels, names)))
    return axes, threads


def place(column: Sequence[float | str]) -> tuple[list[Tick], list[float]]:
    """Ticks of an axis, and each value's height on it, both in percent: numbers by size, others one under another.

    A few numbers that lie apart, as those of a grid, are the ticks themselves.
    """
    numbers = [value for value in column if isinstance(value, int | float)]
    if len(numbers) < len(column):
        texts = list(dict.fromkeys(map(str, column)))
        shelf = {text: 100 * (i + 0.5) / len(texts) for i, text in enumerate(texts)}
        return [Tick(height, text) for text, height in shelf.items()], [shelf[str(value)] for value in column]
    low, high = min(numbers), max(numbers)
    logarithmic = low > 0 and high > _LOG_RATIO * low
    scale = math.log10 if logarithmic else float
    bottom, top = scale(low), scale(high)
    width = top - bottom or 1.0
    marks = log_ticks(low, high) if logarithmic else linear_ticks(low, high)
    inside = [mark for mark in marks if low <= mark <= high] or [low, high]
    if len(inside) == 1 and high > low:
        inside = [low, *inside, high]

    def height(value: float) -> float:
        return 100 * (scale(value) - bottom) / width if high > low else 50.0

    heights = [height(value) for value in numbers]
    levels = sorted(set(heights))
    if all(b - a >= _TICK_ROOM for a, b in pairwise(levels)):
        return [Tick(height(mark), f"{mark:.4g}") for mark in sorted(set(numbers))], heights
    ticks = [Tick(height(mark), f"{mark:.4g}") for mark in inside]
    return ticks[:: -(-len(ticks) // _MOST_TICKS)], heights


def rate_distortion(trade_off: TradeOff) -> Scatter:
    """Distortion over rate, in nats, with the label of each strip at its point."""
    known = [(strip.label, strip.rate, strip.distortion) for strip in trade_off.strips]
    everything = [*known, *trade_off.others]
    xs, ys = [rate for _, rate, _ in everything], [distortion for _, _, distortion in everything]
    x_marks, y_marks = linear_ticks(min(xs), max(xs)), linear_ticks(min(ys), max(ys))

    def x(value: float) -> float:
        return (value - x_marks[0]) / (x_marks[-1] - x_marks[0])

    def y(value: float) -> float:
        return (value - y_marks[0]) / (y_marks[-1] - y_marks[0])

    def placed(entries: Sequence[tuple[str, float, float]]) -> list[tuple[float, float, str]]:
        return [(1000 * x(rate), 1000 - 1000 * y(distortion), name) for name, rate, distortion in entries]

    points = placed(known)
    line = sorted(points) if trade_off.joined else []
    return Scatter(
        points,
        placed(trade_off.others),
        "".join(f"{'L' if i else 'M'}{a:.1f} {b:.1f}" for i, (a, b, _) in enumerate(line)),
        [Tick(100 * x(mark), f"{mark:g}") for mark in x_marks],
        [Tick(100 * y(mark), f"{mark:g}") for mark in y_marks],
    )


def lineage(trials: Sequence[TrialView], ranks: Mapping[str, float]) -> Lineage:
    """A population's runs, a row a member, and who went on from whose checkpoint."""
    end = max(trial.images for trial in trials) or 1
    members = sorted({trial.member for trial in trials})
    height = {member: 1000 * (i + 0.5) / len(members) for i, member in enumerate(members)}
    by_name = {trial.name: trial for trial in trials}
    runs, links = [], []
    for trial in trials:
        x0, x1, y = 1000 * trial.start / end, 1000 * trial.images / end, height[trial.member]
        runs.append((trial.name, x0, max(x1, x0 + 4), y, ranks[trial.name]))
        if trial.parent in by_name:
            above = height[by_name[trial.parent].member]
            links.append(f"M{x0:.1f} {above:.1f}L{x0:.1f} {y:.1f}")
    marks = [mark for mark in linear_ticks(0.0, end) if mark <= end]
    return Lineage(
        runs,
        links,
        [Tick(100 * mark / end, count(mark)) for mark in marks],
        [Tick(100 - height[member] / 10, f"{member:04d}") for member in members],
    )


def _curves(order: Sequence[TrialView], names: Sequence[str]) -> tuple[Chart | None, list[TrialView]]:
    """The first figure over images seen, a line a trial, the best first; and the trials that have one."""
    drawn = [trial for trial in order if any(value is not None for _, value in trial.curve)]
    if not names or all(len(trial.curve) < 2 for trial in drawn):
        return None, []
    end = max(x for trial in drawn for x, _ in trial.curve)
    made = chart(describe(EVALUATION + names[0]).label, {trial.name: trial.curve for trial in drawn}, end)
    return made, drawn


def _row(
    trial: TrialView,
    labels: Mapping[str, str],
    names: Sequence[str],
    best: str,
    front: Sequence[str],
    ranks: Mapping[str, float],
) -> dict[str, object]:
    cells = [_text(trial.values[path]) for path in labels]
    cells += [count(trial.images), *(_text(trial.figures.get(name, "–")) for name in names)]
    mark = "best" if trial.name == best else "front" if len(names) > 1 and trial.name in front else ""
    said = f"{trial.state}: {trial.note}" if trial.note else trial.state
    return {"name": trial.name, "cells": cells, "state": said, "mark": mark, "rank": ranks[trial.name]}


def _caption(trial: TrialView, labels: Mapping[str, str], names: Sequence[str]) -> str:
    values = ", ".join(f"{label} {_text(trial.values[path])}" for path, label in labels.items())
    found = ", ".join(
        f"{name.replace('_', ' ')} {_text(trial.figures[name])}" for name in names if name in trial.figures
    )
    return f"{trial.name}: {values}; {found}" if found else f"{trial.name}: {values}"


def _text(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, int) or abs(value) < 1 else figure(value)
