"""Files that label the pictures beside them: StyleGAN's dataset.json, Hugging Face's metadata, any table of names."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os.path import splitext
from typing import Any

from imagegen_dist.conditions.part import as_numbers
from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.labels import LABEL_NAMES, Label, as_label
from imagegen_dist.data.sources.subsets import ALL, SPLIT_WORDS, Subset
from imagegen_dist.data.sources.table_files import has_types, read_columns
from imagegen_dist.documents import parse_json
from imagegen_dist.wording import counted

STYLEGAN = "dataset.json"
"""StyleGAN's list of labels: {"labels": [["00000/img00000000.png", 6], ...]}, or null without labels."""

METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
"""Hugging Face's tables: one row for each picture, with its name in file_name."""

_SPLIT_COLUMN = "split"
_TRIED = 50  # rows that are compared with the names of pictures
_SHOWN = 3


@dataclass(frozen=True)
class Labelled:
    """The labels in a file, by the names that it gives to pictures; None if it has no labels."""

    place: str  # URL of the file, for errors
    labels: Mapping[str, Any] | None  # numbers or names of classes, or vectors
    partial: bool = False  # True if it also labels pictures of other splits
    vectors: bool = False  # True if the labels are lists of equally many numbers


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
    """StyleGAN's dataset.json. Labels that are lists of numbers are vectors. Raises DatasetError."""
    try:
        parsed = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{place} is not JSON: {error}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("labels"), list | None):
        raise DatasetError(f'{place} must be {{"labels": [["name.png", 0], ...]}}, or null for no labels')
    if not parsed.get("labels"):
        return Labelled(place, None)
    values: dict[str, Any] = {}
    for entry in parsed["labels"]:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise DatasetError(f'{place} has an entry {str(entry)[:60]}; ["name.png", 0] is needed')
        name = plain_path(entry[0])
        if name in values:
            raise DatasetError(f"{place} names {name} twice")
        values[name] = entry[1]
    if any(isinstance(value, list) for value in values.values()):
        _check_vectors(values, place)
        return Labelled(place, values, vectors=True)
    labels: dict[str, Label] = {}
    for name, value in values.items():
        if (label := _label(value, name, place)) is None:
            raise DatasetError(f"{place} has the label null for {name}; a whole number from 0 or a name is needed")
        labels[name] = label
    return Labelled(place, labels)


def _check_vectors(values: Mapping[str, Any], place: str) -> None:
    """Raise DatasetError if labels are not lists of equally many numbers."""
    first, vector = next((name, value) for name, value in values.items() if isinstance(value, list))
    for name, value in values.items():
        if not isinstance(value, list) or as_numbers(value) is None:
            like = "a list of numbers is needed" if name == first else f"{first} has a list of numbers"
            raise DatasetError(f"{place} has for {name} the label {str(value)[:40]}; {like}")
        if len(value) != len(vector):
            raise DatasetError(f"{place} has {counted(len(value), 'number')} for {name}, but {len(vector)} for {first}")


def read_table(text: bytes, place: str, names: Names, column: str, subset: Subset) -> Labelled | str:
    """Read a table of labels. column: the requested column of labels, "" to find it.

    If it has no labels, returns its columns as a text, or "" if it does not name any of the pictures. Raises
    DatasetError if it cannot be read, if its labels cannot be classes, and if it has several columns of labels.
    """
    columns = read_columns(text, place)
    by = names_column(columns, names)
    if not by:
        return ""
    label = _label_column(list(columns), by, column, place)
    if label is None:
        return ", ".join(columns)
    kept = _of_split(columns, place, subset)
    labels: dict[str, Label] = {}
    values = [columns[label][row] for row in kept]
    called = [str(columns[by][row] or "") for row in kept]
    for name, value in zip(called, values if has_types(place) else _plain_values(values), strict=True):
        found = _label(value, name, place)
        if found is None:
            raise DatasetError(f"{place} has no {label} for {name}; --labels none packs without labels")
        if labels.setdefault(name, found) != found:
            raise DatasetError(f"{place} has two labels for {name}: {labels[name]} and {found}")
    return Labelled(place, labels, partial=len(kept) < len(columns[by]))


def names_column(columns: Mapping[str, Sequence[Any]], names: Names) -> str:
    """The column that names most pictures, by its first values or else by all; "" if none names any."""
    for tried in (_TRIED, None):
        found = {each: _found(values[:tried], names) for each, values in columns.items()}
        by = max(found, key=lambda each: found[each], default="")
        if by and found[by]:
            return by
    return ""


def _found(values: Sequence[Any], names: Names) -> int:
    """How many different pictures some values name."""
    return len({names.find(str(value)) for value in values if isinstance(value, str | int)} - {None})


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


def split_column(columns: Mapping[str, Sequence[Any]]) -> str:
    """The column `split`, if all of its values are words of splits; else ""."""
    column = next((name for name in columns if name.strip().lower() == _SPLIT_COLUMN), "")
    return column if column and all(word in SPLIT_WORDS for word in _words(columns[column])) else ""


def _words(values: Sequence[Any]) -> list[str]:
    return [str(value or "").strip().lower() for value in values]


def _of_split(columns: Mapping[str, Sequence[Any]], place: str, subset: Subset) -> list[int]:
    """The numbers of the rows of the requested split by the column `split`."""
    rows = list(range(len(next(iter(columns.values())))))
    column = split_column(columns)
    if not column or subset.asked == ALL:
        return rows
    words = _words(columns[column])
    chosen = set(subset.files(list(dict.fromkeys(words)), "rows", place))
    return [row for row in rows if words[row] in chosen]


def _plain_values(values: Sequence[Any]) -> Sequence[Any]:
    """The texts of a column, converted to numbers if all of them are numbers."""
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
