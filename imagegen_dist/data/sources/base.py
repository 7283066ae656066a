"""The interface of all sources of pictures, and the registry by which a new kind of source is added.

A source lists its records and hands out some of them as `Records`, which can be pickled and read in any process.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from imagegen_dist import extensions
from imagegen_dist.conditions.part import Conditions
from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.condition_table import ConditionTable
from imagegen_dist.data.sources.files import PICTURE_FILES, FileKinds
from imagegen_dist.data.sources.subsets import Subset
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.storage import Store

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_INFLATED = 128 << 20
"""Bytes above which a compressed picture is not unpacked: pictures hardly compress, so it would be a bomb."""

_AHEAD_BYTES = 512 << 20  # memory for the results of requests that are under way
_READERS = 16  # simultaneous requests to remote storage, which spend most of their time waiting


class UnfitError(DatasetError):
    """Pictures or labels that do not fit together: other flags or another source are needed."""


class Record(NamedTuple):
    """One picture, or sample of another modality, as it is stored."""

    name: str  # shown to the user
    label: int | None
    data: bytes  # content of its file, or of the files of a folder (`sources.files.split_parts`)
    problem: str = ""  # why there is no content
    condition: Mapping[str, Any] | None = None  # by part; {"class": ...} holds the label as well, if there is one


class Records(ABC):
    """Some records of a source, in order: a value that can be pickled and read in any process."""

    @abstractmethod
    def read(self) -> Iterator[Record]:
        """Read the records one after another. Raises DatasetError, ShardError, StorageError."""


@dataclass(frozen=True)
class Source(ABC):
    """The records of a place, listed and not yet read.

    labels: of every record, [N], if the listing states them; classes: None if only reading states them, or without
    labels. mixes: True if the records can be taken in an order that mixes the classes; False if they are taken in the
    order in which they are stored, because another order would cost a request for each. listing: SHA-256 of everything
    that was listed.
    """

    place: str  # URL
    count: int  # number of records
    listing: str
    mixes: bool
    labels: IntArray | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    known: Conditions | None = None  # the parts of its records' conditions, if they are known before reading
    left_out: tuple[str, ...] = ()  # visible files whose extension is not one of a picture
    notes: tuple[str, ...] = ()  # lines for the user about how the files were interpreted
    conditions: ConditionTable | None = None  # of every record, if the listing states some; `open_source` adds them
    parts: tuple[str, ...] = ()  # names of the parts of the conditions that the records have when they are read
    space: VolumeSpace | None = None  # what levels and voxels of its volumes stand for, if they are samples already

    @property
    def is_folder(self) -> bool:
        """True if the records are the files at any depth of the folder `place`."""
        return False

    def name_of(self, row: int) -> str:
        """The name of a record, equal to the one that it has when it is read."""
        return next(iter(self.select(np.array([row])).read())).name

    @abstractmethod
    def select(self, rows: IntArray) -> Records:
        """The records with these numbers, which are ascending unless the source mixes."""


@dataclass(frozen=True)
class SourceOptions:
    """Which pictures and labels to take from a source."""

    subset: str = ""
    """Split to take where several are side by side: train, val, test or dev; "all" takes everything as one dataset."""
    labelled: bool = True
    """False ignores all labels."""
    image_column: str = ""
    """Column of the pictures' bytes in parquet files; "" for the only column of bytes."""
    label_column: str = ""
    """Column of the labels in parquet files and tables; "" for one of LABEL_NAMES."""
    member: str = ""
    """Extension of the pictures in shards whose samples have several, e.g. "depth.png"; "" for the only picture."""
    remote_shards: bool = False
    """Whether an index may name shards that are neither below nor beside it."""
    attributes: str = ""
    """Table with the condition of each picture of a folder or zip, as a path or URL: csv, tsv, jsonl or parquet."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """The parts of conditions to take, and the kind of each, "" for what its values suggest; {} takes all parts."""
    folders: str = ""
    """Names of the parts that the levels of a tree of folders give, from the top: style/digit; - skips a level."""
    files: FileKinds = PICTURE_FILES
    """The files that hold samples of the modality."""

    def __post_init__(self) -> None:
        asked = {"--attributes": self.attributes, "--conditions": self.conditions, "--folders": self.folders}
        if not self.labelled and (flag := next((flag for flag, value in asked.items() if value), None)):
            raise ValueError(f"--labels none with {flag}: conditions are labels; give one of the two")


class SourceFiles(NamedTuple):
    """What the opener of a source is given."""

    url: str  # of the folder that holds the files; for a protocol, what the user gave
    names: list[str]  # of the files in the folder; [] for a protocol
    options: SourceOptions
    subset: Subset  # chooses the files of the requested split: `subset.files(names, "archives", url)`

    @property
    def folder(self) -> Store:
        """The folder that holds the files."""
        return Store(self.url)


Opener = Callable[[SourceFiles], Source]
_AnyOpener = TypeVar("_AnyOpener", bound=Opener)


class SourceKind(NamedTuple):
    """A registered kind of source."""

    open: Opener
    accepts: tuple[str, ...]  # which of image_column, label_column, member, attributes and folders it follows
    in_folders: bool  # whether a folder that holds such files is this source


SOURCE_KINDS: dict[str, SourceKind] = {}
"""All registered kinds, by file extension such as ".zip" or by protocol such as "lmdb://"."""


def register_source(
    kind: str, accepts: tuple[str, ...] = (), in_folders: bool = True
) -> Callable[[_AnyOpener], _AnyOpener]:
    """Register the function that opens a kind of source.

    A source of your own is one file in a package of yours:

        @dataclass(frozen=True)
        class ArrayRecords(Records):
            url: str
            rows: tuple[int, ...]

            def read(self):
                pictures = load(self.url)
                for row in self.rows:
                    yield Record(f"picture {row}", label=None, data=pictures[row])   # bytes of a PNG, JPEG, ...

        @dataclass(frozen=True)
        class ArraySource(Source):
            def select(self, rows):
                return ArrayRecords(self.place, tuple(rows.tolist()))

        @register_source(".arrays")
        def open_arrays(files):
            (name,) = files.subset.files(files.names, "arrays", files.url)
            url = (files.folder / name).url
            return ArraySource(place=url, count=len(load(url)), listing=listing_digest([url]), mixes=False)

    `pack_dataset("pictures.arrays", ...)` then reads it, and `my_package.my_module:pictures.arrays` names it on the
    command line, where the module is imported first. Tasks on other machines import it as well.

    kind: the extension of its files (".arrays": a file, a pattern of files or a folder that holds such files), or a
    protocol ("lmdb://": every URL that begins with it). accepts: which of `image_column`, `label_column`, `member`,
    `attributes` and `folders` it follows; the others are refused. The last two need names of records that are paths.
    in_folders: False if files must be named, and a folder of them is not a source.
    """

    def register(opener: _AnyOpener) -> _AnyOpener:
        SOURCE_KINDS[kind] = SourceKind(opener, accepts, in_folders)
        extensions.record(opener.__module__)
        return opener

    return register


def listing_digest(listed: Iterable[Any]) -> str:
    """SHA-256 of what was listed, a sequence of JSON values."""
    digest = hashlib.sha256()
    for each in listed:
        digest.update(json.dumps(each, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def intervals(offsets: tuple[int, ...], rows: IntArray) -> Iterator[tuple[int, slice, IntArray]]:
    """(number of an interval, where its rows are in `rows`, these relative to its start), of ascending rows.

    Intervals lie between consecutive offsets; those without rows are left out.
    """
    for at in np.unique(np.searchsorted(offsets, rows, side="right") - 1).tolist():
        low, high = np.searchsorted(rows, offsets[at : at + 2]).tolist()
        yield at, slice(low, high), rows[low:high] - offsets[at]


def each_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], store: Store, largest: int = 0
) -> Iterator[Result]:
    """Yield the function of each item, in order; on remote storage several calls run at the same time.

    largest: bytes of the largest result, if known; fewer calls run at the same time if they would fill the memory.
    """
    if store.protocol in ("file", "memory"):
        yield from map(function, items)
        return
    readers = max(1, min(_READERS, _AHEAD_BYTES // (2 * max(1, largest))))
    with ThreadPoolExecutor(readers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * readers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
