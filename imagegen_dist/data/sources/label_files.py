"""Files that label the pictures beside them: StyleGAN's dataset.json, Hugging Face's metadata, any table of names."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os.path import splitext
from typing import Any

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.labels import LABEL_NAMES, Label, as_label
from imagegen_dist.data.sources.subsets import ALL, SPLIT_WORDS, Subset
from imagegen_dist.documents import parse_json

STYLEGAN = "dataset.json"
"""StyleGAN's list of labels: {"labels": [["00000/img00000000.png", 6], ...]}, or null without labels."""

METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
"""Hugging Face's tables: one row for each picture, with its name in file_name."""

_TABLES = (".csv", ".tsv", ".jsonl")
_SPLIT_COLUMN = "split"
_TRIED = 50  # rows that are compared with the names of pictures
_SHOWN = 3


@dataclass(frozen=True)
class Labelled:
    """The labels in a file, by the names that it gives to pictures; None if it has no labels."""

    place: str  # URL of the file, for errors
    labels: Mapping[str, Label] | None
    partial: bool = False  # True if it also labels pictures of other splits


def is_table(name: str) -> bool:
    """True if the extension of a file is that of a table."""
    return splitext(name)[1].lower() in _TABLES


class Names:
    """Finds a picture by its name in a table: its path from the table or from SOURCE, or, if only one picture has it,
    its file name with or without extension.
    """

    def __init__(self, pictures: Sequence[str], folder: str) -> None:
        self._paths = set(pictures)
        self._folder = folder  # of the table
        self._short: dict[str, str | None] = {}
        for picture in pictures:
            last = picture.rpartition("/")[2]
            for short in {last, splitext(last)[0]}:
                self._short[short] = None if short in self._short else picture

    def find(self, called: str) -> str | None:
        """The name of the picture, or None."""
        path = plain_path(called)
        for name in (f"{self._folder}/{path}" if self._folder else path, path):
            if name in self._paths:
                return name
        return self._short.get(path) or self._short.get(path.rpartition("/")[2])


def plain_path(name: str) -> str:
    """A path with slashes for backslashes, without ./ and without a leading slash."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def read_stylegan(text: bytes, place: str) -> Labelled:
    """StyleGAN's dataset.json. Raises DatasetError."""
    try:
        parsed = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{place} is not JSON: {error}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("labels"), list | None):
        raise DatasetError(f'{place} must be {{"labels": [["name.png", 0], ...]}}, or null for no labels')
    if not parsed.get("labels"):
        return Labelled(place, None)
    labels: dict[str, Label] = {}
    for entry in parsed["labels"]:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise DatasetError(f'{place} has an entry {str(entry)[:60]}; ["name.png", 0] is needed')
        name = plain_path(entry[0])
        if name in labels:
            raise DatasetError(f"{place} names {name} twice")
        if (label := _label(entry[1], name, place)) is None:
            raise DatasetError(f"{place} has the label null for {name}; a whole number from 0 or a name is needed")
        labels[name] = label
    return Labelled(place, labels)


def read_table(text: bytes, place: str, names: Names, column: str, subset: Subset) -> Labelled | str:
    """Read a table of labels. column: the requested column of labels, "" to find it.

    If it has no labels, returns its columns as a text, or "" if it does not name any of the pictures. Raises
    DatasetError if it cannot be read, if its labels cannot be classes, and if it has several columns of labels.
    """
    rows = _read_rows(text, place)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    named = {each: _found(rows[:_TRIED], each, names) for each in columns}
    by = max(named, key=lambda each: named[each], default=None)
    if by is None or not named[by]:
        return ""
    label = _label_column(columns, by, column, place)
    if label is None:
        return ", ".join(map(str, columns))
    kept, partial = _of_split(rows, columns, place, subset)
    labels: dict[str, Label] = {}
    values = _plain_values([row.get(label) for row in kept], is_text=not place.lower().endswith(".jsonl"))
    for row, value in zip(kept, values, strict=True):
        name = str(row.get(by) or "")
        found = _label(value, name, place)
        if found is None:
            raise DatasetError(f"{place} has no {label} for {name}; --labels none packs without labels")
        if labels.setdefault(name, found) != found:
            raise DatasetError(f"{place} has two labels for {name}: {labels[name]} and {found}")
    return Labelled(place, labels, partial)


def _read_rows(text: bytes, place: str) -> list[dict[str, Any]]:
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{place} is not text in UTF-8: {error.reason}") from error
    if place.lower().endswith(".jsonl"):
        return [_record(line, number, place) for number, line in enumerate(decoded.splitlines(), 1) if line.strip()]
    lines = decoded.splitlines(keepends=True)
    heading = next(iter(lines), "")
    mark = "\t" if place.lower().endswith(".tsv") else max(",;\t", key=heading.count)
    try:
        rows = list(csv.DictReader(lines, delimiter=mark, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise DatasetError(f"{place} is not a readable table: {error}") from error
    return [{name: value for name, value in row.items() if name is not None} for row in rows]


def _record(line: str, number: int, place: str) -> dict[str, Any]:
    try:
        record = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{place} line {number} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DatasetError(f"{place} line {number} is not a JSON object")
    return record


def _found(rows: Sequence[Mapping[str, Any]], column: str, names: Names) -> int:
    """How many of the values of a column name existing pictures."""
    values = (row.get(column) for row in rows)
    return sum(isinstance(value, str | int) and names.find(str(value)) is not None for value in values)


def _label_column(columns: Sequence[str], by: str, asked: str, place: str) -> str | None:
    """The column of labels, or None. Raises DatasetError."""
    if asked:
        if asked not in columns:
            raise DatasetError(f"--label-column {asked}: {place} has no such column; it has {', '.join(columns)}")
        return asked
    usual = [name for name in columns if str(name).strip().lower() in LABEL_NAMES and name != by]
    if len(usual) > 1:
        raise DatasetError(f"{place} has several columns of labels ({', '.join(usual)}): choose with --label-column")
    return usual[0] if usual else None


def _of_split(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], place: str, subset: Subset
) -> tuple[Sequence[Mapping[str, Any]], bool]:
    """(the rows of the requested split by the column `split`, whether there are other rows)."""
    column = next((name for name in columns if str(name).strip().lower() == _SPLIT_COLUMN), None)
    if column is None or subset.asked == ALL:
        return rows, False
    words = [str(row.get(column) or "").strip().lower() for row in rows]
    if not all(word in SPLIT_WORDS for word in words):
        return rows, False
    chosen = set(subset.files(list(dict.fromkeys(words)), "rows", place))
    kept = [row for row, word in zip(rows, words, strict=True) if word in chosen]
    return kept, len(kept) < len(rows)


def _plain_values(values: Sequence[Any], is_text: bool) -> Sequence[Any]:
    """The values of a column, converted from text to numbers if all of them are numbers."""
    if not is_text:
        return values
    try:
        return [int(value) if value.strip().lstrip("+-").isdigit() else float(value) for value in values]
    except (ValueError, AttributeError):
        return values


def _label(value: Any, name: str, place: str) -> Label | None:
    """The label of a picture in a file. Raises DatasetError."""
    try:
        return as_label(value)
    except ValueError as error:
        kinds = "a whole number from 0 or a name is needed; --labels none packs without labels"
        raise DatasetError(f"{place} has for {name} the label {error}: {kinds}") from error


def some(names: Iterable[str]) -> str:
    """The first names, joined."""
    shown = list(names)
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")
