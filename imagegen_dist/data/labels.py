"""Labels in the files of a dataset, which are numbers or names of classes, and the numbering of names."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.natural import natural_order

Label = int | str
"""A sample's class as a file states it: a whole number from 0, or a name."""

LABEL_NAMES = ("label", "labels", "cls", "class", "fine_label")
"""Names of the label in JSON records and tables; the first one that exists is taken."""

LARGEST_LABEL = 2**63 - 1
_SAFE_DIGITS = 18  # numbers of so many digits are below it
_LONGEST_NAME = 256  # characters of a class's name; longer texts are captions

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_BYTE_ORDER_MARK = "\ufeff"
_USUAL_CLASSES = 1_000  # numbers of classes up to this are always accepted
_CLASSES_PER_SAMPLE = 10  # more classes than this times the samples are refused
_SHOWN = 5
_FOLLOWING = 8  # of fewer changes of the class than this share of those by chance, samples are in the order of classes
_CHANGES = 20  # by chance, below which the order of samples tells nothing


def clean_name(text: str) -> str:
    """A class's name without a byte order mark and surrounding spaces, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", text.replace(_BYTE_ORDER_MARK, "").strip())


def as_label(value: Any) -> Label | None:
    """A label from JSON, a table or Python; None for a missing one, such as null or an empty text.

    True and false are 1 and 0. Raises ValueError, which describes the value, if it cannot be a class.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _as_name(value)
    if isinstance(value, Integral):  # includes numpy's integers and bool
        return _in_range(int(value))
    if isinstance(value, Real) and float(value).is_integer():
        return _in_range(int(float(value)))
    raise ValueError(f"{_short(value)}, which is {_KINDS.get(type(value), 'not a class')}")


def parse_label(text: bytes) -> Label:
    """The label in a `.cls` member: digits, or a name. Raises ValueError, which describes the content."""
    if text.isdigit() and len(text) <= _SAFE_DIGITS:
        return int(text)
    try:
        found = text.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{text[:40]!r}, which is not text in UTF-8") from None
    if _WHOLE.fullmatch(found):
        return _in_range(int(found)) if len(found) < 40 else _in_range(LARGEST_LABEL + 1)
    name = None if _NUMBER.fullmatch(found) else _as_name(found)
    if name is None:
        raise ValueError(f"{text[:40]!r}, which is not a whole number" if found else "empty")
    return name


def json_label(text: bytes) -> Label | None:
    """The label in a sample's JSON record, or None. Raises ValueError, which says what is wrong."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"in {text[:40]!r}, which is not JSON") from None
    if not isinstance(record, dict):
        return None
    name = next((name for name in LABEL_NAMES if record.get(name) is not None), None)
    return None if name is None else as_label(record[name])


def number_names(names: Iterable[str]) -> dict[str, int]:
    """The number of each class by its name."""
    return {name: number for number, name in enumerate(names)}


def number_labels(labels: Sequence[Label]) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """(the number of each label's class, the names of the classes if labels are names).

    Raises ValueError if some labels are numbers and others names, and if almost all names differ.
    """
    of_kind = {type(label): label for label in labels}
    if len(of_kind) > 1:
        raise ValueError(
            f"some labels are numbers ({of_kind[int]}) and others names ({of_kind[str]}): all must be of one kind"
        )
    if str not in of_kind:
        return np.array(labels, dtype=np.int64), None
    names = tuple(natural_order({str(label) for label in labels}))
    if complaint := all_differ(len(names), len(labels)):
        raise ValueError(complaint)
    number = number_names(names)
    return np.array([number[str(label)] for label in labels], dtype=np.int64), names


def too_many(classes: int, samples: int) -> str:
    """Why there are too many classes for the number of samples; "" if there are not."""
    if classes <= max(_USUAL_CLASSES, _CLASSES_PER_SAMPLE * samples):
        return ""
    return (
        f"the largest label is {classes - 1:,}, which makes {classes:,} classes of {samples:,} samples: these look "
        "like ids or hashes; --relabel numbers those that occur from 0, --labels none packs without labels"
    )


def all_differ(names: int, samples: int) -> str:
    """Why names that almost all differ cannot be classes; "" if they can."""
    if names <= max(_USUAL_CLASSES // 50, samples // 2):
        return ""
    return (
        f"{names:,} different texts label {samples:,} samples: these look like captions or file names; "
        "--labels none packs without labels"
    )


def empty_classes(
    counts: Iterable[Sequence[int] | None], names: Sequence[str] | None = None, remedy: str = "--relabel"
) -> str:
    """Which classes have no sample in any of the datasets, in one line; "" if all have some.

    counts: samples of each class in each dataset, None for a dataset without labels. remedy: what numbers the other
    classes from 0.
    """
    known = [each for each in counts if each is not None]
    totals = [sum(each) for each in zip(*known, strict=True)]
    empty = [number for number, total in enumerate(totals) if not total]
    if not empty:
        return ""
    shown = [str(number) if names is None else f"{number} ({names[number]})" for number in empty[:_SHOWN]]
    which = ", ".join(shown) + (", ..." if len(empty) > _SHOWN else "")
    begins = "; labels begin at 1" if empty == [0] else ""
    has = "classes have" if len(empty) > 1 else f"class{'es' * (len(totals) > 1)} has"
    return f"{len(empty):,} of {len(totals):,} {has} no sample: {which}{begins}; {remedy} numbers the others from 0"


def in_order_of_classes(shards: Iterable[tuple[Mapping[Label, int], int]]) -> str:
    """That the samples of a dataset follow one another by class, in one line; "" if they do not.

    shards: for each shard, the samples of each class and the number of runs: groups of neighbours of one class.
    """
    totals, runs, least = Counter[Label](), 0, 0
    for counts, of_shard in shards:
        totals.update(counts)
        runs, least = runs + of_shard, least + len(counts)
    samples = totals.total()
    by_chance = samples - sum(count**2 for count in totals.values()) / max(samples, 1)
    if by_chance < _CHANGES or runs > by_chance / _FOLLOWING or 2 * runs > 3 * least:
        return ""
    return (
        "the samples are in the order of their classes: training mixes them, but figures and pictures of a dataset's "
        "first samples show some classes only; pictures packed from a folder or a zip are mixed"
    )


def relabelling(
    counts: Mapping[int, int] | Sequence[int], names: Sequence[str] | None
) -> tuple[dict[int, int], list[str]]:
    """(new number by old number of the classes that have samples, their names: old names or else old numbers)."""
    pairs = counts.items() if isinstance(counts, Mapping) else enumerate(counts)
    there = sorted(label for label, count in pairs if count)
    return {old: new for new, old in enumerate(there)}, [str(old) if names is None else names[old] for old in there]


def _as_name(text: str) -> str | None:
    name = clean_name(text)
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"{name[:40]!r}..., which is not the name of a class")
    return name or None


def _in_range(number: int) -> int:
    if not 0 <= number <= LARGEST_LABEL:
        raise ValueError(f"{number if number < 0 else 'above 2^63'}, which is not a whole number from 0")
    return number


def _short(value: Any) -> str:
    return str(value)[:40]


_KINDS = {list: "a list", dict: "an object", float: "not a whole number", bytes: "bytes"}
