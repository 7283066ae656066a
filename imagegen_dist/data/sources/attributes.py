"""Tables with a row for each picture: its name, and the parts of its condition in the other columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.sources.condition_table import Column, ConditionTable, column_of, is_missing
from imagegen_dist.data.sources.label_files import Names, names_column, some, split_column
from imagegen_dist.data.sources.parquet_files import holds_bytes, opened_parquet, read_values
from imagegen_dist.data.sources.table_files import has_types, is_table, read_columns
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted

_PARQUET = ".parquet"
_EMPTY = ("attribute", "attributes")  # kinds of which an empty text is a value: none of the attributes


@dataclass(frozen=True)
class AttributeTable:
    """The columns of a table. place: its URL; typed: False for a file that has only texts."""

    place: str
    columns: Mapping[str, Column]
    typed: bool

    def of_pictures(
        self, pictures: Sequence[str], folder: str, kinds: Mapping[str, str], noun: str = "picture"
    ) -> tuple[ConditionTable, tuple[str, ...]]:
        """(the condition of each picture, lines for the user).

        folder: of the table, relative to that of the pictures, if it is below it. kinds: of the columns to take, where
        names that are no columns are ignored; {} takes all but those of names and of splits. noun: what messages call a
        picture. Raises DatasetError if no
        column names pictures, a picture has no row or two, a value is missing, and for values that are no
        conditions or not of their kind.
        """
        listed = {name: _listed(values) for name, values in self.columns.items()}
        names = Names(pictures, folder)
        by = names_column(listed, names)
        if not by:
            known = ", ".join(listed) or "none"
            raise DatasetError(f"{self.place} has no column that names the {noun}s ({some(pictures)}); it has {known}")
        rows, notes = self._rows(list(map(str, listed[by])), pictures, names, noun)
        left_out = {by, split_column(listed)}
        chosen = [name for name in kinds if name in listed] or [name for name in listed if name not in left_out]
        if not chosen and not kinds:
            raise DatasetError(f"{self.place} has no column but {by}, which names the {noun}s")
        columns = {name: self._column(name, rows, kinds.get(name, ""), pictures, noun) for name in chosen}
        table = ConditionTable(columns, tuple(name for name in listed if name not in {by, *chosen}))
        table.check(kinds, self.place, lambda number: pictures[number])
        return table, notes

    def _rows(
        self, called: Sequence[str], pictures: Sequence[str], names: Names, noun: str
    ) -> tuple[list[int], tuple[str, ...]]:
        """(the number of the row of each picture, lines for the user)."""
        found: dict[str, int] = {}
        unknown = []
        for row, name in enumerate(called):
            picture = names.find(name)
            if picture is None:
                unknown.append(name)
            elif found.setdefault(picture, row) != row:
                raise DatasetError(f"{self.place} names {picture} twice")
        if missing := [picture for picture in pictures if picture not in found]:
            raise DatasetError(f"{self.place} has no row for {counted(len(missing), noun)}: {some(missing)}")
        notes = (f"{self.place}: {counted(len(unknown), 'row')} for no {noun} here: {some(unknown)}",) * bool(unknown)
        return [found[picture] for picture in pictures], notes

    def _column(self, name: str, rows: Sequence[int], kind: str, pictures: Sequence[str], noun: str) -> Column:
        """A column in the order of the pictures. Raises DatasetError for a missing value."""
        values = self.columns[name]
        if isinstance(values, np.ndarray):
            return column_of(values[np.array(rows, np.int64)], kind, not self.typed)
        chosen = [values[row] for row in rows]
        missing = [pictures[number] for number, value in enumerate(chosen) if is_missing(value)]
        if missing and (kind not in _EMPTY or len(missing) == len(chosen)):
            raise DatasetError(
                f"{self.place} has no {name} for {counted(len(missing), noun)}: {some(missing)}; every {noun} needs one"
            )
        return column_of([value if value is not None else "" for value in chosen], kind, not self.typed)


def is_attribute_table(name: str) -> bool:
    """True if the extension of a file is that of a table of attributes."""
    return is_table(name) or name.lower().endswith(_PARQUET)


def read_attributes(url: str) -> AttributeTable:
    """Read a table at a path or URL. Raises DatasetError, StorageError."""
    place = Store(url).url
    parent, _, name = place.rpartition("/")
    store = Store(parent or "/")
    if not is_attribute_table(name):
        raise DatasetError(f"--attributes {place}: a table is needed, .csv, .tsv, .jsonl or .parquet")
    if not store.exists(name):
        raise DatasetError(f"--attributes {place} does not exist")
    if not name.lower().endswith(_PARQUET):
        return parse_attributes(store.read(name), place)
    with opened_parquet(store, name) as file:
        names = [field.name for field in file.schema_arrow if not holds_bytes(field.type)]
        columns = {column: read_values(file, column, place) for column in names}
    return AttributeTable(place, columns, typed=True)


def parse_attributes(text: bytes, place: str) -> AttributeTable:
    """A table in a text. place: its URL, whose extension tells CSV, TSV and JSON Lines apart. Raises DatasetError."""
    return AttributeTable(place, read_columns(text, place), has_types(place))


def _listed(values: Column) -> list[Any]:
    """The values of a column that may be names; others are left out."""
    return values if isinstance(values, list) else values.tolist() if values.dtype.kind in "iu" else []
