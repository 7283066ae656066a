"""Figures as people read them: 153.6k images, 3:20 left, frechet 12.35."""

import math

_SHARES = ("agreement", "accuracy", "authenticity", "copied", "copied_real", "farther")
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
    """200 -> "3:20", 7260 -> "2:01 h", 200000 -> "2 d 7 h"; "–" where it is not known."""
    if not math.isfinite(seconds):
        return "–"
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minute:02d} h" if hours else f"{minute}:{second:02d}"


def figure(value: float) -> str:
    """A measured value with about four digits: 0.6931, 12.35, 1,234, 2.5e-07."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-4:
        return f"{value:.2e}"
    if size >= 1000:
        return f"{value:,.0f}"
    decimals = 4 if size < 1 else 3 if size < 10 else 2 if size < 100 else 1
    return f"{value:.{decimals}f}"


def is_share(name: str) -> bool:
    """Whether a figure of that name is a share, from 0 to 1, which people read as a percentage."""
    return any(word in name for word in _SHARES) and not name.endswith(("_z", " z"))


def words(name: str) -> str:
    """A metric's name without its group, in words: "system/images_per_s" -> "images/s"."""
    return name.partition("/")[2].replace("_per_", "/").replace("_", " ") or name
