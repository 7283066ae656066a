"""The samples that a command asks for: lists of seeds, of classes by number or name, and blends of two classes."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import replace

from imagegen_dist.data.labels import clean_name
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.sampling_request import Class, SamplingRequest

_MOST_SEEDS = 10_000_000
_MIX_STEPS = 8
_NUMBERS = re.compile(r"[0-9]+(-[0-9]+)?")


def parse_asked(seeds: str, classes: str, mix: str, truncation: float) -> SamplingRequest:
    """What the texts of --seeds, --classes, --mix and --truncation ask for. Raises UsageError."""
    asked: tuple[Class, ...] = parse_mix(mix) if mix else _parse_classes(classes) if classes else ()
    return SamplingRequest(parse_numbers("seeds", seeds), asked, truncation)


def parse_numbers(name: str, text: str) -> tuple[int, ...]:
    """Whole numbers of a list of numbers and ranges, 0-63 or 1,5,8-11. Raises UsageError."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,20})(?:-(\d{1,20}))?", part.strip())
        if match is None:
            raise UsageError(f"--{name} {text}: numbers and ranges, e.g. 0-63 or 1,5,8-11")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= 2**64:
            raise UsageError(f"--{name} {part.strip()}: whole numbers go up to 2^64 - 1")
        if last < first or last - first >= _MOST_SEEDS:
            raise UsageError(f"--{name} {part.strip()}: a range goes up, over at most {_MOST_SEEDS:,} numbers")
        found += range(first, last + 1)
    return tuple(found)


def _parse_classes(text: str) -> tuple[Class, ...]:
    """Numbers, ranges of numbers and names of classes, separated by commas. Raises UsageError."""
    found: list[Class] = []
    for word in next(csv.reader([text], skipinitialspace=True)):
        if not word.strip():
            raise UsageError(f"--classes {text}: numbers, ranges and names, e.g. 0-9 or cat,dog")
        found += parse_numbers("classes", word) if _NUMBERS.fullmatch(word.strip()) else [_plain(word)]
    return tuple(found)


def parse_mix(text: str) -> tuple[Class, ...]:
    """Blends from one class to another, both ends included. Raises UsageError."""
    words = [word.strip() for word in text.split(":")]
    if len(words) != 2 or not all(words) or words[0] == words[1]:
        raise UsageError(f"--mix {text}: two classes with a colon between, e.g. 3:7 or cat:dog")
    first, last = (int(word) if re.fullmatch(r"[0-9]{1,9}", word) else word for word in words)
    shares = [step / (_MIX_STEPS - 1) for step in range(_MIX_STEPS)]
    return tuple({first: 1 - share, last: share} for share in shares)


def as_typed(asked: SamplingRequest, model: Model) -> SamplingRequest:
    """What is asked for, with digits that are no class's number taken for a name.

    Raises UsageError for digits that are the number of one class and the name of another.
    """
    found: list[Class] = []
    for each in asked.classes:
        if isinstance(each, Mapping):
            found.append({_typed(word, model): weight for word, weight in each.items()})
        else:
            found.append(_typed(each, model))
    return replace(asked, classes=tuple(found))


def _typed(word: int | str, model: Model) -> int | str:
    names = model.class_names or ()
    if isinstance(word, str | _Number) or str(word) not in names:
        return word
    if word >= model.classes:
        return str(word)
    if names[word] != str(word):
        raise UsageError(
            f"class {word} is the name of one class and the number of another: write name:{word} or number:{word}"
        )
    return word


class _Number(int):
    """The number of a class, typed as such."""


def _plain(word: str) -> Class:
    """A class's name, without what says that it is one; or a number that is said to be one."""
    number = re.fullmatch(r"number:([0-9]{1,9})", word.strip())
    return _Number(number[1]) if number else clean_name(word).removeprefix("name:")
