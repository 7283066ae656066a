"""Splits of a dataset in the names of files and folders: train-000.tar, val2017, x_test.parquet."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from imagegen_dist.data.index import DatasetError

ALL = "all"
"""In place of a split: take everything, whatever the names state."""

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "dev": "dev",
    "trainval": "trainval",
}
"""The split that each word names."""

_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})(?![a-z])")
_NO_LETTERS = re.compile(r"[^a-z]+")


class Split(NamedTuple):
    """The split in a name."""

    name: str  # train, val, test, dev or trainval
    rest: str  # the letters around the word, equal in names that differ only by their split


def split_of(name: str) -> Split | None:
    """The split in a name, or None. A word counts if no letter touches it: `latest` does not contain `test`."""
    lower = name.lower()
    found = _WORD.search(lower)
    if found is None:
        return None
    before, after = (_NO_LETTERS.sub(" ", part).strip() for part in (lower[: found.start()], lower[found.end() :]))
    return Split(SPLIT_WORDS[found[1]], f"{before}*{after}")


class Subset:
    """The requested split, "" for none. `used` is True once it has chosen among files or folders.

    Raises DatasetError for a word that does not name a split.
    """

    def __init__(self, asked: str = "") -> None:
        if asked not in ("", ALL, *SPLIT_WORDS):
            raise DatasetError(f"--subset {asked}: one of {', '.join(SPLIT_WORDS)}, or {ALL} to take everything")
        self.asked = asked
        self.used = asked in ("", ALL)

    def files(self, names: Sequence[str], what: str, place: str) -> list[str]:
        """The files of the requested split among files in one folder; all if their names state one split or none.

        Raises DatasetError if they are of several splits and none was requested, and if the requested split is not
        among them.
        """
        return self._choose(names, _by_split(names), what, place)

    def alike(self, names: Sequence[str], what: str, place: str) -> list[str]:
        """As `files`, for names that may be any words: they count as splits if they differ only by split and number.

        Classes called bus, car and train are therefore not splits.
        """
        groups = _by_split(names)
        rests = {found.rest for name in names if (found := split_of(name))}
        if len(rests) != 1 or not (len(groups) > 1 or sum(map(len, groups.values())) == len(names)):
            groups = {split: some for split, some in groups.items() if self._means(split)} if len(rests) == 1 else {}
            if not groups or self.used:
                return list(names)
        return self._choose(names, groups, what, place)

    def check_used(self, place: str) -> None:
        """Raise DatasetError if the requested split was not found."""
        if not self.used:
            raise DatasetError(
                f"--subset {self.asked}: no file and no folder of {place} has the name of a split "
                f"({', '.join(SPLIT_WORDS)})"
            )

    def _choose(self, names: Sequence[str], groups: dict[str, list[str]], what: str, place: str) -> list[str]:
        if self.asked == ALL or not groups:
            return list(names)
        there = ", ".join(sorted(groups))
        if self.asked:
            chosen = next((some for split, some in groups.items() if self._means(split)), None)
            if chosen is None:
                raise DatasetError(f"--subset {self.asked}: {place} has {what} of {there}")
            self.used = True
            return chosen
        if len(groups) > 1:
            first = "train" if "train" in groups else sorted(groups)[0]
            raise DatasetError(
                f"{place} has {what} of several splits ({there}): take one, e.g. with --subset {first}; "
                f"--subset {ALL} takes everything"
            )
        return list(names)

    def _means(self, split: str) -> bool:
        return SPLIT_WORDS.get(self.asked) == split


def _by_split(names: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        if found := split_of(name):
            groups.setdefault(found.name, []).append(name)
    return groups
