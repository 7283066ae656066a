"""Parquet files of pictures, as Hugging Face and others write them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import Record, Records, Source, UnfitError, listing_digest, touched
from imagegen_dist.storage import Store

_LABEL_NAMES = ("label", "labels", "cls", "class", "fine_label")
_BATCH_ROWS = 64  # rows in memory at once


class Columns(NamedTuple):
    """Which columns to read; "" finds them."""

    image: str = ""  # of bytes, or of Hugging Face's {bytes, path}
    label: str = ""  # of integers


class _Group(NamedTuple):
    """One row group: what parquet reads at once."""

    file: str
    number: int  # in the file
    first: int  # number of its first row in the file
    rows: int


class _Piece(NamedTuple):
    """Some rows of one row group."""

    group: _Group
    rows: tuple[int, ...]  # in the group, ascending


@dataclass(frozen=True)
class TableSource(Source):
    """The rows of parquet files, in their order."""

    columns: Columns = Columns()
    groups: tuple[_Group, ...] = ()
    offsets: tuple[int, ...] = ()  # number of each group's first row and, last, of rows

    def select(self, rows: IntArray) -> Records:
        """The records of those numbers, ascending."""
        pieces = []
        for at in touched(self.offsets, rows):
            first, end = self.offsets[at], self.offsets[at + 1]
            low, high = np.searchsorted(rows, [first, end]).tolist()
            pieces.append(_Piece(self.groups[at], tuple((rows[low:high] - first).tolist())))
        return _Rows(Store(self.place), self.columns, tuple(pieces))


@dataclass(frozen=True)
class _Rows(Records):
    store: Store
    columns: Columns
    pieces: tuple[_Piece, ...]

    def read(self) -> Iterator[Record]:
        for piece in self.pieces:
            with _opened(self.store, piece.group.file) as file:
                yield from self._read_piece(file, piece)

    def _read_piece(self, file: Any, piece: _Piece) -> Iterator[Record]:
        names = [name for name in self.columns if name]
        wanted, first = np.array(piece.rows), 0
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[piece.group.number], columns=names):
            low, high = np.searchsorted(wanted, [first, first + batch.num_rows]).tolist()
            chosen = batch.take((wanted[low:high] - first).tolist()) if high > low else batch.slice(0, 0)
            pictures = chosen.column(self.columns.image).to_pylist()
            labels = chosen.column(self.columns.label).to_pylist() if self.columns.label else [None] * len(pictures)
            for row, picture, label in zip(wanted[low:high].tolist(), pictures, labels, strict=True):
                name = f"{piece.group.file} row {piece.group.first + row}"
                if self.columns.label and (label is None or label < 0):
                    raise UnfitError(f"{self.store}/{name} has {label} in {self.columns.label}: labels count from 0")
                data = picture.get("bytes") if isinstance(picture, dict) else picture
                yield Record(name, label, data or b"", "" if data else "has no picture's bytes")
            first += batch.num_rows
            if first > piece.rows[-1]:
                return


def open_tables(store: Store, names: list[str], columns: Columns) -> TableSource:
    """The rows of a folder's parquet files. Class names are taken from Hugging Face's metadata.

    Raises DatasetError where a file is damaged, where no column holds pictures or several could, where a named one is
    not there, and where files differ; StorageError.
    """
    _check_one_split(store, names)
    groups: list[_Group] = []
    found: tuple[Columns, tuple[str, ...] | None] | None = None
    for name in names:
        with _opened(store, name) as file:
            schema = file.schema_arrow
            here = _choose(schema, columns, (store / name).url)
            if found is not None and here != found[0]:
                raise DatasetError(f"{store / name} has other columns than {names[0]}: {here} and {found[0]}")
            found = found or (here, _class_names(schema, here.label))
            groups += _groups(name, file.metadata)
    assert found is not None
    offsets = np.concatenate([[0], np.cumsum([group.rows for group in groups])]).astype(int).tolist()
    if offsets[-1] == 0:
        raise DatasetError(f"{store} has parquet files, but not one row in them")
    chosen, class_names = found
    sizes = [[name, store.size(name)] for name in names]
    return TableSource(
        place=store.url,
        count=offsets[-1],
        listing=listing_digest([chosen, *sizes, *groups]),
        mixes=False,
        classes=None if class_names is None else len(class_names),
        class_names=class_names,
        columns=chosen,
        groups=tuple(groups),
        offsets=tuple(offsets),
    )


def _groups(name: str, metadata: Any) -> Iterator[_Group]:
    first = 0
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        yield _Group(name, number, first, rows)
        first += rows


@contextmanager
def _opened(store: Store, name: str) -> Iterator[Any]:
    """A parquet file; what pyarrow finds wrong with it comes as DatasetError."""
    import pyarrow  # type: ignore[import-untyped]  # here, since it is slow to import and few need it
    import pyarrow.parquet  # type: ignore[import-untyped]

    with store.opened(name) as raw:
        try:
            with pyarrow.parquet.ParquetFile(raw) as file:
                yield file
        except (pyarrow.ArrowException, OSError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DatasetError(f"{store / name} is no parquet file, or a damaged one: {line}") from error


def _choose(schema: Any, asked: Columns, place: str) -> Columns:
    """The columns of pictures and of labels. Raises DatasetError."""
    pictures = [field.name for field in schema if _holds_bytes(field.type)]
    labels = [field.name for field in schema if _is_integer(field.type)]
    for flag, name, fitting, kind in (
        ("--image-column", asked.image, pictures, "bytes"),
        ("--label-column", asked.label, labels, "whole numbers"),
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
    usual = [name for name in labels if name in _LABEL_NAMES]
    if not asked.label and len(usual) > 1:
        raise DatasetError(f"{place} has several columns of labels ({', '.join(usual)}): choose with --label-column")
    return Columns(asked.image or pictures[0], asked.label or (usual[0] if usual else ""))


def _holds_bytes(kind: Any) -> bool:
    """Whether a column is of bytes, or of structs with a field `bytes` of them."""
    from pyarrow import types

    if types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _holds_bytes(kind.field(at).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_integer(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind))


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    """The names in Hugging Face's ClassLabel of that column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _check_one_split(store: Store, names: list[str]) -> None:
    """Hugging Face keeps train-00000-of-00005.parquet beside test-...: these are not one dataset."""
    splits = sorted({name.rpartition("-of-")[0].rpartition("-")[0] for name in names if "-of-" in name})
    if len(splits) > 1:
        raise DatasetError(
            f"{store} has parquet files of several splits ({', '.join(splits)}): "
            f"name those you mean with a pattern, '{store}/{splits[0]}-*.parquet'"
        )
