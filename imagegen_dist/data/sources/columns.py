"""Labels in a column of a parquet file, as numbers of classes: whole numbers, texts, categories or booleans."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from imagegen_dist.data.labels import LARGEST_LABEL, all_differ, clean_name, number_names
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import UnfitError
from imagegen_dist.natural import natural_order
from imagegen_dist.wording import counted

_BOOLEANS = ("false", "true")


class ColumnLabels(NamedTuple):
    """The labels of one file: numbers of classes, or positions among names."""

    place: str  # URL of the file, for errors
    numbers: IntArray
    names: tuple[str, ...] | None


def is_label_type(kind: Any) -> bool:
    """True if the values of a column may be classes. For floats, the values decide."""
    from pyarrow import types  # type: ignore[import-untyped]  # slow to import, and rarely needed

    if types.is_dictionary(kind):
        return is_label_type(kind.value_type)
    texts = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(texts or types.is_integer(kind) or types.is_boolean(kind) or types.is_floating(kind))


def read_labels(file: Any, column: str, place: str) -> ColumnLabels:
    """The labels in a column of a pyarrow ParquetFile. Raises UnfitError with the row of an unusable value."""
    import pyarrow
    import pyarrow.compute  # type: ignore[import-untyped]
    from pyarrow import types

    values = file.read(columns=[column]).column(column)
    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    missing = np.flatnonzero(values.is_null().to_numpy())
    if missing.size:
        raise UnfitError(f"{place} row {missing[0]} has no {column}: --labels none packs without labels")
    if types.is_boolean(values.type):
        return ColumnLabels(place, values.cast(pyarrow.int64()).to_numpy().astype(np.int64), _BOOLEANS)
    if types.is_integer(values.type) or types.is_floating(values.type):
        return ColumnLabels(place, _whole(values.to_numpy(), column, place), None)
    coded = pyarrow.compute.dictionary_encode(values).combine_chunks()
    coded = coded.chunk(0) if isinstance(coded, pyarrow.ChunkedArray) else coded
    names = tuple(clean_name(text) for text in coded.dictionary.to_pylist())
    codes = coded.indices.to_numpy().astype(np.int64)
    if "" in names:
        row = np.flatnonzero(codes == names.index(""))[0]
        raise UnfitError(f"{place} row {row} has an empty {column}: --labels none packs without labels")
    return ColumnLabels(place, codes, names)


def read_splits(file: Any) -> list[str]:
    """The split of each row of a pyarrow ParquetFile, from its column `split` of texts; [] without one."""
    from pyarrow import types

    if "split" not in file.schema_arrow.names:
        return []
    values = file.read(columns=["split"]).column("split")
    kind = values.type.value_type if types.is_dictionary(values.type) else values.type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        return []
    return [str(word or "").strip().lower() for word in values.to_pylist()]


def join_labels(
    parts: Sequence[ColumnLabels], class_names: tuple[str, ...] | None, place: str
) -> tuple[IntArray, tuple[str, ...] | None]:
    """(the number of the class of each row of all files, the names of the classes).

    class_names: names in the files' metadata, in the order of their numbers. Raises UnfitError for a label without a
    name in the metadata, and if almost all texts differ.
    """
    if all(part.names is None for part in parts):
        numbers = np.concatenate([part.numbers for part in parts])
        if class_names is not None and numbers.size and numbers.max() >= len(class_names):
            raise UnfitError(
                f"{place} has label {numbers.max()}, but its metadata name {counted(len(class_names), 'class')}"
            )
        return numbers, class_names
    if numbered := [part.place for part in parts if part.names is None]:
        raise UnfitError(
            f"labels are numbers in {numbered[0]} and texts in other files of {place}: all must be of one kind"
        )
    names = class_names
    if names is None or parts[0].names == _BOOLEANS:
        found = {name for part in parts for name in part.names or ()}
        names = _BOOLEANS if found <= {*_BOOLEANS} else tuple(natural_order(found))
        if complaint := all_differ(len(names), sum(part.numbers.size for part in parts)):
            raise UnfitError(f"{place}: {complaint}")
    number = number_names(names)
    for part in parts:
        if unknown := [name for name in part.names or () if name not in number]:
            raise UnfitError(f"{part.place} has the label {unknown[0]!r}, which its metadata do not name")
    of_part = [np.array([number[name] for name in part.names or ()], dtype=np.int64)[part.numbers] for part in parts]
    return np.concatenate(of_part), names


def _whole(values: Any, column: str, place: str) -> IntArray:
    """Convert numbers to those of classes; floats must be whole."""
    with np.errstate(invalid="ignore"):
        good = (values >= 0) & (values <= LARGEST_LABEL) & (values == np.floor(values))
    bad = np.flatnonzero(~good)
    if bad.size:
        raise UnfitError(
            f"{place} row {bad[0]} has {values[bad[0]]} in {column}: labels are whole numbers from 0; "
            "--labels none packs without labels"
        )
    return np.asarray(values).astype(np.int64)
