"""The parts of a condition, and the vector [K] in which networks take them.

A sample's condition has named parts, each a class, a set of attributes, or numbers:

    {"digit": 7, "style": "serif", "smile": true, "age": 0.3, "text": [0.1, -0.4, ...]}

A class takes one place of the vector for each of its names (one-hot), attributes one each (0 or 1), and numbers one
each, less their mean and divided by their standard deviation in the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.wording import counted

Kind = Literal["class", "attributes", "vector"]
KINDS: tuple[str, ...] = get_args(Kind)

Vector = NDArray[np.float32]

_SHOWN = 3
_LISTED = 8
_SPAN = 2.0  # deviations
_LARGEST_NAME = 256


@dataclass(frozen=True)
class Part:
    """One part of a condition. Raises ValueError if the fields contradict each other.

    name: as users set it. kind: "class", "attributes" or "vector". size: places in the vector. names: of the classes or
    attributes; () for a single attribute and for numbers. counts: samples of each class, or with each attribute. mean,
    deviation, low, high: of each number in the data.
    """

    name: str
    kind: Kind
    size: int
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"condition {self.name}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        if self.size < 1 or not is_name(self.name):
            raise ValueError(f"condition {self.name!r} of size {self.size} is none")
        of_kind = ("names", "counts") if self.kind != "vector" else ("mean", "deviation", "low", "high")
        single = self.kind == "attributes" and self.size == 1
        for each in of_kind:
            if len(getattr(self, each)) != self.size and not (single and each == "names"):
                raise ValueError(f"condition {self.name}: {len(getattr(self, each))} {each} for size {self.size}")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"condition {self.name}: a name occurs twice")
        if any(not value > 0 for value in self.deviation):
            raise ValueError(f"condition {self.name}: a deviation is not positive")

    @property
    def is_number(self) -> bool:
        """True for a single number."""
        return self.kind == "vector" and self.size == 1

    @property
    def usual_range(self) -> tuple[float, float]:
        """Two deviations to each side of the mean of a single number, within the data's range."""
        (mean,), (deviation,), (low,), (high,) = self.mean, self.deviation, self.low, self.high
        return max(low, mean - _SPAN * deviation), min(high, mean + _SPAN * deviation)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def _scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array(self.mean), np.array(self.deviation)

    def encode(self, value: Any) -> Vector:
        """A value as its places in the vector, float32 [size].

        class: a name or number, or a blend {name: weight}. attributes: true, false or a share from 0 to 1 for a single
        one; else the names of those that are present, or {name: share}. vector: a number, or a list of numbers.
        Raises ValueError for a value that the part cannot have.
        """
        match self.kind:
            case "class":
                return self._encode_class(value)
            case "attributes":
                return self._encode_attributes(value)
        return self._encode_numbers(value)

    def decode(self, places: Vector) -> Any:
        """The value that has these places in the vector, [size]."""
        if self.kind == "vector":
            mean, deviation = self._scale
            numbers = (places * deviation + mean).tolist()
            return numbers[0] if self.size == 1 else numbers
        if self.kind == "attributes" and not self.names:
            return bool(places[0]) if places[0] in (0, 1) else float(places[0])
        shares = {name: float(share) for name, share in zip(self.names, places, strict=True) if share}
        if self.kind == "class":
            return next(iter(shares)) if list(shares.values()) == [1.0] else shares
        return list(shares) if set(shares.values()) <= {1.0} else shares

    def describe(self) -> str:
        """The part in a few words, for lists."""
        if self.kind == "class":
            return f"{self.name} ({counted(self.size, 'class')})"
        if self.kind == "attributes":
            return f"{self.name} ({'attribute' if self.size == 1 else f'{self.size} attributes'})"
        if self.size > 1:
            return f"{self.name} ({self.size} numbers)"
        return f"{self.name} ({self.low[0]:.4g} to {self.high[0]:.4g})"

    def _encode_class(self, value: Any) -> Vector:
        vector = np.zeros(self.size, np.float32)
        for name, weight in value.items() if isinstance(value, Mapping) else [(value, 1.0)]:
            vector[self._place(text_of(name), "class")] += _share(weight, self.name)
        return vector

    def _encode_attributes(self, value: Any) -> Vector:
        vector = np.zeros(self.size, np.float32)
        if self.size == 1 and not self.names:
            vector[0] = _share(value, self.name)
        elif isinstance(value, Mapping):
            for name, share in value.items():
                vector[self._place(text_of(name), "attribute")] = _share(share, self.name)
        else:
            for name in [value] if isinstance(value, str) else value if isinstance(value, Iterable) else [value]:
                vector[self._place(text_of(name), "attribute")] = 1
        return vector

    def _encode_numbers(self, value: Any) -> Vector:
        numbers = as_numbers(value)
        if numbers is None or len(numbers) != self.size:
            has = "a text" if isinstance(value, str) else f"{len(numbers)} numbers" if numbers is not None else "none"
            raise ValueError(f"{self.name} is {_short(value)}: {counted(self.size, 'number')} needed, this is {has}")
        mean, deviation = self._scale
        return ((numbers - mean) / deviation).astype(np.float32)

    def _place(self, name: str, what: str) -> int:
        if name in self._places:
            return self._places[name]
        close = get_close_matches(name, self.names, _SHOWN) or list(self.names[:_SHOWN])
        more = ", ..." if len(self.names) > len(close) else ""
        raise ValueError(f"{self.name} has no {what} {_short(name)!r}: there are {', '.join(close)}{more}")


@dataclass(frozen=True)
class Conditions:
    """The parts of all conditions of a dataset, in the order of the vector. Raises ValueError for a name twice."""

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"conditions are {', '.join(names) or 'none'}: several of different names are needed")

    @cached_property
    def width(self) -> int:
        """K, the length of the vector."""
        return sum(part.size for part in self.parts)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """The places of each part in the vector, by name."""
        ends = np.cumsum([part.size for part in self.parts]).tolist()
        return {part.name: slice(end - part.size, end) for part, end in zip(self.parts, ends, strict=True)}

    @property
    def first_class(self) -> Part | None:
        """The first part that is a class, which gives pictures their columns."""
        return next((part for part in self.parts if part.kind == "class"), None)

    @property
    def only_class(self) -> Part | None:
        """The part that is a class; None if there are none or several."""
        found = [part for part in self.parts if part.kind == "class"]
        return found[0] if len(found) == 1 else None

    def part(self, name: str) -> Part:
        """A part by name. Raises ValueError if there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        known = ", ".join(each.describe() for each in self.parts)
        raise ValueError(f"there is no condition {_short(name)!r}: the data have {known}")

    def encode(self, record: Mapping[str, Any]) -> Vector:
        """The condition of a sample, by part, as a vector, float32 [K].

        Raises ValueError if a part is missing or unknown, or has a value that it cannot have.
        """
        vector = np.empty(self.width, np.float32)
        for part, places in zip(self.parts, self.slices.values(), strict=True):
            if record.get(part.name) is None:
                raise ValueError(f"{part.name} is missing")
            vector[places] = part.encode(record[part.name])
        if len(record) > len(self.parts):
            raise ValueError(f"{next(name for name in record if name not in self.slices)} is not known")
        return vector

    def decode(self, vector: Vector) -> dict[str, Any]:
        """The condition that has this vector [K], by part: `encode` gives it again, up to rounding.

        A class that is a blend, and attributes that are neither present nor absent, are {name: weight}.
        """
        return {part.name: part.decode(vector[self.slices[part.name]]) for part in self.parts}

    def differing(self, others: Conditions | None) -> str:
        """Why samples with other conditions cannot be told as these; "" if they can.

        Numbers may have other means and ranges, and classes or attributes may be missing.
        """
        if others is None:
            return f"there are no conditions, and {self.describe()} are needed"
        for part in self.parts:
            other = next((each for each in others.parts if each.name == part.name), None)
            if other is None:
                return f"there is no condition {part.name}: it has {others.describe()}"
            if (other.kind, other.kind == "vector" and other.size) != (part.kind, part.kind == "vector" and part.size):
                return f"condition {part.name} is {other.describe()}, and {part.describe()} is needed"
            if unknown := [name for name in other.names if name not in part.names]:
                return f"condition {part.name} has {unknown[0]!r}, which is not one of {counted(part.size, 'name')}"
        more = [each.name for each in others.parts if each.name not in self.slices]
        return f"there is a condition {more[0]}, which is not known" if more else ""

    def describe(self) -> str:
        """The parts in one line; if there are many, the first ones and the number of the others."""
        more = len(self.parts) - _LISTED
        return ", ".join(part.describe() for part in self.parts[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")

    def payload(self) -> list[dict[str, Any]]:
        """JSON values from which `from_payload` makes equal conditions; empty fields are left out."""
        return [{name: value for name, value in asdict(part).items() if value != ()} for part in self.parts]

    @classmethod
    def from_payload(cls, payload: Any) -> Conditions:
        """Conditions from JSON values. Raises ValueError with what is wrong."""
        if not isinstance(payload, list) or not all(isinstance(each, dict) for each in payload):
            raise ValueError("conditions must be a list of objects")
        known = {field.name: field.type for field in fields(Part)}
        parts = []
        for number, each in enumerate(payload):
            if unknown := each.keys() - known.keys():
                raise ValueError(f"conditions[{number}]: {sorted(unknown)[0]!r} is not known")
            try:
                parts.append(Part(**{name: _field(known[name], value) for name, value in each.items()}))
            except (TypeError, ValueError) as error:
                raise ValueError(f"conditions[{number}]: {error}") from error
        return cls(tuple(parts))


def is_name(text: Any) -> bool:
    """True for a text that can name a part: it can be written in --set NAME=VALUE,..."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= _LARGEST_NAME
        and text.isprintable()
        and text == text.strip()
        and not set("=,:/") & set(text)
    )


def text_of(value: Any) -> str:
    """The name of a class or attribute, given as a text or a whole number of any type. Raises ValueError for others."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, Integral | Real) and float(value).is_integer():
        return str(int(float(value)))
    raise ValueError(f"{_short(value)} is neither a name nor a whole number")


def as_numbers(value: Any) -> NDArray[np.float64] | None:
    """A number or a sequence of finite numbers as an array [n]; None for anything else."""
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, Real):
        number = float(value)
        return np.array([number]) if math.isfinite(number) else None
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
        return None
    try:
        numbers = np.asarray(value)
    except ValueError:
        return None
    if numbers.ndim != 1 or numbers.size == 0 or numbers.dtype.kind not in "iuf":
        return None
    numbers = numbers.astype(np.float64)
    return numbers if np.isfinite(numbers).all() else None


def _share(value: Any, name: str) -> float:
    """A weight or the presence of an attribute, from 0 to 1."""
    if isinstance(value, bool | np.bool_):
        return float(value)
    if isinstance(value, Real) and 0 <= float(value) <= 1:
        return float(value)
    raise ValueError(f"{name} is {_short(value)}: true, false or a number from 0 to 1 is needed")


def _field(kind: Any, value: Any) -> Any:
    """A field of a part from JSON. Raises ValueError for a value of another type."""
    if "tuple" not in str(kind):
        wanted = int if kind == "int" else str
        if type(value) is not wanted:
            raise ValueError(f"{value!r:.40} is not of type {wanted.__name__}")
        return value
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.40} is not a list")
    item = str if "str" in str(kind) else int if "int" in str(kind) else float
    if not all(type(each) is item or (item is float and type(each) is int) for each in value):
        raise ValueError(f"{value!r:.40} is not a list of {item.__name__}")
    return tuple(float(each) if item is float else each for each in value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
