"""A zip of pictures, read in place: its directory once, and then each picture by one ranged read."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import (
    MAX_INFLATED,
    Record,
    Records,
    Source,
    SourceFiles,
    each_ahead,
    listing_digest,
    register_source,
)
from imagegen_dist.data.sources.classes import Entries, classify, find_root, is_hidden
from imagegen_dist.data.sources.files import FileKinds, join_parts
from imagegen_dist.data.sources.label_files import plain_path
from imagegen_dist.storage import PATIENCE_S, StorageError, Store

_HEADER = struct.Struct("<4s5H3I2H")  # local file header (PKWARE APPNOTE 6.3.10, 4.3.7)
_SIGNATURE = b"PK\3\4"
_EXTRA_BYTES = 64  # usually enough for the extra field of the local header, whose size the directory does not state
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _Entry(NamedTuple):
    """The position of a member."""

    name: str
    offset: int  # of its header
    header: int  # bytes of the header, according to the directory
    packed: int  # bytes
    size: int
    crc: int
    method: int
    parts: tuple["_Entry", ...] = ()  # of a record that is a folder, which has no bytes of its own


@dataclass(frozen=True)
class _ZipSource(Source):
    """The pictures in a zip."""

    entries: tuple[_Entry, ...] = ()

    def name_of(self, row: int) -> str:
        """The name of a record."""
        return self.entries[row].name

    def select(self, rows: IntArray) -> Records:
        """The records with these numbers."""
        parent, _, name = self.place.rpartition("/")
        labels = None if self.labels is None else tuple(self.labels[rows].tolist())
        return _Members(Store(parent, PATIENCE_S), name, tuple(self.entries[row] for row in rows.tolist()), labels)


@dataclass(frozen=True)
class _Members(Records):
    store: Store
    archive: str
    entries: tuple[_Entry, ...]
    labels: tuple[int, ...] | None

    def read(self) -> Iterator[Record]:
        labels = self.labels or (None,) * len(self.entries)
        largest = max((entry.size for entry in self.entries if entry.size <= MAX_INFLATED), default=0)
        yield from each_ahead(self._read_one, zip(self.entries, labels, strict=True), self.store, largest)

    def _read_one(self, labelled: tuple[_Entry, int | None]) -> Record:
        entry, label = labelled
        try:
            if not entry.parts:
                return Record(entry.name, label, _read(self.store, self.archive, entry))
            files = [(each.name.rpartition("/")[2], _read(self.store, self.archive, each)) for each in entry.parts]
            return Record(entry.name, label, join_parts(files))
        except (zlib.error, struct.error, zipfile.BadZipFile) as error:
            return Record(entry.name, label, b"", f"is damaged in the zip: {error}")


@register_source(".zip", accepts=("label_column", "attributes", "folders"), in_folders=False)
def open_zip(files: SourceFiles) -> _ZipSource:
    """List the pictures in a zip, labelled by a file of labels or by folders like those of a folder on disk.

    Names may have backslashes, as Windows writes them, or begin with ./ or /. Raises DatasetError if there are several
    zips, the file is not a zip or has no pictures, if it is encrypted or compressed by an unusual method, and if labels
    and pictures do not fit; StorageError.
    """
    folder, subset = files.folder, files.subset
    names = subset.files(files.names, "zips", files.url)
    if len(names) != 1:
        raise DatasetError(f"{len(names)} zips of {files.url} match: name one")
    name = names[0]
    place = (folder / name).url
    entries = _directory(folder, name, place)
    tree = _ZipTree(folder, name, entries, files.options.files)
    found = classify(tree, place, files.options, subset, *find_root(tree, subset, place, files.options.files.noun))
    if found is None:
        kinds = files.options.files
        raise DatasetError(f"{place} has no {kinds.noun}s ({kinds.listed}){kinds.elsewhere(list(entries))}")
    chosen = tuple(tree.entry(name) for name in found.names)
    _check_readable(chosen, place)
    listed = zip(found.names, found.labels or found.names, [(entry.size, entry.crc) for entry in chosen], strict=True)
    return _ZipSource(place=place, listing=listing_digest(listed), entries=chosen, **found.fields())


def _directory(folder: Store, name: str, place: str) -> dict[str, _Entry]:
    """The visible files of a zip, by name. Raises DatasetError."""
    try:
        with folder.opened(name) as file, zipfile.ZipFile(file) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise DatasetError(f"{place} is not a zip, or a damaged one: {error}") from error
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {place}: {error.strerror or error}") from error
    entries = {}
    for info in found:
        name = plain_path(info.filename)
        if info.filename.endswith(("/", "\\")) or is_hidden(name):
            continue
        if info.flag_bits & _ENCRYPTED:
            raise DatasetError(f"{place} is encrypted ({name}): create it without a password")
        if name in entries:
            raise DatasetError(f"{place} has {name} twice")
        header = _HEADER.size + len(info.orig_filename.encode())
        place_of = (info.header_offset, header, info.compress_size, info.file_size, info.CRC, info.compress_type)
        entries[name] = _Entry(name, *place_of)
    return entries


def _check_readable(entries: tuple[_Entry, ...], place: str) -> None:
    for entry in (part for each in entries for part in each.parts or (each,)):
        if entry.method not in _METHODS:
            raise DatasetError(
                f"{place} compresses {entry.name} by method {entry.method}; stored and deflated members can be read"
            )


class _ZipTree:
    """The visible files and folders of a zip."""

    def __init__(self, store: Store, archive: str, members: dict[str, _Entry], files: FileKinds) -> None:
        self._store, self._archive, self._members = store, archive, members
        self._bundles: dict[str, _Entry] = {}
        self._folders = {"": Entries([], [], [])}
        for name in sorted(members):
            folder, _, _ = name.rpartition("/")
            parts = folder.split("/") if folder else []
            for depth in range(len(parts)):
                above, inside = "/".join(parts[:depth]), "/".join(parts[: depth + 1])
                if inside not in self._folders:
                    self._folders[inside] = Entries([], [], [])
                    self._folders[above].folders.append(inside)
            here = self._folders[folder]
            (here.pictures if files.is_record(name) else here.others).append(name)
        if files.parts:
            self._take_bundles(files)

    def _take_bundles(self, files: FileKinds) -> None:
        """Count the folders whose files together are one record as records."""
        for folder, (pictures, folders, others) in list(self._folders.items()):
            names = [*pictures, *others]
            if not folder or not files.is_bundle(names, folders, self.read):
                continue
            parts = tuple(self._members[name] for name in files.parts_of(names))
            size, crc = sum(part.size for part in parts), zlib.crc32(b"".join(b"%d " % part.crc for part in parts))
            self._bundles[folder] = _Entry(folder, 0, 0, 0, size, crc, zipfile.ZIP_STORED, parts)
            above = self._folders[folder.rpartition("/")[0]]
            above.folders.remove(folder)
            above.pictures.append(folder)

    def entry(self, name: str) -> _Entry:
        """A record."""
        return self._bundles.get(name) or self._members[name]

    def entries(self, folder: str) -> Entries:
        """The contents of a folder."""
        return self._folders.get(folder, Entries([], [], []))

    def read(self, name: str) -> bytes:
        """The bytes of a member. Raises DatasetError, StorageError."""
        try:
            return _read(self._store, self._archive, self._members[name])
        except (zlib.error, struct.error, zipfile.BadZipFile) as error:
            raise DatasetError(f"{self._store / self._archive}: {name} is damaged in the zip: {error}") from error


def _read(store: Store, archive: str, entry: _Entry) -> bytes:
    """The bytes of a member, checked against its CRC. Raises BadZipFile, zlib.error, struct.error, StorageError."""
    if entry.method == zipfile.ZIP_DEFLATED and entry.size > MAX_INFLATED:
        raise zipfile.BadZipFile(f"it inflates to {entry.size:,} bytes, and at most {MAX_INFLATED:,} are unpacked")
    guess = entry.offset + entry.header + _EXTRA_BYTES + entry.packed
    data = store.read_range(archive, entry.offset, guess)
    fields = _HEADER.unpack_from(data)
    if fields[0] != _SIGNATURE:
        raise zipfile.BadZipFile("its header is not where the directory says")
    start = _HEADER.size + fields[-2] + fields[-1]
    if len(data) < start + entry.packed:
        data += store.read_range(archive, guess, entry.offset + start + entry.packed)
    data = data[start : start + entry.packed]
    if entry.method == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry.size + 1)
    if len(data) != entry.size or zlib.crc32(data) != entry.crc:
        raise zipfile.BadZipFile("its CRC differs")
    return data
