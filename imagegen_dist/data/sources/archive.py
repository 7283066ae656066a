"""A zip of pictures, read in place: its directory once, then each picture by one ranged read."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from imagegen_dist.data.index import DatasetError
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
from imagegen_dist.storage import StorageError, Store

_HEADER = struct.Struct("<4s5H3I2H")  # local file header (PKWARE APPNOTE 6.3.10, 4.3.7)
_SIGNATURE = b"PK\3\4"
_EXTRA_BYTES = 64  # room for the local header's extra field, which the directory does not tell: usually less
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _Entry(NamedTuple):
    """Where a member lies."""

    name: str
    offset: int  # of its header
    header: int  # bytes of that, as the directory tells
    packed: int  # bytes
    size: int
    crc: int
    method: int


@dataclass(frozen=True)
class ZipSource(Source):
    """The pictures of a zip."""

    entries: tuple[_Entry, ...] = ()

    def select(self, rows: IntArray) -> Records:
        """The records of those numbers."""
        parent, _, name = self.place.rpartition("/")
        labels = None if self.labels is None else tuple(self.labels[rows].tolist())
        return _Members(Store(parent), name, tuple(self.entries[row] for row in rows.tolist()), labels)


@dataclass(frozen=True)
class _Members(Records):
    store: Store
    archive: str
    entries: tuple[_Entry, ...]
    labels: tuple[int, ...] | None

    def read(self) -> Iterator[Record]:
        labels = self.labels or (None,) * len(self.entries)
        yield from each_ahead(self._read_one, zip(self.entries, labels, strict=True), self.store)

    def _read_one(self, labelled: tuple[_Entry, int | None]) -> Record:
        entry, label = labelled
        try:
            return Record(entry.name, label, _read(self.store, self.archive, entry))
        except (zlib.error, struct.error, zipfile.BadZipFile) as error:
            return Record(entry.name, label, b"", f"is damaged in the zip: {error}")


def open_zip(folder: Store, name: str) -> ZipSource:
    """The pictures in a zip, labelled by its dataset.json, or by the folders in it as those on a disk are.

    One folder around all others is passed over. Raises DatasetError where the file is no zip or has no pictures, where
    it is encrypted or compressed in an unusual way, and where labels and pictures do not fit; StorageError.
    """
    place = (folder / name).url
    entries = _directory(folder, name, place)
    top = _wrapping(list(entries))
    entries = {name.removeprefix(top): entry for name, entry in entries.items()}
    if LABELS_NAME in entries:
        found: Classified | None = by_labels_file(_read(folder, name, entries[LABELS_NAME]), entries, place)
    else:
        tree = _tree(entries)
        found = by_folders(lambda inside: tree.get(inside, Entries([], [], [])), place)
    if found is None:
        raise DatasetError(f"{place} has no pictures ({' '.join(EXTENSIONS)})")
    chosen = tuple(entries[name] for name in found.names)
    _check_readable(chosen, place)
    labels = None if found.labels is None else np.array(found.labels, dtype=np.int64)
    listed = zip(found.names, found.labels or found.names, [(entry.size, entry.crc) for entry in chosen], strict=True)
    return ZipSource(
        place=place,
        count=len(chosen),
        listing=listing_digest(listed),
        mixes=True,
        labels=labels,
        classes=None if labels is None else int(labels.max()) + 1,
        class_names=found.class_names,
        left_out=found.left_out,
        entries=chosen,
    )


def _directory(folder: Store, name: str, place: str) -> dict[str, _Entry]:
    """The visible files of a zip by name. Raises DatasetError."""
    try:
        with folder.opened(name) as file, zipfile.ZipFile(file) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise DatasetError(f"{place} is no zip, or a damaged one: {error}") from error
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {place}: {error.strerror or error}") from error
    entries = {}
    for info in found:
        if info.is_dir() or is_hidden(info.filename):
            continue
        if info.flag_bits & _ENCRYPTED:
            raise DatasetError(f"{place} is encrypted ({info.filename}): make one without a password")
        if info.filename in entries:
            raise DatasetError(f"{place} has {info.filename} twice")
        header = _HEADER.size + len(info.orig_filename.encode())
        place_of = (info.header_offset, header, info.compress_size, info.file_size, info.CRC, info.compress_type)
        entries[info.filename] = _Entry(info.filename, *place_of)
    return entries


def _check_readable(entries: tuple[_Entry, ...], place: str) -> None:
    for entry in entries:
        if entry.method not in _METHODS:
            raise DatasetError(
                f"{place} compresses {entry.name} by method {entry.method}; stored and deflated members can be read"
            )


def _wrapping(names: list[str]) -> str:
    """`pictures/` where the zip holds nothing but that folder, with folders or a dataset.json in it; else ""."""
    tops = {name.partition("/")[0] for name in names}
    if len(tops) != 1 or not all("/" in name for name in names):
        return ""
    top = tops.pop() + "/"
    inside = [name.removeprefix(top) for name in names]
    return top if LABELS_NAME in inside or any("/" in name for name in inside) else ""


def _tree(names: dict[str, _Entry]) -> dict[str, Entries]:
    """What lies in each folder."""
    tree: dict[str, Entries] = {"": Entries([], [], [])}
    for name in sorted(names):
        folder, _, _ = name.rpartition("/")
        parts = folder.split("/") if folder else []
        for depth in range(len(parts)):
            above, inside = "/".join(parts[:depth]), "/".join(parts[: depth + 1])
            if inside not in tree:
                tree[inside] = Entries([], [], [])
                tree[above].folders.append(inside)
        (tree[folder].pictures if is_picture(name) else tree[folder].others).append(name)
    return tree


def _read(store: Store, archive: str, entry: _Entry) -> bytes:
    """A member's bytes, checked against its CRC. Raises BadZipFile, zlib.error, struct.error, StorageError."""
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
