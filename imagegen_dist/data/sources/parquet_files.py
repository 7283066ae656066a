"""Parquet files: opened with errors in one line, the names in Hugging Face's metadata, and columns of conditions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.labels import clean_name
from imagegen_dist.data.sources.condition_table import Column
from imagegen_dist.documents import parse_json
from imagegen_dist.storage import Store
from imagegen_dist.wording import first_line


@contextmanager
def opened_parquet(store: Store, name: str) -> Iterator[Any]:
    """An open pyarrow ParquetFile. Errors of pyarrow become DatasetError."""
    import pyarrow  # type: ignore[import-untyped]  # slow to import, and rarely needed
    import pyarrow.parquet  # type: ignore[import-untyped]

    with store.opened(name) as raw:
        try:
            with pyarrow.parquet.ParquetFile(raw) as file:
                yield file
        except (pyarrow.ArrowException, OSError) as error:
            raise DatasetError(
                f"{store / name} is not a parquet file, or a damaged one: {first_line(error)}"
            ) from error


def features(schema: Any) -> dict[str, Any]:
    """Hugging Face's metadata of each column."""
    try:
        found = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def named_classes(schema: Any, column: str) -> tuple[str, ...] | None:
    """The names in Hugging Face's ClassLabel of a column."""
    feature = features(schema).get(column)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(clean_name(str(name)) for name in names) if isinstance(names, list) and names else None


def holds_bytes(kind: Any) -> bool:
    """True for a column of bytes, or of structs with a field `bytes` of bytes, as Hugging Face writes pictures."""
    from pyarrow import types

    if types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and holds_bytes(kind.field(at).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def read_values(file: Any, column: str, place: str) -> Column:
    """The values in a column of a ParquetFile: an array for booleans, numbers and vectors, else a list.

    Numbers of a ClassLabel become its names. Raises DatasetError for such a number without a name, for a column that
    does not exist, and for one of bytes.
    """
    from pyarrow import types

    schema = file.schema_arrow
    if column not in schema.names:
        raise DatasetError(f"{place} has no column {column}; it has {', '.join(schema.names)}")
    if holds_bytes(schema.field(column).type):
        raise DatasetError(f"{place} has bytes in {column}, which cannot be a condition")
    values = file.read(columns=[column]).column(column)
    if values.null_count:
        return list(values.to_pylist())
    names = named_classes(schema, column)
    if names is not None and types.is_integer(values.type):
        return _named(values.to_numpy(), names, column, place)
    if types.is_boolean(values.type) or types.is_integer(values.type) or types.is_floating(values.type):
        return np.asarray(values.to_numpy())
    return _vectors(values) if _is_list(values.type) else list(values.to_pylist())


def _named(numbers: Any, names: tuple[str, ...], column: str, place: str) -> list[str]:
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(names):
        raise DatasetError(f"{place}: {column} has numbers for which its metadata have no name")
    return [names[number] for number in numbers.tolist()]


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _vectors(values: Any) -> Column:
    """Lists of equally many numbers as an array [N, n]; other lists as lists."""
    import pyarrow
    import pyarrow.compute  # type: ignore[import-untyped]
    from pyarrow import types

    inner = values.type.value_type
    lengths = pyarrow.compute.unique(pyarrow.compute.list_value_length(values)).to_pylist()
    if len(lengths) != 1 or not lengths[0] or not (types.is_integer(inner) or types.is_floating(inner)):
        return list(values.to_pylist())
    flat = pyarrow.compute.list_flatten(values)
    return list(values.to_pylist()) if flat.null_count else np.asarray(flat.to_numpy()).reshape(-1, lengths[0])
