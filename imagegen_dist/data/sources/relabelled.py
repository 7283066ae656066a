"""A source whose classes are renumbered: those that have pictures are numbered from 0."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.labels import relabelling, too_many
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import Record, Records, Source
from imagegen_dist.data.sources.shards import ShardSource


@dataclass(frozen=True)
class _RelabelledSource(Source):
    """Another source with renumbered classes."""

    inner: Source | None = None
    numbers: Mapping[int, int] | None = None  # new number by old number

    def name_of(self, row: int) -> str:
        """The name of a record."""
        assert self.inner is not None
        return self.inner.name_of(row)

    def select(self, rows: IntArray) -> Records:
        """The records with these numbers."""
        assert self.inner is not None
        assert self.numbers is not None
        return _Relabelled(self.inner.select(rows), self.numbers)


@dataclass(frozen=True)
class _Relabelled(Records):
    inner: Records
    numbers: Mapping[int, int]

    def read(self) -> Iterator[Record]:
        for record in self.inner.read():
            yield record if record.label is None else record._replace(label=self.numbers[record.label])


def relabelled(source: Source) -> Source:
    """Number the classes that have pictures from 0; they keep their names, or get their old numbers as names.

    Raises DatasetError if there are no labels or named conditions, and if it is unknown which classes have pictures.
    """
    if source.parts:
        raise DatasetError(f"--relabel numbers classes, but {source.place} has conditions ({', '.join(source.parts)})")
    if source.classes is None and source.labels is None:
        raise DatasetError(f"--relabel: {source.place} has no labels")
    if source.labels is not None:
        there, counts = np.unique(source.labels, return_counts=True)
        numbers, names = relabelling(dict(zip(there.tolist(), counts.tolist(), strict=True)), source.class_names)
        labels: IntArray | None = np.searchsorted(there, source.labels)
    else:
        known = source.class_counts if isinstance(source, ShardSource) else None
        if known is None:
            raise DatasetError(
                f"--relabel: the index of {source.place} does not say how many samples each class has; remove the "
                "index.json and write it again with --index-only"
            )
        (numbers, names), labels = relabelling(known, source.class_names), None
    return _RelabelledSource(
        place=source.place,
        count=source.count,
        listing=source.listing,
        mixes=source.mixes,
        labels=labels,
        classes=len(names),
        class_names=tuple(names),
        left_out=source.left_out,
        notes=source.notes,
        inner=source,
        numbers=numbers,
    )


def check_classes(source: Source) -> Source:
    """The source, unchanged. Raises DatasetError if it has far more classes than pictures."""
    known = source.labels is not None and source.class_names is None
    if known and (complaint := too_many(source.classes or 0, source.count)):
        raise DatasetError(f"{source.place}: {complaint}")
    return source
