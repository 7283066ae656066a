"""JSON that others may have written."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 64
"""Levels of objects and arrays within one another: none of ours has a dozen."""


def parse_json(text: str | bytes, checked: bool = True) -> Any:
    """The value in a JSON text. Raises ValueError for what is none, and where it is nested deeper than DEEPEST levels.

    checked: False leaves the depth to the parser's own limit, for texts of many thousand objects whose reader does not
    recurse.
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
