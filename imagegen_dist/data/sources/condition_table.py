"""Conditions of the records of a source, one column a part, with typed values that are checked before packing."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.conditions.part import is_name
from imagegen_dist.conditions.tally import REQUESTED_KINDS, Tally, plain
from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.order import IntArray

Column = list[Any] | NDArray[Any]
"""Values of one part: a list [N], or an array, [N], or [N, n] of vectors."""

_ATTRIBUTES = ("attribute", "attributes")
_NUMBERS = ("vector", "number")
_BOOLEANS = {"true": True, "false": False}
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_LISTED = re.compile(r"[;|,]")
_SPACED = re.compile(r"[\s;|,]+")


@dataclass(frozen=True)
class ConditionTable:
    """The parts of the conditions of N records, by name. offered: names of others that could be taken."""

    columns: Mapping[str, Column] = field(default_factory=dict)
    offered: tuple[str, ...] = ()

    def row(self, number: int) -> dict[str, Any]:
        """The condition of a record, with values of Python or arrays [n]."""
        return {name: plain(values[number]) for name, values in self.columns.items()}

    def select(self, rows: IntArray) -> ConditionTable:
        """The conditions of the records with these numbers."""
        listed = rows.tolist()
        chosen = {
            name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in listed]
            for name, values in self.columns.items()
        }
        return ConditionTable(chosen)

    def digest(self) -> str:
        """SHA-256 of all names and values."""
        digest = hashlib.sha256()
        for name, values in self.columns.items():
            if isinstance(values, np.ndarray):
                digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
                digest.update(np.ascontiguousarray(values).tobytes())
            else:
                digest.update(json.dumps([name, values], default=str).encode() + b"\n")
        return digest.hexdigest()

    def check(self, kinds: Mapping[str, str], place: str, record: Callable[[int], str]) -> None:
        """Raise DatasetError for a part that cannot have its name, values or kind.

        kinds: as requested, by name. place: where the values are, for errors; record: the name of a record by number.
        """
        for name, values in self.columns.items():
            if not is_name(name):
                raise DatasetError(
                    f"{place} has a column {name!r:.60}, which cannot name a condition (no = , : / in it): "
                    "--conditions chooses columns"
                )
            try:
                _tally(values).part(name, kinds.get(name, ""))
            except ValueError as error:
                fault = _first_fault(name, values, record) or error
                choose = "" if name in kinds else "; --conditions chooses columns, and kinds as in age:number"
                raise DatasetError(f"{place}: {fault}{choose}") from error


def parse_conditions(text: str) -> dict[str, str]:
    """The requested kind of each part, "" for none, in `digit,age:number`. Raises ValueError in one line."""
    kinds: dict[str, str] = {}
    for word in text.split(",") if text else []:
        name, colon, kind = (each.strip() for each in word.partition(":"))
        if not is_name(name):
            raise ValueError(f"{name!r} is no name; give names, each with a kind where one is needed: digit,age:number")
        if colon and kind not in REQUESTED_KINDS:
            raise ValueError(f"{kind!r} is no kind of condition; {', '.join(REQUESTED_KINDS)} are")
        if name in kinds:
            raise ValueError(f"{name} comes twice")
        kinds[name] = kind
    return kinds


def column_of(values: Column, kind: str, is_text: bool) -> Column:
    """Values as they are stored. Texts that are numbers or booleans become these; -1 and 1 become false and true.

    kind: as requested, or "". is_text: True if the values are from a file that has only texts, such as CSV.
    """
    if isinstance(values, list) and set(map(type, values)) == {str} and (is_text or kind in (*_ATTRIBUTES, *_NUMBERS)):
        values = _parsed(values, kind)
    if isinstance(values, list):
        values = _as_array(values)
    if isinstance(values, np.ndarray) and kind in ("", *_ATTRIBUTES) and _are_signs(values):
        return values > 0
    return values


def is_missing(value: Any) -> bool:
    """True for a value that is not there, such as null or an empty text."""
    return value is None or (isinstance(value, str) and not value.strip())


def _parsed(texts: list[str], kind: str) -> list[Any]:
    """Texts as whole numbers, numbers, booleans, or lists of what `kind` needs, or else as classes.

    Without a kind, numbers among other texts become numbers, which the check refuses by name.
    """
    texts = [text.strip() for text in texts]
    if all(map(_WHOLE.fullmatch, texts)):
        return [int(text) for text in texts]
    if all(text.lower() in _BOOLEANS for text in texts):
        return [_BOOLEANS[text.lower()] for text in texts]
    numbers = list(map(_number, texts))
    if None not in numbers:
        return numbers
    if kind in _ATTRIBUTES:
        return [[word for each in _LISTED.split(text) if (word := each.strip())] for text in texts]
    if kind in _NUMBERS:
        vectors = [[_number(word) for word in _SPACED.split(text.strip("[]() ")) if word] for text in texts]
        return texts if any(None in vector for vector in vectors) else vectors
    if kind:
        return texts
    return [text if number is None else number for text, number in zip(texts, numbers, strict=True)]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _as_array(values: list[Any]) -> Column:
    """An array of booleans, numbers or vectors of one length; the list itself for other values."""
    types = set(map(type, values))
    if types == {bool}:
        return np.array(values)
    if types <= {int, float} or types == {list}:
        try:
            array = np.array(values)
        except (ValueError, OverflowError):
            return values
        if array.dtype.kind in "if" and array.ndim == (2 if types == {list} else 1):
            return array
    return values


def _are_signs(values: NDArray[Any]) -> bool:
    """True if all values are -1 or 1, and some are -1."""
    return values.ndim == 1 and values.dtype.kind in "if" and bool((values == -1).any() and (abs(values) == 1).all())


def _tally(values: Column) -> Tally:
    """All values of a part. Raises ValueError if they are no condition or do not fit together."""
    tally = Tally()
    if isinstance(values, np.ndarray) and values.ndim == 2:  # all are finite numbers if their sums are
        tally.add(values.sum(0, dtype=np.float64), len(values))
        return tally
    if isinstance(values, np.ndarray) or set(map(type, values)) <= {str, int, float}:
        for value, count in Counter(values.tolist() if isinstance(values, np.ndarray) else values).items():
            tally.add(value, count)
        return tally
    for value in values:
        tally.add(value)
    return tally


def _first_fault(name: str, values: Sequence[Any] | NDArray[Any], record: Callable[[int], str]) -> str:
    """The first value that is no condition, or does not fit those before it; "" if all do."""
    tally = Tally()
    for number, value in enumerate(values):
        try:
            tally.add(plain(value))
        except ValueError as error:
            here = f"{name} of {record(number)}"
            return f"{here} {error}" if not number else f"{name} {error}, the first being {record(number)}"
    return ""
