"""JSON from untrusted files."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 64
"""Largest number of nested levels of objects and arrays; documents of this package have fewer than a dozen."""


def parse_json(text: str | bytes, checked: bool = True) -> Any:
    """Parse a JSON text. Raises ValueError if it is invalid or nested deeper than DEEPEST levels.

    checked: False leaves the depth to the limit of the parser, for texts of many thousands of objects whose reader does
    not recurse.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if checked:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {DEEPEST} levels")


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
