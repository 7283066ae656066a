"""Conditions for generated samples: the parts that are given, and the others as they occur together in the data."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.conditions.part import Conditions, Part, Vector
from imagegen_dist.noise import even_quantiles

_MATCHED = ("class", "attributes")
_NEAREST, _NEAREST_SHARE = 16, 20


@dataclass(frozen=True, eq=False)
class ConditionRows:
    """The parts of a dataset's conditions and the conditions of some of its samples, float32 [R, K].

    Two are equal if their parts and rows are. Raises ValueError if the rows do not fit the parts, or if there are none.
    """

    conditions: Conditions
    rows: Vector

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConditionRows):
            return NotImplemented
        return self.conditions == other.conditions and np.array_equal(self.rows, other.rows)

    def __hash__(self) -> int:
        return hash((self.conditions, self.rows.tobytes()))

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != self.conditions.width or not len(self.rows):
            raise ValueError(f"rows of conditions are {self.rows.shape}, for {self.conditions.width} numbers each")

    def take(self, numbers: Sequence[int] | range, given: Mapping[str, Any] | None = None) -> Vector:
        """The conditions of samples by number, float32 [N, K].

        given: values by part; numbers must lie in the range of the data. The other parts of a sample are those of one
        sample of the data: of those with the given classes and attributes, if there are any, and of these, of the
        twentieth (at least 16) that is nearest in the given numbers. Sample i takes the row at the quantile
        i / golden ratio, modulo 1: in any contiguous range of numbers, rows occur about equally often.
        Raises ValueError for a part that there is not, and for a value that it cannot have.
        """
        fixed = self.encode(given or {})
        rows = self._matching(fixed)
        chosen = ((even_quantiles(numbers) >> np.uint64(32)) * np.uint64(len(rows))) >> np.uint64(32)
        vectors = rows[chosen.astype(np.int64)].copy()
        for name, value in fixed.items():
            vectors[:, self.conditions.slices[name]] = value
        return vectors

    def told_as(self, conditions: Conditions) -> ConditionRows:
        """The same rows as vectors of other conditions, as whose samples these can be told (`Conditions.differing`)."""
        rows = np.zeros((len(self.rows), conditions.width), np.float32)
        for part, places in zip(conditions.parts, conditions.slices.values(), strict=True):
            own, values = self.conditions.part(part.name), self.rows[:, self.conditions.slices[part.name]]
            if part.kind == "vector":
                numbers = values * np.array(own.deviation) + np.array(own.mean)
                rows[:, places] = (numbers - np.array(part.mean)) / np.array(part.deviation)
            elif own.names == part.names:
                rows[:, places] = values
            else:
                rows[:, [places.start + part.names.index(name) for name in own.names]] = values
        return ConditionRows(conditions, rows)

    def encode(self, given: Mapping[str, Any]) -> dict[str, Vector]:
        """The places of given parts, by name. Raises ValueError as `take`."""
        return {name: encode_within(self.conditions.part(name), value) for name, value in given.items()}

    def _matching(self, fixed: Mapping[str, Vector]) -> Vector:
        """The rows with the given classes and attributes, or all if there is none; those nearest in the numbers."""
        same: NDArray[np.bool_] = np.ones(len(self.rows), np.bool_)
        distance = np.zeros(len(self.rows))
        for name, value in fixed.items():
            part, found = self.conditions.part(name), self.rows[:, self.conditions.slices[name]]
            if part.kind in _MATCHED:
                same &= (found == value).all(1)
            elif part.is_number:
                distance += (found[:, 0].astype(np.float64) - float(value[0])) ** 2
        rows, distance = (self.rows[same], distance[same]) if same.any() else (self.rows, distance)
        if not distance.any():
            return rows
        count = min(len(rows), max(_NEAREST, len(rows) // _NEAREST_SHARE))
        return rows[np.sort(np.argsort(distance, kind="stable")[:count])]

    def payload(self) -> dict[str, Any]:
        """JSON values from which `from_payload` makes equal rows."""
        return {"conditions": self.conditions.payload(), "condition_rows": encode_rows(self.rows)}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> ConditionRows | None:
        """Rows from JSON values; None without conditions. Raises ValueError with what is wrong."""
        if payload.get("conditions") is None:
            return None
        conditions = Conditions.from_payload(payload["conditions"])
        return cls(conditions, decode_rows(payload.get("condition_rows", ""), conditions.width))


def encode_within(part: Part, value: Any) -> Vector:
    """A value as its places in the vector. Raises ValueError for one that it cannot have, or outside the data's."""
    vector = part.encode(value)
    if part.is_number:
        number, (low,), (high,) = part.decode(vector), part.low, part.high
        slack = 1e-6 * (high - low)
        if not low - slack <= number <= high + slack:
            raise ValueError(f"{part.name} is {number:.6g}; in the data it is {low:.6g} to {high:.6g}")
    return vector


def encode_rows(rows: Vector) -> str:
    """Rows as text: base64 of float32 in little-endian order."""
    return base64.b64encode(rows.astype("<f4").tobytes()).decode()


def decode_rows(text: Any, width: int) -> Vector:
    """Rows [R, width] from `encode_rows`. Raises ValueError for a damaged text."""
    try:
        data = base64.b64decode(text, validate=True)
        return np.frombuffer(data, "<f4").reshape(-1, width).astype(np.float32)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"condition_rows are damaged ({error})") from error
