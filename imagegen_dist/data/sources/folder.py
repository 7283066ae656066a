"""A folder of pictures, a file each."""

from collections.abc import Iterator
from dataclasses import dataclass
from os.path import splitext

import numpy as np

from imagegen_dist.data.index import INDEX_NAME, DatasetError
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import Record, Records, Source, each_ahead, listing_digest
from imagegen_dist.data.sources.classes import (
    EXTENSIONS,
    LABELS_NAME,
    Classified,
    Entries,
    by_folders,
    by_labels_file,
    is_hidden,
    is_picture,
)
from imagegen_dist.storage import Store

_NO_FOLDERS = (".txt", ".json", ".csv", ".tsv", ".xml", ".yaml", ".md", ".npy", ".zip", ".tar", ".parquet")


@dataclass(frozen=True)
class FolderSource(Source):
    """The pictures of a folder, sorted by name."""

    names: tuple[str, ...] = ()

    def select(self, rows: IntArray) -> Records:
        """The records of those numbers."""
        labels = None if self.labels is None else tuple(self.labels[rows].tolist())
        return _Files(Store(self.place), tuple(self.names[row] for row in rows.tolist()), labels)


@dataclass(frozen=True)
class _Files(Records):
    store: Store
    names: tuple[str, ...]
    labels: tuple[int, ...] | None

    def read(self) -> Iterator[Record]:
        labels = self.labels or (None,) * len(self.names)
        yield from each_ahead(self._read_one, zip(self.names, labels, strict=True), self.store)

    def _read_one(self, named: tuple[str, int | None]) -> Record:
        name, label = named
        try:
            return Record(name, label, self.store.read(name))
        except FileNotFoundError:
            return Record(name, label, b"", "does not exist, or is a link to nowhere")


def open_folder(store: Store) -> FolderSource:
    """The pictures in a folder. Hidden files and folders do not count.

    With a dataset.json all pictures below are taken, labelled as it says; else sub-folders are classes.
    Raises DatasetError where there is no picture, in a class or at all, and where labels and pictures do not fit;
    StorageError.
    """
    tree = _Tree(store)
    if store.exists(LABELS_NAME):
        found: Classified | None = by_labels_file(store.read(LABELS_NAME), tree.files(), store.url)
    else:
        found = by_folders(tree.entries, store.url)
    if found is None:
        raise DatasetError(_why_no_pictures(store))
    labels = None if found.labels is None else np.array(found.labels, dtype=np.int64)
    listed = zip(found.names, found.labels or found.names, _sizes(store, found.names), strict=True)
    return FolderSource(
        place=store.url,
        count=len(found.names),
        listing=listing_digest(listed),
        mixes=True,
        labels=labels,
        classes=None if labels is None else int(labels.max()) + 1,
        class_names=found.class_names,
        left_out=found.left_out,
        names=found.names,
    )


def _sizes(store: Store, names: tuple[str, ...]) -> Iterator[int]:
    """Bytes of each file on the local disk; elsewhere it would be a request each, and 0 stands for any."""
    for name in names:
        path = store.local_path(name)
        yield path.stat().st_size if path is not None and path.exists() else 0


class _Tree:
    """The visible files and folders of a store, each folder listed once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[str, list[str]] = {}

    def entries(self, folder: str) -> Entries:
        """What is visible in a folder."""
        entries = Entries([], [], [])
        for entry in self._list(folder):
            if not entry or is_hidden(entry):
                continue
            name = f"{folder}/{entry}" if folder else entry
            if is_picture(entry):
                entries.pictures.append(name)
            elif splitext(entry)[1].lower() not in _NO_FOLDERS and self._is_folder(name):
                entries.folders.append(name)
            else:
                entries.others.append(name)
        return entries

    def files(self, folder: str = "") -> Iterator[str]:
        """All visible files below a folder."""
        found = self.entries(folder)
        yield from found.pictures
        yield from found.others
        for deeper in found.folders:
            yield from self.files(deeper)

    def _is_folder(self, name: str) -> bool:
        path = self._store.local_path(name)
        return bool(self._list(name)) if path is None else path.is_dir()

    def _list(self, folder: str) -> list[str]:
        if folder not in self._names:
            self._names[folder] = self._store.names(folder)
        return self._names[folder]


def _why_no_pictures(store: Store) -> str:
    if not store.exists():
        return f"{store} does not exist"
    if store.exists(INDEX_NAME):
        return f"{store} has an {INDEX_NAME}, but neither shards nor pictures"
    return f"{store} has neither pictures ({' '.join(EXTENSIONS)}) nor sub-folders of pictures, shards or parquet files"
