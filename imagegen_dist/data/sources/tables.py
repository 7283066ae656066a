"""Parquet files of pictures, as written by Hugging Face and others."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from imagegen_dist.data.conditioned_shard import CLASS_PART
from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.labels import LABEL_NAMES
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import (
    MAX_INFLATED,
    Record,
    Records,
    Source,
    SourceFiles,
    SourceOptions,
    intervals,
    listing_digest,
    register_source,
)
from imagegen_dist.data.sources.columns import ColumnLabels, is_label_type, join_labels, read_labels, read_splits
from imagegen_dist.data.sources.condition_table import Column, ConditionTable, column_of, is_missing
from imagegen_dist.data.sources.parquet_files import features, holds_bytes, named_classes, opened_parquet, read_values
from imagegen_dist.data.sources.parquet_pages import DamagedPageError, pages
from imagegen_dist.data.sources.subsets import ALL, SPLIT_WORDS, Subset
from imagegen_dist.storage import PATIENCE_S, Store

_FETCHED_AGAIN = 8 << 20  # largest row group on remote storage whose pages are checked, in bytes
_MAX_RATIO = 100  # largest compression ratio of a large group of pictures


class _Columns(NamedTuple):
    """The columns to read; "" for none."""

    image: str = ""  # of bytes, or of Hugging Face's {bytes, path}
    label: str = ""  # of whole numbers, texts, categories or booleans


class _Group(NamedTuple):
    """One row group, the unit in which parquet files are read."""

    file: str
    number: int  # of the group in the file
    first: int  # number of its first row in the file
    rows: int


class _Piece(NamedTuple):
    """Some rows of one row group."""

    group: _Group
    rows: tuple[int, ...]  # numbers in the group, ascending
    labels: tuple[int, ...] | None  # of these rows


@dataclass(frozen=True)
class _TableSource(Source):
    """The rows of parquet files, in their order."""

    columns: _Columns = _Columns()
    groups: tuple[_Group, ...] = ()
    offsets: tuple[int, ...] = ()  # number of each group's first row, followed by the number of rows
    kept: IntArray | None = None  # the row of each record; None if all rows are records

    def name_of(self, row: int) -> str:
        """The name of a record."""
        row = row if self.kept is None else int(self.kept[row])
        at, _, inside = next(intervals(self.offsets, np.array([row])))
        return _row_name(self.groups[at], int(inside[0]))

    def select(self, rows: IntArray) -> Records:
        """The records with these numbers, which are ascending."""
        pieces, chosen = [], rows if self.kept is None else self.kept[rows]
        for at, some, inside in intervals(self.offsets, chosen):
            labels = None if self.labels is None else tuple(self.labels[rows[some]].tolist())
            pieces.append(_Piece(self.groups[at], tuple(inside.tolist()), labels))
        return _Rows(Store(self.place, PATIENCE_S), self.columns.image, tuple(pieces))


@dataclass(frozen=True)
class _Rows(Records):
    store: Store
    column: str  # of the pictures
    pieces: tuple[_Piece, ...]

    def read(self) -> Iterator[Record]:
        for piece in self.pieces:
            with opened_parquet(self.store, piece.group.file) as file:
                yield from self._read_piece(file, piece)

    def _read_piece(self, file: Any, piece: _Piece) -> Iterator[Record]:
        labels = iter(piece.labels or (None,) * len(piece.rows))
        _check_inflation(file, piece.group, self.column, self.store)
        rows = iter(piece.rows)
        wanted = next(rows, None)
        # One row at a time, which is as fast: a dictionary may repeat a huge value in every row.
        batches = file.iter_batches(1, row_groups=[piece.group.number], columns=[self.column])
        for row, batch in enumerate(batches):
            if row != wanted:
                continue
            picture = batch.column(self.column)[0].as_py()
            data = picture.get("bytes") if isinstance(picture, dict) else picture
            yield Record(
                _row_name(piece.group, row), next(labels), data or b"", "" if data else "has no picture's bytes"
            )
            wanted = next(rows, None)
            if wanted is None:
                return


def _check_inflation(file: Any, group: _Group, column: str, store: Store) -> None:
    """Raise DatasetError if the pictures of a row group inflate to implausibly many bytes."""
    metadata = file.metadata.row_group(group.number)
    for number in range(metadata.num_columns):
        chunk = metadata.column(number)
        if chunk.path_in_schema.partition(".")[0] != column:
            continue
        place, packed = (store / group.file).url, chunk.total_compressed_size
        _check_ratio(chunk.total_uncompressed_size, packed, place, group)
        if store.protocol not in ("file", "memory") and packed > _FETCHED_AGAIN:
            continue
        start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
        with suppress(DamagedPageError):  # pyarrow reports them
            for page in pages(partial(store.read_range, group.file), start, start + packed):
                _check_ratio(page.unpacked, page.packed, place, group)


def _check_ratio(size: int, packed: int, place: str, group: _Group) -> None:
    if size > MAX_INFLATED and size > _MAX_RATIO * packed:
        raise DatasetError(
            f"{place}: the samples of row group {group.number} inflate from {packed:,} bytes to {size:,}: above "
            f"{MAX_INFLATED:,} bytes, at most {_MAX_RATIO} times as many are read"
        )


def _row_name(group: _Group, row: int) -> str:
    return f"{group.file} row {group.first + row}"


@register_source(".parquet", accepts=("image_column", "label_column"))
def open_tables(files: SourceFiles) -> _TableSource:
    """List the rows of parquet files and read their labels. Hugging Face's metadata name the classes.

    Raises DatasetError if a file is damaged, if no column or several columns hold pictures, if a named column does not
    exist, if labels cannot be classes, and if files differ or are of several splits; StorageError.
    """
    store, options, subset = files.folder, files.options, files.subset
    columns = _Columns(options.image_column, options.label_column)
    names = subset.files(files.names, "parquet files", store.url)
    if subset.asked != ALL:
        _check_one_split(store, names)
    groups: list[_Group] = []
    found: tuple[_Columns, tuple[str, ...] | None] | None = None
    labels, splits = list[ColumnLabels](), list[str]()
    for name in names:
        with opened_parquet(store, name) as file:
            schema = file.schema_arrow
            here = _choose(schema, columns, (store / name).url, options.labelled)
            if found is not None and here != found[0]:
                raise DatasetError(f"{store / name} has other columns than {names[0]}: {here} and {found[0]}")
            found = found or (here, named_classes(schema, here.label))
            groups += _groups(name, file.metadata)
            if here.label:
                labels.append(read_labels(file, here.label, (store / name).url))
            splits += read_splits(file)
    assert found is not None
    offsets = np.concatenate([[0], np.cumsum([group.rows for group in groups])]).astype(int).tolist()
    if offsets[-1] == 0:
        raise DatasetError(f"{store} has parquet files, but no rows in them")
    chosen, class_names = found
    numbers, class_names = join_labels(labels, class_names, store.url) if chosen.label else (None, None)
    kept = _of_split(splits, offsets[-1], subset, store.url)
    if kept is not None and numbers is not None:
        numbers = numbers[kept]
    silent = chosen.label or options.conditions or not options.labelled
    notes = () if silent else _other_columns(store, names[0], chosen.image)
    sizes = [[name, store.size(name)] for name in names]
    source = _TableSource(
        place=store.url,
        count=offsets[-1] if kept is None else kept.size,
        listing=listing_digest([chosen, *sizes, *groups]),
        mixes=False,
        labels=numbers,
        classes=None if numbers is None else int(numbers.max()) + 1 if class_names is None else len(class_names),
        class_names=class_names,
        notes=notes,
        columns=chosen,
        groups=tuple(groups),
        offsets=tuple(offsets),
        kept=kept,
    )
    return replace(source, conditions=_read_conditions(source, names, options)) if options.conditions else source


def _read_conditions(source: _TableSource, names: list[str], options: SourceOptions) -> ConditionTable:
    """The requested columns; "class", if it is none, are the labels. Raises DatasetError."""
    store, columns = Store(source.place), dict[str, Column]()
    with opened_parquet(store, names[0]) as file:
        chosen = [name for name in options.conditions if name != CLASS_PART or name in file.schema_arrow.names]
    parts: list[list[Column]] = [[] for _ in chosen]
    for name in names:
        with opened_parquet(store, name) as file:
            for part, column in zip(parts, chosen, strict=True):
                part.append(read_values(file, column, (store / name).url))
    for column, part in zip(chosen, parts, strict=True):
        arrays = [each for each in part if isinstance(each, np.ndarray)]
        shapes = {(each.ndim, each.shape[1:], each.dtype.kind == "b") for each in arrays}
        alike = len(arrays) == len(part) and len(shapes) == 1
        values = np.concatenate(arrays) if alike else [value for each in part for value in each]
        if source.kept is not None:
            values = values[source.kept] if isinstance(values, np.ndarray) else [values[row] for row in source.kept]
        if isinstance(values, list) and (missing := [row for row, value in enumerate(values) if is_missing(value)]):
            raise DatasetError(
                f"{store}: {source.name_of(missing[0])} has no {column}: every {options.files.noun} needs one"
            )
        columns[column] = column_of(values, options.conditions[column], is_text=False)
    table = ConditionTable(columns)
    table.check(options.conditions, store.url, source.name_of)
    return table


def _of_split(splits: list[str], rows: int, subset: Subset, place: str) -> IntArray | None:
    """The rows of the requested split by a column `split` in all files; None for all rows. Raises DatasetError."""
    if len(splits) < rows or subset.asked == ALL or not all(word in SPLIT_WORDS for word in set(splits)):
        return None
    chosen = subset.files(list(dict.fromkeys(splits)), "rows", place)
    return np.flatnonzero(np.isin(splits, chosen))


def _groups(name: str, metadata: Any) -> Iterator[_Group]:
    first = 0
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        yield _Group(name, number, first, rows)
        first += rows


def _choose(schema: Any, asked: _Columns, place: str, labelled: bool) -> _Columns:
    """The columns of pictures and of labels. Raises DatasetError."""
    pictures = [field.name for field in schema if holds_bytes(field.type)]
    labels = [field.name for field in schema if is_label_type(field.type)]
    for flag, name, fitting, kind in (
        ("--image-column", asked.image, pictures, "bytes"),
        ("--label-column", asked.label, labels, "whole numbers, texts, categories or booleans"),
    ):
        if name and name not in fitting:
            there = f"those are {', '.join(fitting)}" if fitting else "there is none"
            raise DatasetError(f"{flag} {name}: {place} has no such column of {kind}; {there}")
    if not asked.image and len(pictures) != 1:
        said = (
            f"several columns of bytes ({', '.join(pictures)}): choose with --image-column"
            if pictures
            else (f"no column of pictures (bytes, or {{bytes, path}}); it has {', '.join(schema.names)}")
        )
        raise DatasetError(f"{place} has {said}")
    image = asked.image or pictures[0]
    return _Columns(image, (asked.label or _label_column(schema, labels, place)) if labelled else "")


def _label_column(schema: Any, fitting: list[str], place: str) -> str:
    """The column with one of the usual names of labels, or of Hugging Face's ClassLabel; "" for none.

    Raises DatasetError for several, and for a column of another type, which would otherwise be silently ignored.
    """
    usual = [name for name in schema.names if name in LABEL_NAMES] or _class_labels(schema)
    if len(usual) > 1:
        raise DatasetError(f"{place} has several columns of labels ({', '.join(usual)}): choose with --label-column")
    if usual and usual[0] not in fitting:
        raise DatasetError(
            f"{place} has a column {usual[0]} of type {schema.field(usual[0]).type}, which cannot be labels: "
            "whole numbers, texts, categories or booleans can; choose with --label-column, or pack without labels by "
            "--labels none"
        )
    return usual[0] if usual else ""


def _other_columns(store: Store, name: str, image: str) -> tuple[str, ...]:
    """A line for the user about columns that might be labels, if none has a usual name."""
    with opened_parquet(store, name) as file:
        fitting = [each.name for each in file.schema_arrow if is_label_type(each.type) and each.name != image]
    if not fitting:
        return ()
    return (f"no column is called label, so there are no labels; --label-column takes one of {', '.join(fitting[:9])}",)


def _class_labels(schema: Any) -> list[str]:
    """The columns that are ClassLabel in Hugging Face's metadata."""
    known = features(schema)
    kinds = {name: known[name].get("_type") for name in schema.names if isinstance(known.get(name), dict)}
    return [name for name, kind in kinds.items() if kind == "ClassLabel"]


def _check_one_split(store: Store, names: list[str]) -> None:
    """Raise DatasetError for several splits: Hugging Face has train-00000-of-00005.parquet beside test-..."""
    splits = sorted({name.rpartition("-of-")[0].rpartition("-")[0] for name in names if "-of-" in name})
    if len(splits) > 1:
        raise DatasetError(
            f"{store} has parquet files of several splits ({', '.join(splits)}): "
            f"name those you mean with a pattern, '{store}/{splits[0]}-*.parquet'"
        )
