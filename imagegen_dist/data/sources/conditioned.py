"""Sources whose records have conditions: from tables, from the names of folders, from the records, and from labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from imagegen_dist.conditions.part import is_name
from imagegen_dist.data.conditioned_shard import CLASS_PART
from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.labels import LABEL_NAMES, clean_name
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.attributes import read_attributes
from imagegen_dist.data.sources.base import Record, Records, Source, SourceOptions, UnfitError, listing_digest
from imagegen_dist.data.sources.condition_table import ConditionTable, column_of
from imagegen_dist.wording import counted

_SKIPPED = ("-", "_")


@dataclass(frozen=True)
class _ConditionedSource(Source):
    """Another source, whose records have these conditions."""

    inner: Source | None = None
    stated: ConditionTable = ConditionTable()
    labelled: bool = False  # True if the label is a part

    @property
    def is_folder(self) -> bool:
        """As the other source."""
        assert self.inner is not None
        return self.inner.is_folder

    def name_of(self, row: int) -> str:
        """The name of a record."""
        assert self.inner is not None
        return self.inner.name_of(row)

    def select(self, rows: IntArray) -> Records:
        """The records with these numbers."""
        assert self.inner is not None
        names = self.class_names if self.labelled else None
        return _Conditioned(self.inner.select(rows), self.stated.select(rows), self.parts, self.labelled, names)


@dataclass(frozen=True)
class _Conditioned(Records):
    inner: Records
    stated: ConditionTable
    parts: tuple[str, ...]
    labelled: bool
    class_names: tuple[str, ...] | None

    def read(self) -> Iterator[Record]:
        for number, record in enumerate(self.inner.read()):
            found = {**(record.condition or {}), **self.stated.row(number)}
            if self.labelled and record.label is not None:
                found[CLASS_PART] = record.label if self.class_names is None else self.class_names[record.label]
            if missing := [part for part in self.parts if part not in found]:
                raise UnfitError(f"{record.name} has no condition {missing[0]}, which others have")
            yield record._replace(condition={part: found[part] for part in self.parts})


def with_conditions(source: Source, options: SourceOptions) -> Source:
    """A source whose records have the conditions that the options ask for, or that its listing states.

    Records that have no others keep those that they are read with. Labels become the part "class". Raises DatasetError
    for a part that is not there or comes from two places, for a part that cannot be of its kind, and if folders or
    tables do not fit the pictures; StorageError.
    """
    if not options.labelled:
        return source
    asked, notes = options.conditions, source.notes
    tables = {"SOURCE": source.conditions or ConditionTable()}
    if options.folders:
        tables["--folders"] = _of_folders(source, options)
    if options.attributes:
        read = read_attributes(options.attributes)
        pictures = [source.name_of(row) for row in range(source.count)]
        tables[read.place], more = read.of_pictures(
            pictures, _folder_of(read.place, source.place), asked, options.files.noun
        )
        notes += more
    stated = _joined(tables)
    if not stated.columns and not asked:
        return source
    labelled = _is_class_of_labels(source, stated, options)
    there = [*([CLASS_PART] if labelled else []), *source.parts, *stated.columns]
    if unknown := [name for name in asked if name not in there]:
        known = ", ".join([*there, *stated.offered]) or "none"
        raise DatasetError(f"--conditions {unknown[0]}: {source.place} has no such condition; there are {known}")
    parts = _chosen(there, asked)
    stated = ConditionTable({name: values for name, values in stated.columns.items() if name in parts})
    return _ConditionedSource(
        place=source.place,
        count=source.count,
        listing=listing_digest([source.listing, stated.digest(), parts]),
        mixes=source.mixes,
        labels=source.labels,
        classes=source.classes,
        class_names=source.class_names,
        left_out=source.left_out,
        notes=notes,
        parts=parts,
        inner=source,
        stated=stated,
        labelled=labelled,
    )


def parse_folders(text: str) -> tuple[str, ...]:
    """The name of the part of each level, "" for one that is skipped. Raises ValueError in one line."""
    levels = tuple("" if level in _SKIPPED else level for level in text.strip("/").split("/"))
    named = [level for level in levels if level]
    if not all(map(is_name, named)):
        raise ValueError("give the name of each level of folders, from the top, as style/digit; - skips a level")
    if len(set(named)) < len(named):
        raise ValueError("a name comes twice")
    return levels


def _of_folders(source: Source, options: SourceOptions) -> ConditionTable:
    """The folders of each picture as classes. Folders around all pictures do not count. Raises DatasetError."""
    try:
        levels = parse_folders(options.folders)
    except ValueError as error:
        raise DatasetError(f"--folders {options.folders}: {error}") from error
    names = [source.name_of(row) for row in range(source.count)]
    paths = [name.split("/")[:-1] for name in names]
    around = max(0, min(map(len, paths)) - len(levels))
    around = next((at for at in range(around) if len({path[at] for path in paths}) > 1), around)
    for name, path in zip(names, paths, strict=True):
        if len(path) - around != len(levels):
            raise DatasetError(
                f"--folders {options.folders}: {source.place}/{name} is in {counted(len(path) - around, 'level')} of "
                f"folders, not in {len(levels)}"
            )
    columns = {}
    for at, level in enumerate(levels, around):
        if level:
            columns[level] = column_of([clean_name(path[at]) for path in paths], *_kind_of(options.conditions, level))
    table = ConditionTable(columns)
    table.check(options.conditions, f"--folders {options.folders}", lambda row: names[row])
    return table


def _kind_of(asked: Mapping[str, str], level: str) -> tuple[str, bool]:
    """(the kind of a level, whether the names of its folders may be numbers): they are classes unless asked."""
    kind = asked.get(level, "")
    return kind or "class", kind not in ("", "class")


def _folder_of(table: str, place: str) -> str:
    """The folder of a table, relative to that of the pictures; "" if it is elsewhere."""
    folder = table.rpartition("/")[0]
    return folder.removeprefix(f"{place}/") if folder.startswith(f"{place}/") else ""


def _joined(tables: Mapping[str, ConditionTable]) -> ConditionTable:
    """The parts of all tables. Raises DatasetError for a part in two of them."""
    where: dict[str, str] = {}
    for place, table in tables.items():
        for name in table.columns:
            if where.setdefault(name, place) != place:
                raise DatasetError(f"{where[name]} and {place} both give the condition {name}: leave one of them out")
    columns = {name: values for table in tables.values() for name, values in table.columns.items()}
    return ConditionTable(columns, tuple(name for table in tables.values() for name in table.offered))


def _is_class_of_labels(source: Source, stated: ConditionTable, options: SourceOptions) -> bool:
    """True if labels are the part "class": there are several, and no part was taken from where they are."""
    several = (source.classes or 0) > 1 if source.labels is None else np.ptp(source.labels) > 0
    there = several or (CLASS_PART in options.conditions and source.classes is not None)
    named = {options.label_column, *LABEL_NAMES} & set(options.conditions) & set(stated.columns)
    return there and CLASS_PART not in stated.columns and not (named and not options.attributes)


def _chosen(there: Sequence[str], asked: Mapping[str, str]) -> tuple[str, ...]:
    """The parts to take: the class, if there is one, and those that were asked for, or all."""
    first = [CLASS_PART] if CLASS_PART in there and CLASS_PART not in asked else []
    return tuple([*first, *asked] if asked else there)
