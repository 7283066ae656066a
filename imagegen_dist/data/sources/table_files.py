"""Tables in files, by their extension: CSV, TSV and JSON Lines as columns of values."""

import csv
import sys
from collections.abc import Iterator
from itertools import zip_longest
from os.path import splitext
from typing import Any

from imagegen_dist.data.index import DatasetError
from imagegen_dist.documents import parse_json

_TABLES = (".csv", ".tsv", ".jsonl")


def is_table(name: str) -> bool:
    """True if the extension of a file is that of a table of text."""
    return splitext(name)[1].lower() in _TABLES


def has_types(name: str) -> bool:
    """True if a table says which values are numbers, which CSV and TSV do not."""
    return splitext(name)[1].lower() not in (".csv", ".tsv")


def read_columns(text: bytes, place: str) -> dict[str, list[Any]]:
    """The values of each column in the order of the rows; None where a row has no value. Raises DatasetError."""
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{place} is not text in UTF-8: {error.reason}") from error
    if place.lower().endswith(".jsonl"):
        lines = enumerate(decoded.splitlines(), 1)
        records = [_record(line, number, place) for number, line in lines if line.strip()]
        names = dict.fromkeys(str(name) for record in records for name in record)
        return {name: [record.get(name) for record in records] for name in names}
    try:
        rows = _rows(decoded, place)
        heading = [name.strip() for name in next(rows, [])]
        columns: list[list[Any]] = [[] for _ in heading]
        for row in rows:
            for column, value in zip_longest(columns, row[: len(heading)]):
                column.append(value if value is None else sys.intern(value))
    except csv.Error as error:
        raise DatasetError(f"{place} is not a readable table: {error}") from error
    return dict(zip(heading, columns, strict=True))


def _rows(decoded: str, place: str) -> Iterator[list[str]]:
    """The rows of a CSV or TSV that are not empty, with its heading first."""
    lines = decoded.splitlines(keepends=True)
    heading = next(iter(lines), "")
    mark = "\t" if place.lower().endswith(".tsv") else max(",;\t", key=heading.count)
    return filter(None, csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=True))


def _record(line: str, number: int, place: str) -> dict[str, Any]:
    try:
        record = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{place} line {number} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DatasetError(f"{place} line {number} is not a JSON object")
    return record
