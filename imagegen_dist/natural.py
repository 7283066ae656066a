"""The order in which people sort names with numbers in them: 2 before 10."""

import re
from collections.abc import Iterable


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sort key that compares the numbers in names: 2 comes before 10, and img9 before img10."""
    parts = re.split(r"([0-9]+)", name)  # text and digits alternate
    return tuple(int(part) if at % 2 else part for at, part in enumerate(parts)), name


def natural_order(names: Iterable[str]) -> list[str]:
    """Names in the order in which classes are numbered (`natural_key`)."""
    return sorted(names, key=natural_key)
