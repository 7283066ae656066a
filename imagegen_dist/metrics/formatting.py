"""Human-readable numbers: 153.6k images, 3:20 left, frechet 12.35."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from imagegen_dist.metric_table import describe, entry_of, place_of

_MOST_MEMBERS = 12  # in a family whose members have a line each
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(number: float, unit_of: float | None = None) -> str:
    """153600 -> "153.6k", 250000000 -> "250M"; in the unit that suits `unit_of`, by default the number itself."""
    size = number if unit_of is None else unit_of
    for factor, suffix in _UNITS:
        if abs(size) >= factor:
            digits = f"{number / factor:.{2 if factor > 1e3 else 1}f}"
            return f"{digits.rstrip('0').rstrip('.')}{suffix}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """200 -> "3:20", 7260 -> "2:01 h", 200000 -> "2 d 7 h"; "–" if unknown."""
    if not math.isfinite(seconds):
        return "–"
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minute:02d} h" if hours else f"{minute}:{second:02d}"


def figure(value: float) -> str:
    """A value with about four significant digits: 0.6931, 12.35, 1,234, 2.5e-07."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-4:
        return f"{value:.2e}"
    if size >= 1000:
        return f"{value:,.0f}"
    decimals = 4 if size < 1 else 3 if size < 10 else 2 if size < 100 else 1
    return f"{value:.{decimals}f}"


def value_text(name: str, value: float) -> str:
    """A metric's value in the format of its table entry: 97.6%, 998 modes, 12.35. name: with its group."""
    match describe(name).form:
        case "share" if math.isfinite(value):
            return f"{value:.1%}"
        case "count" if math.isfinite(value):
            return f"{value:,.0f}"
        case _:
            return figure(value)


class FigureLine(NamedTuple):
    """One line of a table of metrics.

    name: with its group; for a family of many members, that of the first. unit: of the value; may be empty. reference:
    what the value is compared with, e.g. "held-out real samples: 2.149"; empty for nothing.
    """

    name: str
    label: str
    value: str
    unit: str = ""
    reference: str = ""

    @property
    def direction(self) -> str:
        """Which direction is better, in words; empty if neither."""
        better = describe(self.name).better
        return "" if better == "neither" else f"{better} is better"

    @property
    def full_value(self) -> str:
        """The value with its unit and its reference."""
        return " ".join(filter(None, (self.value, self.unit, self.reference and f"({self.reference})")))


def figure_lines(values: Mapping[str, float]) -> list[FigureLine]:
    """Metrics in the order of the table, each with its reference, which then has no line of its own.

    values: by full name. A family, or a nested group, of more than a dozen members is one line.
    """
    references = {describe(name).reference for name in values}
    groups: dict[str, list[str]] = {}
    for name in sorted(values, key=place_of):
        if name not in references:
            groups.setdefault(_family(name), []).append(name)
    lines = []
    for family, names in groups.items():
        if len(names) > _MOST_MEMBERS:
            lines.append(_line_of_family(family, names, values))
        else:
            lines += [_line(name, values) for name in names]
    return lines


def _family(name: str) -> str:
    """The common prefix of a family or nested group; otherwise the name itself."""
    entry = entry_of(name)
    if entry:
        return entry.name
    return f"{name.rpartition('/')[0]}/*" if name.count("/") > 1 else name


def _line(name: str, values: Mapping[str, float]) -> FigureLine:
    metric = describe(name)
    beside = values.get(metric.reference)
    said = "" if beside is None else f"{metric.reference_label}: {value_text(metric.reference, beside)}"
    return FigureLine(name, metric.label, value_text(name, values[name]), metric.unit, said)


def _line_of_family(family: str, names: Sequence[str], values: Mapping[str, float]) -> FigureLine:
    least, most = (value_text(names[0], pick(values[name] for name in names)) for pick in (min, max))
    label = describe(family).label.replace("*", "").rstrip(" ,")
    return FigureLine(names[0], label, f"{least} to {most}", describe(names[0]).unit, f"{len(names)} values")
