"""The conditions that a command asks for: --set NAME=VALUE,... for all samples, --sweep NAME=FROM:TO by column."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from imagegen_dist.conditions.part import Conditions, Part, as_numbers
from imagegen_dist.conditions.rows import encode_within
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.given import Given

SWEEP_STEPS = 8
_MOST_STEPS = 100
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_DEVIATIONS = re.compile(rf"({_NUMBER})sd")


def parse_conditions(set_text: str, sweep_text: str, conditions: Conditions) -> list[Given]:
    """The conditions of each column: one without a sweep. Raises UsageError for what the model does not have."""
    fixed = _parse_set(set_text, conditions)
    if not sweep_text:
        return [fixed]
    name, steps = _parse_sweep(sweep_text, conditions)
    if name in fixed:
        raise UsageError(f"--set and --sweep both give {name}: leave it out of one of them")
    return [{**fixed, name: step} for step in steps]


def _parse_set(text: str, conditions: Conditions) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in next(csv.reader([text], skipinitialspace=True)) if text else []:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not name or not value:
            raise UsageError(f"--set {text}: NAME=VALUE,... is needed, as {_example(conditions)}")
        if name in found:
            raise UsageError(f"--set {text}: {name} is given twice")
        part = _part("set", name, conditions)
        found[name] = _value(part, value, f"--set {word.strip()}")
    return found


def _parse_sweep(text: str, conditions: Conditions) -> tuple[str, list[Any]]:
    """(the part, its value in each column)."""
    name, equals, values = (word.strip() for word in text.partition("="))
    part = _part("sweep", name, conditions)
    ends = [word.strip() for word in values.split(":")] if equals else []
    if equals and (len(ends) not in (2, 3) or not all(ends)):
        raise UsageError(f"--sweep {text}: NAME, NAME=FROM:TO or NAME=FROM:TO:STEPS is needed")
    count = ends[2] if len(ends) == 3 else str(SWEEP_STEPS)
    if not count.isdecimal() or not 2 <= int(count[:9]) <= _MOST_STEPS:
        raise UsageError(f"--sweep {text}: the number of steps is a whole number from 2 to {_MOST_STEPS}")
    shares = np.linspace(0, 1, int(count)).tolist()
    if part.kind == "class":
        if not ends:
            return name, list(part.names[:_MOST_STEPS])
        first, last = (_value(part, end, f"--sweep {text}") for end in ends[:2])
        return name, [{first: 1 - share, last: share} if first != last else first for share in shares]
    if part.size > 1:
        raise UsageError(f"--sweep {text}: {name} has {part.size} values; sweep a class, an attribute or a number")
    if part.kind == "attributes":
        start, stop = (_value(part, end, f"--sweep {text}") for end in ends[:2]) if ends else (0.0, 1.0)
    else:
        start, stop = (_value(part, end, f"--sweep {text}") for end in ends[:2]) if ends else part.usual_range
    return name, [float(start) * (1 - share) + float(stop) * share for share in shares]


def _value(part: Part, text: str, said: str) -> Any:
    """A value for a part in a text. Raises UsageError."""
    value = _parsed(part, text, said)
    try:
        encode_within(part, value)
    except ValueError as error:
        raise UsageError(f"{said}: {error}") from None
    return value


def _parsed(part: Part, text: str, said: str) -> Any:
    if part.kind == "class":
        return text
    if part.kind == "attributes":
        if part.names:
            return [] if text == "none" else text.split("+")
        if text in ("true", "false"):
            return text == "true"
    if text.startswith("@"):
        return _read(text[1:], said)
    words = text.split(";")
    if part.is_number and (match := _DEVIATIONS.fullmatch(text)):
        return part.mean[0] + float(match[1]) * part.deviation[0]
    if not all(re.fullmatch(_NUMBER, word.strip()) for word in words):
        needed = (
            "a number, or deviations from the mean as -2sd" if part.size == 1 else "numbers as 0.1;0.2, or @FILE.npy"
        )
        raise UsageError(f"{said}: {part.name} needs {needed}")
    numbers = [float(word) for word in words]
    return numbers[0] if part.size == 1 and len(numbers) == 1 else numbers


def _read(path: str, said: str) -> Any:
    """The numbers in a .npy or .json file. Raises UsageError."""
    try:
        found = np.load(path, allow_pickle=False) if path.endswith(".npy") else json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError):
        raise UsageError(f"{said}: {path} is no readable .npy or .json") from None
    numbers = as_numbers(np.ravel(found) if isinstance(found, np.ndarray) else found)
    if numbers is None:
        raise UsageError(f"{said}: {path} holds no list of numbers")
    return numbers


def _part(flag: str, name: str, conditions: Conditions) -> Part:
    try:
        return conditions.part(name)
    except ValueError as error:
        raise UsageError(f"--{flag} {name}: {error}") from None


def _example(conditions: Conditions) -> str:
    part = conditions.parts[0]
    if part.kind == "vector":
        return f"{part.name}={part.mean[0]:.3g}"
    return f"{part.name}={part.names[0] if part.names else 'true'}"
