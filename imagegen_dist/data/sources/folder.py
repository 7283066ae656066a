"""A folder of pictures, a file each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from imagegen_dist.data.index import INDEX_NAME, DatasetError
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import Record, Records, Source, SourceOptions, each_ahead, listing_digest
from imagegen_dist.data.sources.classes import Entries, classify, is_hidden
from imagegen_dist.data.sources.files import (
    MAX_RECORD_BYTES,
    PEEKED_BYTES,
    PICTURE_FILES,
    FileKinds,
    join_parts,
)
from imagegen_dist.data.sources.subsets import Subset
from imagegen_dist.storage import PATIENCE_S, Store


@dataclass(frozen=True)
class FolderSource(Source):
    """The pictures in a folder, sorted by name."""

    names: tuple[str, ...] = ()
    bundles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # files of each record that is a folder
    usual_bytes: int = 0  # as in FileKinds

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
        names = tuple(self.names[row] for row in rows.tolist())
        bundles = {name: self.bundles[name] for name in names if name in self.bundles}
        return _Files(Store(self.place, PATIENCE_S), names, labels, bundles, self.usual_bytes)


@dataclass(frozen=True)
class _Files(Records):
    store: Store
    names: tuple[str, ...]
    labels: tuple[int, ...] | None
    bundles: Mapping[str, tuple[str, ...]]
    usual_bytes: int

    def read(self) -> Iterator[Record]:
        labels = self.labels or (None,) * len(self.names)
        yield from each_ahead(self._read_one, zip(self.names, labels, strict=True), self.store, self.usual_bytes)

    def _read_one(self, named: tuple[str, int | None]) -> Record:
        name, label = named
        try:
            if (parts := self.bundles.get(name)) is None:
                if self.usual_bytes and self.store.size(name) > MAX_RECORD_BYTES:
                    return Record(name, label, b"", f"has more than {MAX_RECORD_BYTES:,} bytes: cut it first")
                return Record(name, label, self.store.read(name))
            files = [(part.rpartition("/")[2], self.store.read(part)) for part in parts]
            return Record(name, label, join_parts(files))
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
        raise DatasetError(_why_no_pictures(store, options.files, tree.entries(root).others))
    names = classified.names
    bundles = {name: tree.bundles[name] for name in names if name in tree.bundles}
    listed = zip(names, classified.labels or names, _sizes(store, names, bundles), strict=True)
    fields = classified.fields()
    return FolderSource(
        place=store.url,
        listing=listing_digest(listed),
        names=names,
        bundles=bundles,
        usual_bytes=options.files.usual_bytes,
        **fields,
    )


def _sizes(store: Store, names: tuple[str, ...], bundles: Mapping[str, tuple[str, ...]]) -> Iterator[int]:
    """The bytes of each record on the local disk; 0 elsewhere, where it would cost a request for each file."""
    for name in names:
        paths = [store.local_path(part) for part in bundles.get(name, (name,))]
        yield sum(path.stat().st_size for path in paths if path is not None and path.exists())


class FolderTree:
    """The visible files and folders of a store. Each folder is listed once.

    bundles: the files of each listed record that is a folder, by its name.
    """

    def __init__(self, store: Store, files: FileKinds = PICTURE_FILES) -> None:
        self.store, self._files = store, files
        self.bundles: dict[str, tuple[str, ...]] = {}
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
                files = entries.pictures if self._files.is_record(entry) else entries.others
                kind = entries.folders if is_folder else files
                kind.append(f"{folder}/{entry}" if folder else entry)
            self._listed[folder] = entries
            if self._files.parts:
                self._take_bundles(entries)
        return self._listed[folder]

    def _take_bundles(self, entries: Entries) -> None:
        """Count the sub-folders whose files together are one record as records."""
        for folder in list(entries.folders):
            pictures, folders, others = self.entries(folder)
            folders = [*folders, *(name for name in pictures if name in self.bundles)]
            if self._files.is_bundle([*pictures, *others], folders, self._peek):
                self.bundles[folder] = self._files.parts_of([*pictures, *others])
                entries.folders.remove(folder)
                entries.pictures.append(folder)

    def _peek(self, name: str) -> bytes:
        return self.store.read_range(name, 0, PEEKED_BYTES)

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


def _why_no_pictures(store: Store, files: FileKinds, others: list[str]) -> str:
    nouns = f"{files.noun}s"
    if not store.exists():
        return f"{store} does not exist"
    if store.exists(INDEX_NAME):
        return f"{store} has an {INDEX_NAME}, but neither shards nor {nouns}"
    return (
        f"{store} has neither {nouns} ({files.listed}) nor sub-folders of {nouns}, shards or parquet files"
        + files.elsewhere(others)
    )
