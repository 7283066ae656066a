"""What the samples of a dataset have as conditions, counted shard by shard, and the parts that follow from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.conditions.part import KINDS, Conditions, Part, Vector, as_numbers, is_name, text_of
from imagegen_dist.natural import natural_order
from imagegen_dist.wording import counted

ROWS = 2_048
"""Conditions of real samples that an index keeps, at most."""

_ROW_NUMBERS = 1 << 16  # numbers in these together, at most
_MOST_NAMES = 100_000
_FEW = 20  # different whole numbers that are classes in any dataset
_SAMPLES_PER_CLASS = 10
_CAPTIONS = 2  # texts with fewer samples each are captions

_FLAG, _WHOLE, _NUMBER, _NUMBERS, _TEXT, _FLAGS, _WORDS = "flag", "whole", "number", "numbers", "text", "flags", "words"
_SAYS = {
    **{_FLAG: "true or false", _WHOLE: "whole numbers", _NUMBER: "numbers", _NUMBERS: "lists of numbers"},
    **{_TEXT: "texts", _FLAGS: "objects", _WORDS: "lists of texts"},
}
NUMBER = "number"
"""What users may call a vector of one number; "attribute" is one of attributes."""

_CALLED = {NUMBER: "vector", "attribute": "attributes"}
REQUESTED_KINDS = (*KINDS, *_CALLED)


@dataclass
class Tally:
    """Values of one part in some samples. form: of the values. moments: mean, sum of squared deviations, low, high."""

    form: str = ""
    samples: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    moments: NDArray[np.float64] | None = None  # [4, n]

    def add(self, value: Any, samples: int = 1) -> None:
        """Add the value of one or several samples. Raises ValueError, which describes it, if it is no condition."""
        form = _form_of(value)
        names = _names_in(value, form)
        if samples > 1:
            names = Counter({name: count * samples for name, count in names.items()})
        numbers = as_numbers(value) if form in (_WHOLE, _NUMBER, _NUMBERS) else None
        moments = None if numbers is None else np.stack([numbers, np.zeros_like(numbers), numbers, numbers])
        self.merge(Tally(form, samples, names, moments))

    def merge(self, other: Tally) -> None:
        """Add the values of the samples that follow. Raises ValueError if they are of another form or length."""
        if not self.samples:
            self.form = other.form
        elif self.form != other.form:
            if {self.form, other.form} != {_WHOLE, _NUMBER}:
                raise ValueError(f"is {_SAYS[self.form]} in some samples and {_SAYS[other.form]} in others")
            self.form = _NUMBER
        self.moments = _merged(self.moments, self.samples, other.moments, other.samples)
        self.counts.update(other.counts)
        if len(self.counts) > _MOST_NAMES or self.form == _NUMBER:
            self.counts.clear()
        self.samples += other.samples

    def part(self, name: str, kind: str = "") -> Part:
        """The part of a condition that has these values.

        kind: one of REQUESTED_KINDS; "": texts are classes, true and false an attribute, whole numbers classes if there
        are few of them (or an attribute, if they are 0 and 1). Raises ValueError if the values are not of that kind.
        """
        found = self._own_kind(name)
        wanted = _CALLED.get(kind, kind) or found
        if wanted != found and not self._can_be(wanted):
            raise ValueError(f"condition {name} has {_SAYS[self.form]}, which cannot be of kind {kind}")
        if wanted == "vector":
            return self._numbers(name)
        if wanted == "class" or self.form in (_FLAGS, _WORDS):
            names = tuple(natural_order(self.counts))
            return Part(name, "class" if wanted == "class" else "attributes", len(names), names, self._counts(names))
        return Part(name, "attributes", 1, (), (self.counts["true"] + self.counts["1"],))

    def _own_kind(self, name: str) -> str:
        if self.form in (_NUMBER, _NUMBERS):
            return "vector"
        if self.form in (_FLAG, _FLAGS, _WORDS):
            return "attributes"
        different = len(self.counts)
        if self.form == _TEXT:
            if not different or different > max(_FEW, self.samples // _CAPTIONS):
                raise ValueError(
                    f"condition {name} has {different or f'more than {_MOST_NAMES:,}'} different texts in "
                    f"{counted(self.samples, 'sample')}: these look like captions; give their embeddings, as lists of "
                    "numbers"
                )
            return "class"
        if self.counts.keys() <= {"0", "1"}:
            return "attributes"
        few = 0 < different <= max(_FEW, self.samples // _SAMPLES_PER_CLASS)
        return "class" if few and not any(each.startswith("-") for each in self.counts) else "vector"

    def counts_of(self, part: Part) -> tuple[int, ...]:
        """How many of these samples have each class or attribute of a part, of which they may lack some."""
        single = part.kind == "attributes" and not part.names
        return (self.counts["true"] + self.counts["1"],) if single else self._counts(part.names)

    def _can_be(self, kind: str) -> bool:
        match kind:
            case "class":
                return self.form in (_FLAG, _TEXT) or (self.form == _WHOLE and len(self.counts) > 0)
            case "vector":
                return self.form == _WHOLE
        return self.form == _WHOLE and self.counts.keys() <= {"0", "1"}

    def _numbers(self, name: str) -> Part:
        assert self.moments is not None
        mean, squares, low, high = self.moments
        deviation = np.sqrt(squares / self.samples)
        deviation[deviation <= 1e-12 * np.maximum(1, np.abs(mean))] = 1
        columns = {"mean": mean, "deviation": deviation, "low": low, "high": high}
        return Part(name, "vector", len(mean), **{key: tuple(each.tolist()) for key, each in columns.items()})

    def _counts(self, names: Sequence[str]) -> tuple[int, ...]:
        return tuple(self.counts[each] for each in names)

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal tally."""
        moments = None if self.moments is None else self.moments.tolist()
        return {"form": self.form, "samples": self.samples, "counts": dict(self.counts), "moments": moments}

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Tally:
        """The tally from JSON values. Raises KeyError, TypeError or ValueError for damaged ones."""
        moments = None if payload["moments"] is None else np.array(payload["moments"], np.float64)
        return cls(str(payload["form"]), int(payload["samples"]), Counter(payload["counts"]), moments)


@dataclass
class ConditionScan:
    """The conditions of some samples: a tally of each part, in their order, and the records of some of the samples."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    samples: int = 0
    step: int = 1  # every so many samples keeps its record

    def add(self, record: Mapping[str, Any]) -> None:
        """Add one sample's condition. Raises ValueError, which describes it, if it does not fit the others."""
        if not record:
            raise ValueError("is empty")
        if not self.samples:
            for name in record:
                if not is_name(name):
                    raise ValueError(f"has a part named {name!r:.40}: a name has no = , : / and no spaces around it")
            self.tallies = {str(name): Tally() for name in record}
        _check_same(self.tallies, record)
        for name, tally in self.tallies.items():
            try:
                tally.add(record[name])
            except ValueError as error:
                raise ValueError(f"{name} {error}") from error
        if self.samples % self.step == 0:
            self._keep([dict(record)])
        self.samples += 1

    def merge(self, other: ConditionScan) -> None:
        """Add the samples that follow. Raises ValueError if they have other parts."""
        if not self.tallies:
            self.tallies = {name: Tally() for name in other.tallies}
        _check_same(self.tallies, other.tallies)
        for name, tally in self.tallies.items():
            try:
                tally.merge(other.tallies[name])
            except ValueError as error:
                raise ValueError(f"condition {name} {error}") from error
        while self.step < other.step:
            self.rows, self.step = self.rows[::2], self.step * 2
        self._keep(other.rows[:: self.step // other.step])
        self.samples += other.samples

    def _keep(self, rows: list[dict[str, Any]]) -> None:
        self.rows += rows
        most = 2 * _rows_of(sum(map(_numbers_in, self.rows[0].values()))) if self.rows else 0
        while len(self.rows) > most:
            self.rows, self.step = self.rows[::2], self.step * 2

    def conditions(self, kinds: Mapping[str, str] | None = None) -> Conditions:
        """The parts. kinds: one of REQUESTED_KINDS by name, for parts that are not what their values suggest.

        Raises ValueError if a part cannot be of its kind.
        """
        kinds = kinds or {}
        return Conditions(tuple(tally.part(name, kinds.get(name, "")) for name, tally in self.tallies.items()))

    def within(self, conditions: Conditions) -> Conditions:
        """The conditions of a dataset of which these samples are a part, with the counts of these samples alone."""
        parts = (
            part if part.kind == "vector" else replace(part, counts=self.tallies[part.name].counts_of(part))
            for part in conditions.parts
        )
        return Conditions(tuple(parts))

    def vectors(self, conditions: Conditions) -> Vector:
        """The conditions of some samples, evenly spaced, [R, K]; at most ROWS."""
        count = min(len(self.rows), _rows_of(conditions.width))
        chosen = np.linspace(0, len(self.rows) - 1, count).round().astype(int).tolist()
        return np.stack([conditions.encode(self.rows[at]) for at in chosen])

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal scan."""
        tallies = [[name, tally.to_json()] for name, tally in self.tallies.items()]
        rows = [{name: plain(value) for name, value in row.items()} for row in self.rows]
        return {"tallies": tallies, "rows": rows, "samples": self.samples, "step": self.step}

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> ConditionScan:
        """The scan from JSON values. Raises KeyError, TypeError or ValueError for damaged ones."""
        tallies = {str(name): Tally.from_json(each) for name, each in payload["tallies"]}
        return cls(tallies, list(payload["rows"]), int(payload["samples"]), int(payload["step"]))


def _check_same(names: Iterable[str], others: Iterable[str]) -> None:
    here, there = set(names), set(others)
    if lacking := sorted(here - there):
        raise ValueError(f"{lacking[0]} is missing, which other samples have")
    if more := sorted(map(str, there - here)):
        raise ValueError(f"{more[0]} is missing in other samples")


def _rows_of(numbers: int) -> int:
    """How many rows with so many numbers each are kept."""
    return min(ROWS, max(1, _ROW_NUMBERS // max(1, numbers)))


def _numbers_in(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple | np.ndarray) else 1


def plain(value: Any) -> Any:
    """Arrays and scalars of numpy as lists and numbers of Python, anything else as it is."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _form_of(value: Any) -> str:
    """The form of a value. Raises ValueError, which describes it, for a value that is none."""
    if isinstance(value, bool | np.bool_):
        return _FLAG
    if isinstance(value, Integral):
        return _WHOLE
    if isinstance(value, Real) and np.isfinite(float(value)):
        return _NUMBER
    if isinstance(value, str) and value.strip():
        return _TEXT
    if isinstance(value, Mapping) and value:
        return _FLAGS
    if isinstance(value, list | tuple | np.ndarray):
        if all(isinstance(each, str) for each in value):
            return _WORDS
        if as_numbers(value) is not None:
            return _NUMBERS
    missing = value is None or (isinstance(value, str) and not value.strip())
    raise ValueError(f"is {'missing' if missing else f'{value!r:.60}, which cannot be a condition'}")


def _names_in(value: Any, form: str) -> Counter[str]:
    """The names of classes and attributes in a value, with 0 for attributes that are absent."""
    match form:
        case "whole" | "text" | "flag":
            return Counter([text_of(value)])
        case "words":
            return Counter(dict.fromkeys(value, 1))
        case "flags":
            found = Counter[str]()
            for name, present in value.items():
                if present not in (0, 1):
                    raise ValueError(f"has {name} {present!r:.40}: true or false is needed")
                found[str(name)] = int(present)
            return found
    return Counter()


def _merged(
    ours: NDArray[np.float64] | None, n: int, theirs: NDArray[np.float64] | None, m: int
) -> NDArray[np.float64] | None:
    """Moments of both groups of samples, of n and m. (Chan, Golub and LeVeque 1979, Eq. 2.1)"""
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    if ours.shape != theirs.shape:
        raise ValueError(f"has {ours.shape[1]} numbers in some samples and {theirs.shape[1]} in others")
    difference = theirs[0] - ours[0]
    mean = ours[0] + difference * (m / (n + m))
    squares = ours[1] + theirs[1] + difference**2 * (n * m / (n + m))
    return np.stack([mean, squares, np.minimum(ours[2], theirs[2]), np.maximum(ours[3], theirs[3])])
