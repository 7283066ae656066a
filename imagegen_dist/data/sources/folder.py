"""A folder of pictures, a file each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from imagegen_dist.data.index import INDEX_NAME, DatasetError
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import Record, Records, Source, SourceOptions, each_ahead, listing_digest
from imagegen_dist.data.sources.classes import EXTENSIONS, Entries, classify, is_hidden, is_picture
from imagegen_dist.data.sources.subsets import Subset
from imagegen_dist.storage import PATIENCE_S, Store


@dataclass(frozen=True)
class FolderSource(Source):
    """The pictures in a folder, sorted by name."""

    names: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        """True: the records are the files of the folder `place`."""
        return True

    def name_of(self, row: int) -> str:
        """The name of a record."""
        return self.names[row]

    def select(self, rows: IntArray) -> Records:
        """The records with these numbers."""
        labels = None if self.labels is None else tuple(self.labels[rows].tolist())
        return _Files(Store(self.place, PATIENCE_S), tuple(self.names[row] for row in rows.tolist()), labels)


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
            return Record(name, label, b"", "does not exist, or is a broken link")


def open_folder(
    tree: FolderTree, root: str, notes: tuple[str, ...], options: SourceOptions, subset: Subset
) -> FolderSource:
    """List the visible pictures in a folder. A file of labels or the sub-folders give the classes.

    root, notes: as `find_root` returns them. Raises DatasetError if there is no picture, in a class or at all, and if
    labels and pictures do not fit; StorageError.
    """
    store = tree.store
    classified = classify(tree, store.url, options, subset, root, notes)
    if classified is None:
        raise DatasetError(_why_no_pictures(store))
    names = classified.names
    listed = zip(names, classified.labels or names, _sizes(store, names), strict=True)
    return FolderSource(place=store.url, listing=listing_digest(listed), names=names, **classified.fields())


def _sizes(store: Store, names: tuple[str, ...]) -> Iterator[int]:
    """The size of each file on the local disk; 0 elsewhere, where it would cost a request for each."""
    for name in names:
        path = store.local_path(name)
        yield path.stat().st_size if path is not None and path.exists() else 0


class FolderTree:
    """The visible files and folders of a store. Each folder is listed once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.unusable: list[str] = []  # objects in the listed folders that have no usable name
        self._listed: dict[str, Entries] = {}

    def entries(self, folder: str) -> Entries:
        """The visible contents of a folder. A folder is a folder whatever its name ends with."""
        if folder not in self._listed:
            self._check_no_loop(folder)
            entries = Entries([], [], [])
            listing = self.store.listing(folder)
            self.unusable += listing.unusable
            for entry, is_folder in listing.entries.items():
                if not entry or is_hidden(entry):
                    continue
                kind = entries.folders if is_folder else entries.pictures if is_picture(entry) else entries.others
                kind.append(f"{folder}/{entry}" if folder else entry)
            self._listed[folder] = entries
        return self._listed[folder]

    def _check_no_loop(self, folder: str) -> None:
        """Raise DatasetError for a link to a folder above it, which would be listed endlessly."""
        path = self.store.local_path(folder)
        if path is None:
            return
        real, top = path.resolve(), self.store.local_path()
        around = list(path.parents)[: len(folder.split("/")) if folder else 0]
        if any(each.resolve() == real for each in around):
            raise DatasetError(f"{path} is a link to a folder above it: remove it from {top}")

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return self.store.read(name)


def _why_no_pictures(store: Store) -> str:
    if not store.exists():
        return f"{store} does not exist"
    if store.exists(INDEX_NAME):
        return f"{store} has an {INDEX_NAME}, but neither shards nor pictures"
    return f"{store} has neither pictures ({' '.join(EXTENSIONS)}) nor sub-folders of pictures, shards or parquet files"
