"""The samples of a shard whose pictures have named conditions beside them, in JSON, arrays and class files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.conditions.part import as_numbers
from imagegen_dist.data.labels import Label, json_label, parse_label
from imagegen_dist.data.shard import NEAR, Shard
from imagegen_dist.data.tarwalk import Member, ShardError

CONDITION = "condition"
"""Key of a sample's conditions in its `.json`."""

CLASS_PART = "class"
"""Name of the part that `.cls`, or a single label in `.json`, gives."""

VECTOR_MEMBER = "cond.npy"
VECTOR_PART = "vector"
"""Extension of an array of numbers beside a picture, and the name of the part that it gives.

The `.json` may give another name under the extension: {"condition": {...}, "cond.npy": "text"}.
"""

_MEMBERS = ("json", "cls", VECTOR_MEMBER)
_LONG = 16  # numbers above which a vector is stored as an array


class ConditionedShard(Shard):
    """A shard of samples with conditions. Arguments and errors as for Shard.

    A sample's condition is the object under "condition" in its `.json`, with a part "class" from its `.cls` or from a
    single label in the `.json`, and a part "vector", or of the name under "cond.npy" in the `.json`, from its
    `.cond.npy`, a one-dimensional array of numbers.
    """

    layout = np.dtype(
        [
            *(("picture", "<i8"), ("picture_bytes", "<u4"), ("picture_kind", "i1")),
            *((f"{name}{what}", kind) for name in _MEMBERS for what, kind in (("", "<i8"), ("_bytes", "<u4"))),
        ]
    )

    @property
    def has_conditions(self) -> bool:
        """True if the first sample has an object under "condition" in its `.json`, or a `.cond.npy`."""
        if not len(self):
            return False
        has_array = self._places(0)[_MEMBERS.index(VECTOR_MEMBER)] is not None
        return has_array or isinstance(self.record(0).get(CONDITION), dict)

    def condition(self, row: int) -> dict[str, Any]:
        """A sample's condition by part; {} if it has none. Raises ShardError for members that cannot be read."""
        return self._condition(row, [place and self._read(*place) for place in self._places(row)])

    def label(self, row: int) -> Label | None:
        """A sample's class, as in Shard."""
        text, label, _ = self._places(row)
        place = label or text
        return None if place is None else self.parse_label(row, self._read(*place), 0 if label else 1)

    def sample(self, row: int) -> tuple[bytes, str, dict[str, Any]]:
        """`picture` and `condition` of a sample, by a single read if they are close together."""
        at, size, kind = (column[row] for column in self.columns[:3])
        places = [(at, size), *self._places(row)]
        held = [place for place in places if place is not None]
        start, end = min(first for first, _ in held), max(first + length for first, length in held)
        if end - start > sum(length for _, length in held) + NEAR * len(held):
            members = [place and self._read(*place) for place in places]
        else:
            data = self._read(start, end - start)
            members = [place and data[place[0] - start : sum(place) - start] for place in places]
        return members[0] or b"", self._extensions[kind], self._condition(row, members[1:])

    def record(self, row: int) -> dict[str, Any]:
        """The object in a sample's `.json`; {} if it has none. Raises ShardError for damaged JSON."""
        place = self._places(row)[0]
        return {} if place is None else self._record(row, self._read(*place))

    def _places(self, row: int) -> list[tuple[int, int] | None]:
        """(offset, bytes) of each of _MEMBERS; None for one that the sample does not have."""
        found = [column[row] for column in self.columns[3:]]
        return [place if place[0] else None for place in zip(found[::2], found[1::2], strict=True)]

    def _condition(self, row: int, members: Sequence[bytes | None]) -> dict[str, Any]:
        text, label, array = members
        record = {} if text is None else self._record(row, text)
        condition = record.get(CONDITION, {})
        if not isinstance(condition, dict):
            raise ShardError(
                f"{self.name}: the condition of {self.key(row)} is {str(condition)[:40]!r}; an object is needed, as "
                '{"digit": 7}'
            )
        condition = dict(condition)
        try:
            if label is not None and CLASS_PART not in condition:
                condition[CLASS_PART] = parse_label(label)
            elif text and CONDITION not in record and (known := json_label(text)) is not None:
                condition[CLASS_PART] = known
            if array is not None:
                condition[_vector_part(record, condition)] = _numbers(array)
        except ValueError as error:
            raise ShardError(f"{self.name}: the condition of {self.key(row)} is {error}") from error
        return condition

    def _entry(self, members: list[Member], kinds: dict[str, int]) -> tuple[int, ...]:
        picture = super()._entry(members, kinds)[:3]
        places = {member.extension: (member.offset, member.size) for member in members}
        return (*picture, *(number for name in _MEMBERS for number in places.get(name, (0, 0))))


def condition_members(condition: Mapping[str, Any]) -> dict[str, bytes]:
    """The members that hold a condition, by extension; the longest vector of more than 16 numbers is an array.

    Raises TypeError for a value that JSON cannot represent.
    """
    arrays = {name: numbers for name, value in condition.items() if (numbers := as_numbers(value)) is not None}
    longest = max(arrays, key=lambda name: len(arrays[name]), default="")
    if not longest or len(arrays[longest]) <= _LONG:
        return {"json": _json({CONDITION: dict(condition)})}
    rest = {name: value for name, value in condition.items() if name != longest}
    target = io.BytesIO()
    np.save(target, _narrow(arrays[longest]))
    return {"json": _json({CONDITION: rest, VECTOR_MEMBER: longest}), VECTOR_MEMBER: target.getvalue()}


def _json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, default=plain_value).encode()


def plain_value(value: Any) -> Any:
    """Convert numpy's numbers and arrays for JSON. Raises TypeError for other types."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a record holds {value!r:.60}, which JSON cannot represent")


def _narrow(numbers: NDArray[np.float64]) -> NDArray[Any]:
    """The numbers in 32 bits, or unchanged if their range is larger."""
    with np.errstate(over="ignore"):
        narrow = numbers.astype("<f4")
    return narrow if np.isfinite(narrow).all() else numbers.astype("<f8")


def _vector_part(record: Mapping[str, Any], condition: Mapping[str, Any]) -> str:
    """The name of the part in a sample's `.cond.npy`. Raises ValueError for one that the `.json` has as well."""
    name = record.get(VECTOR_MEMBER, VECTOR_PART)
    if not isinstance(name, str):
        raise ValueError(f"in a .{VECTOR_MEMBER} named {str(name)[:40]!r}; a text is needed")
    if name in condition:
        raise ValueError(f"in two places: the .json and the .{VECTOR_MEMBER} have {name}")
    return name


def _numbers(data: bytes) -> NDArray[np.float64]:
    """The numbers in a `.cond.npy`, [n]. Raises ValueError for an array of another kind."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # whatever damaged bytes raise
        raise ValueError(f"a damaged .{VECTOR_MEMBER}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iuf" or not array.size:
        raise ValueError(f"a .{VECTOR_MEMBER} of shape {getattr(array, 'shape', ())}: numbers of one axis are needed")
    return array.astype(np.float64)
