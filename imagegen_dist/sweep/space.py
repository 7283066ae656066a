"""Search spaces over an experiment's dotted paths, typed in Python or written as PATH=KIND:VALUES.

    objective.gamma=loguniform:0.01:10      optim.*.lr=choice:1e-4,2e-4      model.widths=grid:64,32|96,48

Values are drawn by number: those of trial 7 are a function of the number and the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from random import Random
from typing import Any

from imagegen_dist import config
from imagegen_dist.config import ConfigError
from imagegen_dist.experiment import Experiment
from imagegen_dist.settings import changeable

_KINDS = ("uniform", "loguniform", "int", "logint", "choice", "grid")
"""Kinds of domains, as they are written before a colon and their numbers or values."""

_PERTURBATION = (0.8, 1.25)
"""Factors by which a population perturbs its values (arXiv:1711.09846, Sec. 4.1)."""

_RESAMPLED = 0.25
"""Probability of drawing a value anew instead (likewise)."""

_DIGITS = 4  # significant digits of a drawn number

Value = Any
"""The value of a setting: JSON data, or the text of a command line."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included. Raises ConfigError for an empty range.

    log: uniform in the logarithm. whole: integers only. first: the part that trials start in, None for all of it; a
    population continues over the whole range.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    first: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"{self}: LOW must be below HIGH")
        if self.log and self.low <= 0:
            raise ConfigError(f"{self}: a logarithm needs LOW above 0")
        if self.whole and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ConfigError(f"{self}: LOW and HIGH must be whole numbers")
        if self.first is not None and not self.low <= self.start.low < self.start.high <= self.high:
            raise ConfigError(f"{self}: the numbers that trials start with leave the range")

    def __str__(self) -> str:
        kind = ("logint" if self.log else "int") if self.whole else ("loguniform" if self.log else "uniform")
        return ":".join([kind, *(f"{number:g}" for number in (self.low, self.high, *(self.first or ())))])

    @property
    def start(self) -> Range:
        """The numbers that trials start with."""
        return self if self.first is None else Range(*self.first, self.log, self.whole)

    def at(self, share: float) -> float | int:
        """The number at this fraction, 0 to 1, of the way from low to high."""
        half = 0.5 if self.whole else 0.0
        low, high = self.low - half, self.high + half
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        return self.rounded(value)

    def examples(self) -> list[Value]:
        """Both ends."""
        return [self.at(0.0), self.at(1.0)]

    def perturbed(self, value: Value, random: Random) -> Value:
        """`value` times _PERTURBATION, clamped to the range; an integer moves by at least 1."""
        factor = random.choice(_PERTURBATION)
        moved = float(value) * factor
        if self.whole and round(moved) == value:
            moved = value + (1 if factor > 1 else -1)
        return self.rounded(moved)

    def rounded(self, value: float) -> float | int:
        """The number with few digits, clamped to the range."""
        held = min(max(value, self.low), self.high)
        return round(held) if self.whole else min(max(float(f"{held:.{_DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """One of several values. every: a grid; all combinations with other grids are tried instead of drawn."""

    values: tuple[Value, ...]
    every: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError("a choice needs at least one value")
        if len({str(value) for value in self.values}) < len(self.values):
            raise ConfigError(f"{self}: a value is given twice")

    def __str__(self) -> str:
        mark = "|" if any("," in str(value) for value in self.values) else ","
        return f"{'grid' if self.every else 'choice'}:{mark.join(map(str, self.values))}"

    @property
    def start(self) -> Choice:
        """The values that trials start with: all of them."""
        return self

    def at(self, share: float) -> Value:
        """The value at this fraction, 0 to 1, of the list."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def examples(self) -> list[Value]:
        """All of them."""
        return list(self.values)

    def perturbed(self, value: Value, random: Random) -> Value:
        """A neighbour in the list."""
        place = self.values.index(value) + random.choice((-1, 1))
        return self.values[min(max(place, 0), len(self.values) - 1)]


Domain = Range | Choice


@dataclass(frozen=True)
class Dimension:
    """A setting, or all settings that a pattern such as optim.*.lr matches, which get the same value."""

    path: str
    domain: Domain

    def __str__(self) -> str:
        return f"{self.path}={self.domain}"


@dataclass(frozen=True)
class Space:
    """The settings that a search changes, in order."""

    dimensions: tuple[Dimension, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, self.dimensions))

    @property
    def grid(self) -> list[dict[str, Value]]:
        """Every combination of the grids; one empty combination if there are none."""
        full = {}
        for dimension in self.dimensions:
            if isinstance(dimension.domain, Choice) and dimension.domain.every:
                full[dimension.path] = dimension.domain.values
        return [dict(zip(full, values, strict=True)) for values in product(*full.values())]

    @property
    def is_grid(self) -> bool:
        """True if all dimensions are grids, and nothing is drawn."""
        return all(isinstance(each.domain, Choice) and each.domain.every for each in self.dimensions)

    def point(self, number: int, seed: int) -> dict[str, Value]:
        """The values of trial `number`, by path: combinations of the grid in turn, other values drawn."""
        grid = self.grid
        values = grid[number % len(grid)]
        for dimension in self.dimensions:
            if dimension.path not in values:
                share = Random(f"{seed}/{number}/{dimension.path}").random()
                values[dimension.path] = dimension.domain.start.at(share)
        return {dimension.path: values[dimension.path] for dimension in self.dimensions}

    def perturbed(self, values: Mapping[str, Value], random: Random) -> dict[str, Value]:
        """Values near these, as a population explores: each perturbed, or sometimes drawn anew."""
        found = {}
        for dimension in self.dimensions:
            domain, now = dimension.domain, values[dimension.path]
            anew = random.random() < _RESAMPLED
            found[dimension.path] = domain.at(random.random()) if anew else domain.perturbed(now, random)
        return found

    def apply(self, experiment: Experiment, values: Mapping[str, Value]) -> Experiment:
        """The experiment with these values. Raises ConfigError if they do not fit together."""
        pairs = [(path, value) for pattern, value in values.items() for path in _matching(experiment, pattern)]
        return config.overrides(experiment, pairs)

    def check(self, experiment: Experiment) -> None:
        """Raise ConfigError for an empty space, an unknown path, or a value that its setting cannot take.

        Each value is tried alone: a combination that does not fit together fails the trial that has it.
        """
        if not self.dimensions:
            raise ConfigError(
                "the space is empty; give --space PATH=KIND:VALUES, e.g. objective.gamma=loguniform:0.01:10"
            )
        taken: dict[str, str] = {}
        idle = changeable(config.kind(type(experiment.objective)))
        for dimension in self.dimensions:
            for path in _matching(experiment, dimension.path):
                if path in taken:
                    raise ConfigError(f"--space {dimension}: {path} is set by {taken[path]} as well")
                taken[path] = str(dimension)
                if path in idle or path.split(".")[0] == "evaluation":
                    raise ConfigError(f"--space {dimension}: {path} has no influence on what is learned; leave it out")
            for value in dimension.domain.examples():
                try:
                    self.apply(experiment, {dimension.path: value})
                except ConfigError as error:
                    raise ConfigError(f"--space {dimension}: {error}") from error

    def to_json(self) -> list[str]:
        """The space as it is written on the command line."""
        return [str(dimension) for dimension in self.dimensions]

    @classmethod
    def from_json(cls, data: Sequence[str]) -> Space:
        """The inverse of `to_json`."""
        return parse_space(data)


def _matching(experiment: Experiment, pattern: str) -> list[str]:
    """The paths that a pattern matches; a path without a star is itself. Raises ConfigError for none."""
    pattern = pattern.replace("-", "_")
    if "*" not in pattern:
        return [pattern]
    known = config.paths(experiment)
    found = [path for path in known if fnmatchcase(path, pattern)]
    if not found:
        raise ConfigError(f"--space {pattern}: no setting matches; {config.nearest(pattern, known)}")
    return found


def parse_space(words: Iterable[str]) -> Space:
    """A space from its written form. Raises ConfigError that names the word."""
    return Space(tuple(_parse_dimension(word) for word in words))


def as_grid(space: Space) -> Space:
    """The space with every choice as a grid. Raises ConfigError for a range."""
    dimensions = []
    for dimension in space.dimensions:
        if isinstance(dimension.domain, Range):
            raise ConfigError(f"--searcher grid cannot try all of {dimension}; write {dimension.path}=grid:A,B,C")
        dimensions.append(Dimension(dimension.path, Choice(dimension.domain.values, every=True)))
    return Space(tuple(dimensions))


def uniform(low: float, high: float) -> Range:
    """Numbers from low to high."""
    return Range(low, high)


def log_uniform(low: float, high: float) -> Range:
    """Numbers from low to high, uniform in the logarithm."""
    return Range(low, high, log=True)


def grid(*values: Value) -> Choice:
    """Each of the values."""
    return Choice(values, every=True)


def space(**domains: Domain) -> Space:
    """A space from keywords, with "__" for a dot and "each" for a star: space(optim__each__lr=grid(1e-4, 1e-3))."""
    paths = [(name.replace("__", ".").replace(".each.", ".*."), domain) for name, domain in domains.items()]
    return Space(tuple(Dimension(path, domain) for path, domain in paths))


def _parse_dimension(word: str) -> Dimension:
    path, given, text = word.partition("=")
    kind, _, rest = text.partition(":")
    if not given or not path:
        raise ConfigError(f"--space {word}: write PATH=KIND:VALUES, e.g. objective.gamma=loguniform:0.01:10")
    if kind not in _KINDS:
        raise ConfigError(f"--space {word}: {kind!r} is not a kind of values; {config.nearest(kind, _KINDS)}")
    try:
        return Dimension(path.replace("-", "_"), _parse_domain(kind, rest))
    except ConfigError as error:
        raise ConfigError(f"--space {path}={error}") from error


def _parse_domain(kind: str, text: str) -> Domain:
    if kind in ("choice", "grid"):
        values = [part.strip() for part in text.split("|" if "|" in text else ",")]
        return Choice(tuple(_number_or_text(value) for value in values if value), every=kind == "grid")
    numbers: list[float] = []
    with suppress(ValueError):
        numbers = [float(number) for number in text.split(":")]
    first: tuple[float, float] | None = None
    match numbers:
        case [low, high]:
            pass
        case [low, high, begin, end]:
            first = begin, end
        case _:
            raise ConfigError(
                f"{kind}:{text}: write {kind}:LOW:HIGH with two numbers, or two more for those that trials start with"
            )
    return Range(low, high, log=kind.startswith("log"), whole=kind.endswith("int"), first=first)


def _number_or_text(text: str) -> Value:
    """The number that the text spells, else the text."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
