"""A self-contained HTML report of a run: metrics, pictures, curves, and commands to continue."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from imagegen_dist.drawing.animation import first_frame, is_film
from imagegen_dist.metric_table import GROUPS, describe
from imagegen_dist.metrics import formatting
from imagegen_dist.metrics.formatting import FigureLine, figure, figure_lines

_MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}
_FILMS = ("webp", "png", "gif")
_FILM_BYTES = 4 << 20  # of films through time that play in a report, and are in it as a whole
_POINTS = 500  # maximum number of points of a curve
_MEANS = 100  # longer curves are drawn as this many means over their faint points
_DOTS = 40  # up to this many points are marked individually
_SCALE_RATIO = 12.0  # curves share an axis unless their magnitudes differ by more
_LABEL_ROOM = (11.0, 8.0)  # size of a point's label, in percent of the axes
_LOG_RATIO = 60.0  # a positive curve with a larger ratio is drawn on a logarithmic axis

_HEADLINES = 3
_COLUMN_LETTERS = 40  # total length of column names, each padded to the longest, that fit side by side

Point = tuple[float, float | None]
"""Images seen, and a value; None if it was not finite, which leaves a gap."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture, film or mesh, and its caption. columns: label of each column of its samples, or none."""

    caption: str
    data: bytes
    extension: str
    columns: Sequence[str] = ()

    @property
    def source(self) -> str:
        """The picture as a data URL."""
        return data_url(self.data, self.extension)

    @cached_property
    def still(self) -> str:
        """The first frame of a film as a data URL; "" if the picture does not move."""
        moves = self.extension in _FILMS and is_film(self.data)
        return data_url(first_frame(self.data), "webp") if moves else ""

    @property
    def is_mesh(self) -> bool:
        """True for meshes, which are turned by hand."""
        return self.extension == "glb"

    @property
    def encoded(self) -> str:
        """The file in base64."""
        return base64.b64encode(self.data).decode()

    @property
    def upright(self) -> bool:
        """True if the column names are too long to be set horizontally."""
        return max(map(len, self.columns), default=0) * len(self.columns) > _COLUMN_LETTERS


@dataclass(frozen=True)
class Tick:
    """A number on an axis, at a position in percent of the axis."""

    position: float
    text: str


@dataclass(frozen=True)
class Line:
    """One curve, as SVG paths over 1000 × 1000 units.

    path: the curve, or its means. points: all of its points if `path` holds means. dots: isolated points. readings:
    values for the pointer, at fractions of the x-axis. is_reference: others are compared with it.
    """

    name: str
    path: str
    points: str
    dots: str
    readings: list[tuple[float, str]]
    is_reference: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves that share their axes; the x-axis ranges from 0 to `end` images seen.

    note: unit, direction and scale. infrastructure: folded by default.
    """

    title: str
    end: float
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    logarithmic: bool
    note: str = ""
    infrastructure: bool = False


@dataclass(frozen=True)
class TradeOffPoint:
    """One evaluation, at positions in percent of both axes. label: images seen, if there is space for it."""

    x: float
    y: float
    label: str
    note: str


@dataclass(frozen=True)
class TradeOff:
    """The evaluations of a VAE during a run, rate to the right and distortion upwards, in nats per sample.

    path: from each to the next, as an SVG path over 1000 × 1000 units.
    """

    points: list[TradeOffPoint]
    path: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def render_report(
    title: str,
    facts: Sequence[tuple[str, str]],
    figures: Mapping[str, float],
    rows: Sequence[Mapping[str, float]],
    pictures: Sequence[Picture],
    commands: Sequence[tuple[str, str]],
    config: str = "",
    more_pictures: Sequence[Picture] = (),
    picture_note: str = "The same latents",
    state: str = "",
    main_figure: str = "",
    warnings: Sequence[str] = (),
) -> str:
    """The page as HTML.

    title: the run's name. state: of the run, beside its name. facts: (name, value) about the run. figures: metrics of
    the last evaluation by full name, with main_figure shown first. rows: metrics as sinks received them. pictures:
    oldest first, described by `picture_note`; of many films, the oldest stand still. commands: (purpose, command line).
    config: the resolved configuration as text. more_pictures: shown once, below the others. warnings: what has to be
    read with the figures.
    """
    drawn, lines = charts(rows), figure_lines(figures)
    pictures = _with_few_films(pictures)
    return template("report.html.j2").render(
        title=title,
        state=state,
        facts=facts,
        headlines=headlines(lines, main_figure),
        warnings=warnings,
        figures=lines,
        charts=[each for each in drawn if not each.infrastructure],
        infrastructure=[each for each in drawn if each.infrastructure],
        trade_off=trade_off(rows),
        pictures=pictures,
        more_pictures=more_pictures,
        has_films=any(each.still for each in [*pictures, *more_pictures]),
        has_meshes=any(each.is_mesh for each in more_pictures),
        picture_note=picture_note,
        commands=commands,
        config=config,
    )


def _with_few_films(pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures, of which the newest films play while they are small enough together; the others stand still."""
    kept: list[Picture] = []
    spent = 0
    for picture in reversed(pictures):
        spent += len(picture.data) if picture.still else 0
        stands = picture.still and kept and spent > _FILM_BYTES
        kept.append(replace(picture, data=first_frame(picture.data), extension="webp") if stands else picture)
    return kept[::-1]


def headlines(lines: Sequence[FigureLine], main: str = "") -> list[FigureLine]:
    """The three metrics to show large: the main one, given by full name, and the first ones designated for it."""
    chosen = [line for line in lines if line.name == main]
    chosen += [line for line in lines if describe(line.name).headline and line.name != main]
    return chosen[:_HEADLINES]


def template(name: str) -> Template:
    """A template of this directory, with automatic escaping."""
    environment = Environment(
        loader=PackageLoader("imagegen_dist.metrics", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def charts(rows: Sequence[Mapping[str, float]]) -> list[Chart]:
    """One chart per group of metrics, or several if the magnitudes in a group differ.

    Omitted are metrics that are always zero, such as counts of faults; metrics computed once at the end, beside those
    computed during training; and a reference whose magnitude differs from what is compared with it.
    """
    series: dict[str, list[Point]] = {}
    for row in sorted(rows, key=lambda row: row["images"]):
        for name, value in row.items():
            if "/" in name:
                series.setdefault(name, []).append((row["images"], value if math.isfinite(value) else None))
    end = max((row["images"] for row in rows), default=0)
    groups: dict[str, list[str]] = {}
    for name, points in series.items():
        if any(value for _, value in points):
            groups.setdefault(name.partition("/")[0], []).append(name)
    titles, references = list(GROUPS), _references(series)
    order = sorted(groups, key=lambda group: (titles.index(group) if group in titles else len(titles), group))
    return [
        _group_chart(group, {name: series[name] for name in names}, end)
        for group in order
        for alike in _kinds(groups[group], series)
        for names in _alike(alike, series)
        if not references.issuperset(names)
    ]


def _group_chart(group: str, series: Mapping[str, Sequence[Point]], end: float) -> Chart:
    """The chart of some metrics of a group; for a single metric with its label, unit and direction."""
    references = _references(series)
    metrics = [describe(name) for name in series if name not in references]
    title, notes = GROUPS.get(group, group.capitalize()), {metric.unit for metric in metrics}
    if len(metrics) == 1:
        (only,) = metrics
        title = only.label[0].upper() + only.label[1:]
        notes |= {f"{only.better} is better"} if only.better != "neither" else set()
    note = ", ".join(sorted(filter(None, notes))) if len(metrics) == 1 or len(notes) == 1 else ""
    made = chart(title, {describe(name).words: points for name, points in series.items()}, end, note)
    lines = [replace(line, is_reference=name in references) for name, line in zip(series, made.lines, strict=True)]
    return replace(made, lines=lines, infrastructure=metrics[0].section == "infrastructure")


def _references(names: Iterable[str]) -> set[str]:
    """Those names that are references of others."""
    return {describe(name).reference for name in names}.intersection(names)


def _kinds(names: Sequence[str], series: Mapping[str, Sequence[Point]]) -> list[list[str]]:
    """The curves of a group, with shares separated from the others."""
    curves = [name for name in names if len(series[name]) > 1] or list(names)
    shares = [name for name in curves if describe(name).form == "share"]
    return [kind for kind in ([name for name in curves if name not in shares], shares) if kind]


def _alike(names: Sequence[str], series: Mapping[str, Sequence[Point]]) -> list[list[str]]:
    """Names grouped by the magnitude of their values, largest first."""
    size = {name: _typical(series[name]) for name in names}
    lists: list[list[str]] = []
    for name in sorted(names, key=lambda name: -size[name]):
        if lists and size[lists[-1][0]] <= _SCALE_RATIO * size[name]:
            lists[-1].append(name)
        else:
            lists.append([name])
    return [sorted(members, key=names.index) for members in lists]


def _typical(points: Sequence[Point]) -> float:
    """Median magnitude of the values."""
    sizes = sorted(abs(value) for _, value in points if value is not None)
    return sizes[len(sizes) // 2]


def chart(title: str, series: Mapping[str, Sequence[Point]], end: float, note: str = "") -> Chart:
    """Curves by name, over images seen from 0 to `end`. note: shown beside the title."""
    values = [value for points in series.values() for _, value in points if value is not None]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high > _LOG_RATIO * low
    ticks = log_ticks(low, high) if logarithmic else linear_ticks(low, high)
    scale = math.log10 if logarithmic else float
    bottom, top = scale(min(low, ticks[0])), scale(max(high, ticks[-1]))
    end = max(end, 1.0)

    def height(value: float) -> float:
        """Position as a fraction of the y-axis."""
        return (scale(value) - bottom) / (top - bottom)

    def place(points: Sequence[Point]) -> list[Point]:
        return [(1000 * x / end, None if y is None else 1000 - 1000 * height(y)) for x, y in points]

    lines = []
    for name, points in series.items():
        crowded = len(points) > 2 * _MEANS
        drawn = means(points) if crowded else points
        placed = place(drawn)
        readings = [(round(x / end, 5), "not finite" if y is None else figure(y)) for x, y in drawn]
        lines.append(
            Line(name, _path(placed), _path(place(downsample(points))) if crowded else "", _dots(placed), readings)
        )
    x_ticks = [tick for tick in linear_ticks(0.0, end) if tick <= end]
    return Chart(
        title=title,
        end=end,
        lines=lines,
        x_ticks=[Tick(100 * tick / end, formatting.count(tick)) for tick in x_ticks],
        y_ticks=[Tick(100 * height(tick), tick_text(tick, ticks, logarithmic)) for tick in ticks],
        logarithmic=logarithmic,
        note=", ".join(filter(None, (note, "logarithmic" * logarithmic))),
    )


def trade_off(rows: Sequence[Mapping[str, float]]) -> TradeOff | None:
    """Rate against distortion of every evaluation that has both; None if there is none."""
    found = [
        (row["images"], row["eval/rate"], row["eval/distortion"])
        for row in sorted(rows, key=lambda row: row["images"])
        if math.isfinite(row.get("eval/rate", math.nan)) and math.isfinite(row.get("eval/distortion", math.nan))
    ]
    if not found:
        return None
    rates, distortions = [rate for _, rate, _ in found], [distortion for _, _, distortion in found]
    x_ticks, y_ticks = (linear_ticks(min(values), max(values)) for values in (rates, distortions))

    def percent(value: float, ticks: Sequence[float]) -> float:
        return 100 * (value - ticks[0]) / (ticks[-1] - ticks[0])

    points: list[TradeOffPoint] = []
    labelled: list[tuple[float, float]] = []
    # The last evaluation is labelled first; then as many as fit, from the beginning.
    order = [len(found) - 1, *range(len(found) - 1)]
    placed = [(percent(rate, x_ticks), percent(distortion, y_ticks)) for _, rate, distortion in found]
    named = set[int]()
    for number in order:
        x, y = placed[number]
        if all(abs(x - a) > _LABEL_ROOM[0] or abs(y - b) > _LABEL_ROOM[1] for a, b in labelled):
            labelled.append((x, y))
            named.add(number)
    for number, (images, rate, distortion) in enumerate(found):
        note = f"{images:,.0f} images: rate {figure(rate)}, distortion {figure(distortion)} nats"
        points.append(TradeOffPoint(*placed[number], formatting.count(images) if number in named else "", note))
    return TradeOff(
        points=points,
        path=_path([(10 * x, 1000 - 10 * y) for x, y in placed]),
        x_ticks=[Tick(percent(tick, x_ticks), tick_text(tick, x_ticks, logarithmic=False)) for tick in x_ticks],
        y_ticks=[Tick(percent(tick, y_ticks), tick_text(tick, y_ticks, logarithmic=False)) for tick in y_ticks],
    )


def downsample(points: Sequence[Point], limit: int = _POINTS) -> list[Point]:
    """At most `limit` points that preserve a curve's shape: minimum, maximum and gap of each neighbourhood."""
    if len(points) <= limit:
        return list(points)
    buckets = (limit - 2) // 3
    edges = [1 + i * (len(points) - 2) // buckets for i in range(buckets + 1)]
    kept = [points[0]]
    for start, stop in pairwise(edges):
        bucket = range(start, stop)
        finite = sorted((i for i in bucket if points[i][1] is not None), key=lambda i: (points[i][1], i))
        gaps = [i for i in bucket if points[i][1] is None]
        kept += [points[i] for i in sorted({*finite[:1], *finite[-1:], *gaps[:1]})]
    return [*kept, points[-1]]


def means(points: Sequence[Point], count: int = _MEANS) -> list[Point]:
    """`count` means over neighbouring points; a gap if most of them are not finite."""
    drawn: list[Point] = []
    for i in range(count):
        bucket = points[i * len(points) // count : (i + 1) * len(points) // count]
        finite = [y for _, y in bucket if y is not None]
        x = sum(x for x, _ in bucket) / len(bucket)
        drawn.append((x, sum(finite) / len(finite) if 2 * len(finite) >= len(bucket) else None))
    return drawn


def _path(placed: Sequence[Point]) -> str:
    """An SVG path through points, lifted at gaps."""
    commands, pen = [], "M"
    for x, y in placed:
        if y is None:
            pen = "M"
        else:
            commands.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
    return "".join(commands)


def _dots(placed: Sequence[Point]) -> str:
    """An SVG path of zero-length strokes, round at any aspect ratio: few points, or one alone between gaps."""
    alone = []
    for i, (x, y) in enumerate(placed):
        before = i > 0 and placed[i - 1][1] is not None
        after = i + 1 < len(placed) and placed[i + 1][1] is not None
        if y is not None and (len(placed) <= _DOTS or not (before or after)):
            alone.append(f"M{x:.1f} {y:.1f}h0")
    return "".join(alone)


def linear_ticks(low: float, high: float) -> list[float]:
    """About five round numbers that span [low, high]; including zero if it is near.

    Values that differ by less than a millionth of their magnitude count as equal.
    """
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    if 0 < low < 0.4 * high:
        low = 0.0
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if factor * step * 5 >= high - low)
    return [step * i for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that span [low, high], thinned to about five."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / 5))
    return [10.0**power for power in range(first, last + every, every)]


def tick_text(tick: float, ticks: Sequence[float], logarithmic: bool) -> str:
    """A tick's number with the digits needed to distinguish its neighbours."""
    if abs(tick) >= 10_000:
        return formatting.count(tick)
    if logarithmic:
        return f"{tick:g}"
    step = ticks[1] - ticks[0]
    largest = max(abs(ticks[0]), abs(ticks[-1]))
    if largest < 1e-3:
        return f"{tick:.{max(3, 1 + math.ceil(math.log10(largest / step)))}g}"
    decimals = next(digits for digits in range(12) if abs(round(step, digits) - step) < 1e-6 * step)
    return f"{tick:,.{decimals}f}"


def data_url(data: bytes, extension: str) -> str:
    """A picture as a data URL. Raises ValueError for an unsupported type."""
    if extension not in _MEDIA_TYPES:
        raise ValueError(f"pictures of type {extension!r} cannot be shown; allowed: {', '.join(_MEDIA_TYPES)}")
    return f"data:{_MEDIA_TYPES[extension]};base64,{base64.b64encode(data).decode()}"
