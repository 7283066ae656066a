"""Search spaces over an experiment's dotted paths: typed in Python, or written as PATH=KIND:VALUES.

    objective.gamma=loguniform:0.01:10      optim.*.lr=choice:1e-4,2e-4      model.widths=grid:64,32|96,48

Values are drawn by number: which values trial 7 of seed 0 has is a function of these two alone.
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
from imagegen_dist.experiment import Experiment, changeable

KINDS = ("uniform", "loguniform", "int", "logint", "choice", "grid")
"""How a domain is written; its numbers or values follow after a colon."""

PERTURBATION = (0.8, 1.25)
"""Factors by which a population's values are changed (arXiv:1711.09846, Sec. 4.1)."""

RESAMPLED = 0.25
"""How often a value is drawn anew instead (likewise)."""

_DIGITS = 4  # significant ones of a drawn number

Value = Any
"""What a setting may be given: JSON data, or the text of a command line."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both possible. Raises ConfigError where there are none.

    log: uniform in the logarithm. whole: whole numbers alone. first: the part that trials begin in, where it is not
    all; a population goes on over the whole range.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    first: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"{self}: LOW has to be below HIGH")
        if self.log and self.low <= 0:
            raise ConfigError(f"{self}: a logarithm needs LOW above 0")
        if self.whole and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ConfigError(f"{self}: LOW and HIGH have to be whole numbers")
        if self.first is not None and not self.low <= self.start.low < self.start.high <= self.high:
            raise ConfigError(f"{self}: the numbers that trials begin with leave the range")

    def __str__(self) -> str:
        kind = ("logint" if self.log else "int") if self.whole else ("loguniform" if self.log else "uniform")
        return ":".join([kind, *(f"{number:g}" for number in (self.low, self.high, *(self.first or ())))])

    @property
    def start(self) -> Range:
        """The numbers that trials begin with."""
        return self if self.first is None else Range(*self.first, self.log, self.whole)

    def at(self, share: float) -> float | int:
        """The number at this share, 0 to 1, of the way from low to high."""
        half = 0.5 if self.whole else 0.0
        low, high = self.low - half, self.high + half
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        return self.rounded(value)

    def examples(self) -> list[Value]:
        """Its ends."""
        return [self.at(0.0), self.at(1.0)]

    def perturbed(self, value: Value, random: Random) -> Value:
        """A number near `value`: PERTURBATION times it, held in the range; a whole one moves by 1 at least."""
        factor = random.choice(PERTURBATION)
        moved = float(value) * factor
        if self.whole and round(moved) == value:
            moved = value + (1 if factor > 1 else -1)
        return self.rounded(moved)

    def rounded(self, value: float) -> float | int:
        """The number with few digits, held in the range."""
        held = min(max(value, self.low), self.high)
        return round(held) if self.whole else min(max(float(f"{held:.{_DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """One of several values; every: each combination with other such values is tried, instead of drawn."""

    values: tuple[Value, ...]
    every: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError("a choice needs one value at least")
        if len({str(value) for value in self.values}) < len(self.values):
            raise ConfigError(f"{self}: a value comes twice")

    def __str__(self) -> str:
        mark = "|" if any("," in str(value) for value in self.values) else ","
        return f"{'grid' if self.every else 'choice'}:{mark.join(map(str, self.values))}"

    @property
    def start(self) -> Choice:
        """The values that trials begin with: all."""
        return self

    def at(self, share: float) -> Value:
        """The value at this share, 0 to 1, of the list."""
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
    """A setting, or all that a pattern such as optim.*.lr matches, which get the same value."""

    path: str
    domain: Domain

    def __str__(self) -> str:
        return f"{self.path}={self.domain}"


@dataclass(frozen=True)
class Space:
    """What a search may change, in the order of its dimensions."""

    dimensions: tuple[Dimension, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, self.dimensions))

    @property
    def grid(self) -> list[dict[str, Value]]:
        """Every combination of the values that are to be tried in full; one empty one where there are none."""
        full = {}
        for dimension in self.dimensions:
            if isinstance(dimension.domain, Choice) and dimension.domain.every:
                full[dimension.path] = dimension.domain.values
        return [dict(zip(full, values, strict=True)) for values in product(*full.values())]

    @property
    def is_grid(self) -> bool:
        """Whether every value is tried in full, and nothing is drawn."""
        return all(isinstance(each.domain, Choice) and each.domain.every for each in self.dimensions)

    def point(self, number: int, seed: int) -> dict[str, Value]:
        """The values of trial `number`, by path: combinations of the grid in turn, the others drawn."""
        grid = self.grid
        values = grid[number % len(grid)]
        for dimension in self.dimensions:
            if dimension.path not in values:
                share = Random(f"{seed}/{number}/{dimension.path}").random()
                values[dimension.path] = dimension.domain.start.at(share)
        return {dimension.path: values[dimension.path] for dimension in self.dimensions}

    def perturbed(self, values: Mapping[str, Value], random: Random) -> dict[str, Value]:
        """Values near these, as a population explores: each perturbed, or now and then drawn anew."""
        found = {}
        for dimension in self.dimensions:
            domain, now = dimension.domain, values[dimension.path]
            anew = random.random() < RESAMPLED
            found[dimension.path] = domain.at(random.random()) if anew else domain.perturbed(now, random)
        return found

    def apply(self, experiment: Experiment, values: Mapping[str, Value]) -> Experiment:
        """The experiment with these values. Raises ConfigError where they do not fit together."""
        pairs = [(path, value) for pattern, value in values.items() for path in matching(experiment, pattern)]
        return config.overrides(experiment, pairs)

    def check(self, experiment: Experiment) -> None:
        """Raise ConfigError for an empty space, a path that does not exist, or a value that its setting cannot take.

        Each value is tried with all others as they are in the experiment: what does not fit together is seen by the
        trial that has it.
        """
        if not self.dimensions:
            raise ConfigError(
                "the space is empty; give --space PATH=KIND:VALUES, e.g. objective.gamma=loguniform:0.01:10"
            )
        taken: dict[str, str] = {}
        idle = changeable(config.kind(type(experiment.objective)))
        for dimension in self.dimensions:
            for path in matching(experiment, dimension.path):
                if path in taken:
                    raise ConfigError(f"--space {dimension}: {path} is set by {taken[path]} as well")
                taken[path] = str(dimension)
                if path in idle or path.split(".")[0] == "evaluation":
                    raise ConfigError(f"--space {dimension}: {path} decides nothing of what is learned; leave it out")
            for value in dimension.domain.examples():
                try:
                    self.apply(experiment, {dimension.path: value})
                except ConfigError as error:
                    raise ConfigError(f"--space {dimension}: {error}") from error

    def to_json(self) -> list[str]:
        """As it is written on the command line."""
        return [str(dimension) for dimension in self.dimensions]

    @classmethod
    def from_json(cls, data: Sequence[str]) -> Space:
        """Read what `to_json` wrote."""
        return parse_space(data)


def matching(experiment: Experiment, pattern: str) -> list[str]:
    """The paths that a pattern stands for: itself, or with a star all that it matches. Raises ConfigError for none."""
    pattern = pattern.replace("-", "_")
    if "*" not in pattern:
        return [pattern]
    known = config.paths(experiment)
    found = [path for path in known if fnmatchcase(path, pattern)]
    if not found:
        raise ConfigError(f"--space {pattern}: no setting matches; {config.nearest(pattern, known)}")
    return found


def parse_space(words: Iterable[str]) -> Space:
    """Dimensions from their written form. Raises ConfigError naming the word."""
    return Space(tuple(_parse_dimension(word) for word in words))


def as_grid(space: Space) -> Space:
    """The space with every choice tried in full. Raises ConfigError where there is a range."""
    dimensions = []
    for dimension in space.dimensions:
        if isinstance(dimension.domain, Range):
            raise ConfigError(f"--searcher grid cannot try {dimension} in full; write {dimension.path}=grid:A,B,C")
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
    """A space from keywords, "__" for a dot and "each" for a star: space(optim__each__lr=log_uniform(1e-4, 1e-2))."""
    paths = [(name.replace("__", ".").replace(".each.", ".*."), domain) for name, domain in domains.items()]
    return Space(tuple(Dimension(path, domain) for path, domain in paths))


def _parse_dimension(word: str) -> Dimension:
    path, given, text = word.partition("=")
    kind, _, rest = text.partition(":")
    if not given or not path:
        raise ConfigError(f"--space {word}: write PATH=KIND:VALUES, e.g. objective.gamma=loguniform:0.01:10")
    if kind not in KINDS:
        raise ConfigError(f"--space {word}: {kind!r} is no kind of values; {config.nearest(kind, KINDS)}")
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
                f"{kind}:{text}: write {kind}:LOW:HIGH with two numbers, or two more for those that trials begin with"
            )
    return Range(low, high, log=kind.startswith("log"), whole=kind.endswith("int"), first=first)


def _number_or_text(text: str) -> Value:
    """The number that the text is, or the text."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
