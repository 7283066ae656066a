"""CIFAR-10 in its binary version: files of records of a label and 32 × 32 RGB pixels.

The layout is that of https://www.cs.toronto.edu/~kriz/cifar.html: a byte for the label, then 1,024 bytes each of red,
green and blue, row by row. The class names are in `batches.meta.txt` beside the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.labels import clean_name
from imagegen_dist.data.modality import modality
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import (
    Record,
    Records,
    Source,
    SourceFiles,
    intervals,
    listing_digest,
    register_source,
)
from imagegen_dist.storage import PATIENCE_S, Store

_PIXELS = (3, 32, 32)
_RECORD = 1 + int(np.prod(_PIXELS))
_CLASSES = 10
_NAMES = "batches.meta.txt"


@dataclass(frozen=True)
class _Pictures(Records):
    folder: Store
    names: tuple[str, ...]
    offsets: tuple[int, ...]
    rows: tuple[int, ...]
    labels: tuple[int | None, ...]

    def read(self) -> Iterator[Record]:
        for at, here, inside in intervals(self.offsets, np.array(self.rows)):
            name = self.names[at]
            first, last = int(inside[0]), int(inside[-1]) + 1
            data = self.folder.read_range(name, first * _RECORD, last * _RECORD)
            records = np.frombuffer(data, np.uint8).reshape(last - first, _RECORD)
            for row, label in zip(inside.tolist(), self.labels[here], strict=True):
                pixels = records[row - first, 1:].reshape(_PIXELS)
                yield Record(f"{name}, picture {row}", label, modality("image").encode(pixels, "png"))


@dataclass(frozen=True)
class _CifarSource(Source):
    folder: Store = Store(".")
    names: tuple[str, ...] = ()
    offsets: tuple[int, ...] = ()

    def select(self, rows: IntArray) -> Records:
        """The records with these numbers, which are ascending."""
        labels = (None,) * len(rows) if self.labels is None else tuple(self.labels[rows].tolist())
        return _Pictures(self.folder, self.names, self.offsets, tuple(rows.tolist()), labels)


@register_source(".bin", in_folders=False)
def open_cifar(files: SourceFiles) -> _CifarSource:
    """List the pictures in CIFAR-10's binary files. Raises DatasetError for files of another layout; StorageError."""
    folder = Store(files.url, PATIENCE_S)
    names = sorted(files.subset.files(files.names, "files", files.url))
    found = [_labels(folder, name) for name in names]
    labels = np.concatenate(found)
    labelled = files.options.labelled
    return _CifarSource(
        place=files.url,
        count=len(labels),
        listing=listing_digest([*names, labels.tolist()]),
        mixes=False,  # the published order mixes the classes
        labels=labels if labelled else None,
        classes=_CLASSES if labelled else None,
        class_names=_class_names(folder) if labelled else None,
        folder=folder,
        names=tuple(names),
        offsets=(0, *accumulate(map(len, found))),
    )


def _labels(folder: Store, name: str) -> IntArray:
    """The labels of a file's records, [N]. Raises DatasetError for another layout."""
    data = np.frombuffer(folder.read(name), np.uint8)
    labels = data[::_RECORD].astype(np.int64) if data.size and data.size % _RECORD == 0 else None
    if labels is None or labels.max() >= _CLASSES:
        raise DatasetError(
            f"{folder / name} is not a file of CIFAR-10's binary version, as which .bin files are read: "
            f"{_RECORD:,} bytes a picture, of which the first is a label from 0 to {_CLASSES - 1}"
        )
    return labels


def _class_names(folder: Store) -> tuple[str, ...] | None:
    """The names of the classes; None without the file that has them."""
    if not folder.exists(_NAMES):
        return None
    names = tuple(
        filter(None, (clean_name(line) for line in folder.read(_NAMES).decode(errors="replace").splitlines()))
    )
    return names if len(names) == _CLASSES else None
