"""Reading shards that are there, side by side: to index them, and to check them against their index.

A task reads one shard, in parts: in place on the local disk, else from a copy that it fetches, so that shards of any
size can be read. A task needs the memory of a sample, and the disk of a shard.
"""

from __future__ import annotations

import dataclasses
import io
import os
import random
import sys
import textwrap
import time
from collections.abc import Iterator, Set
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import IO, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.commands import command
from imagegen_dist.data.index import (
    INDEX_NAME,
    DatasetError,
    DatasetIndex,
    MixedSizesError,
    ShardInfo,
    ShardScan,
    checksums,
    combine_scans,
    common_shape,
    compressed_line,
    compressed_shards,
    scan_file,
    shard_names,
)
from imagegen_dist.data.modality import DecodeError, modality
from imagegen_dist.data.shard import Shard, group
from imagegen_dist.data.sources.subsets import Subset, split_of
from imagegen_dist.data.sources.tar_classes import CLASS_NAMES, Survey, class_names_beside, classes_of_tars, survey
from imagegen_dist.data.tarwalk import ReadAt, ShardError, walk
from imagegen_dist.metrics.formatting import count
from imagegen_dist.ray.tasks import run_tasks
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import AccessError, StorageError, Store, check_temporary_room, temporary_file, unusable_line
from imagegen_dist.wording import counted

_MODALITY = "image"
_LISTED_AT_MOST = 20  # shards up to which the good ones have a line as well
_ALONE_BYTES = 2 << 30  # which one process has read before Ray has started
_ATTEMPTS = 10
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0
_STALL_S = 15.0


def index_shards(
    shards: Store,
    index_at: Store,
    parallel: bool = True,
    subset: str = "",
    labelled: bool = True,
    member: str = "",
) -> DatasetIndex:
    """Read all shards in a folder, and write index.json beside them or in another folder, for which it says where.

    The classes are named where classes.txt lies beside the shards, a line for each label.
    parallel: by Ray tasks where there is much to read. subset: the split to index where shards of several lie side by
    side. labelled: False passes their labels over. member: extension of the pictures in samples that have several.
    Raises DatasetError where there is no shard, a damaged one, an index
    already, where samples do not fit together, and where names of tars or folders in them are the only labels, which no
    index can keep; StorageError.
    """
    chosen = Subset(subset)
    names = chosen.files(_check_places(shards, index_at), "shards", shards.url)
    chosen.check_used(shards.url)
    class_names = class_names_beside(shards) if labelled else None
    if labelled:
        _check_no_tar_classes(shards, names, member)
    try:
        parallel = parallel and _worth_tasks(shards, len(names) * shards.size(names[0]))
        work = run_tasks(_scan, [_Unread(shards, name, labelled, member) for name in names], parallel)
        with ProgressBar("reading shards") as bar, closing(work) as results:
            scans = (scan for _, scan in bar.track(results, len(names)))
            index = combine_scans(scans, _MODALITY, None, class_names)
    except FileNotFoundError as error:
        raise DatasetError(str(error)) from error
    except MixedSizesError as error:
        again = command("make_shards", shards, "DEST", "--size", "64x64")
        raise DatasetError(f"{shards}: {error}; pack them again in one size: `{again}`") from error
    except ShardError as error:
        raise DatasetError(f"{shards}: {error}") from error
    except DatasetError as error:
        named = "" if class_names is None else f" ({CLASS_NAMES} names {counted(len(class_names), 'class')})"
        raise DatasetError(f"{shards}: {error}{named}") from error
    in_order = tuple(sorted(index.shards, key=lambda shard: shard.name))
    place = None if index_at == shards else shards.url
    index = dataclasses.replace(index, shards=in_order, shards_url=place, member=member)
    index.save(index_at)
    return index


def check_dataset(store: Store, parallel: bool = True, remote_shards: bool = False) -> CheckReport:
    """Hold every shard of a dataset against its index: bytes, checksums, samples, their shapes and labels.

    parallel: by Ray tasks where there is much to read. remote_shards: as for DatasetIndex.load. Pictures are checked by
    their headers. Raises DatasetError where there is no index or a corrupt one, StorageError where its shards cannot be
    listed.
    """
    index = DatasetIndex.load(store, remote_shards)
    place = index.location(store)
    present = [*shard_names(place), *place.listing().unusable]
    kinds = index.modality, index.shape, index.classes, index.class_names, index.member
    pieces = [_Expected(place, info, *kinds) for info in index.shards]
    parallel = parallel and _worth_tasks(place, sum(info.bytes for info in index.shards))
    with ProgressBar("checking shards") as bar:
        found = dict(bar.track(run_tasks(_check, pieces, parallel), len(pieces)))
    listed = [CheckedShard(info.name, info, found[number]) for number, info in enumerate(index.shards)]
    listed_names = {info.name for info in index.shards}
    unlisted = sorted(name for name in set(present) - listed_names if not _of_another_split(name, listed_names))
    return CheckReport((*listed, *(CheckedShard(name, None, ("is not in the index",)) for name in unlisted)))


@dataclass(frozen=True)
class CheckedShard:
    """One shard and what is wrong with it."""

    name: str
    info: ShardInfo | None  # as the index says; None where it has no such shard
    findings: tuple[str, ...]  # a line each; empty: good


@dataclass(frozen=True)
class CheckReport:
    """What a check found: the shards of the index in its order, then those that it does not list."""

    shards: tuple[CheckedShard, ...]

    @property
    def damaged(self) -> int:
        """Shards with a finding."""
        return sum(bool(shard.findings) for shard in self.shards)

    def table(self, width: int) -> str:
        """Plain text of at most `width` columns: a line for each shard, or, of many, for those with a finding; totals.

        A finding that is too long for its line goes on below.
        """
        few = len(self.shards) <= _LISTED_AT_MOST
        shown = [shard for shard in self.shards if few or shard.findings]
        return "\n".join([*(_lines(shown, width) if shown else ()), *textwrap.wrap(self._totals(), width)])

    def _totals(self) -> str:
        listed = [shard.info for shard in self.shards if shard.info]
        good = [shard.info for shard in self.shards if shard.info and not shard.findings]
        samples, good_samples = (sum(info.samples for info in infos) for infos in (listed, good))
        size, good_size = (sum(info.bytes for info in infos) for infos in (listed, good))
        parts = [f"{len(good):,} of {len(listed):,} shard{'s' * (len(listed) != 1)} good"]
        if len(good) == len(listed):
            parts += [f"{counted(samples, 'sample')}", f"{count(size)}B"]
        else:
            parts += [f"{good_samples:,} of {counted(samples, 'sample')}", f"{count(good_size)}B of {count(size)}B"]
        if len(listed) < len(self.shards):
            parts.append(f"{len(self.shards) - len(listed):,} not in the index")
        return ", ".join(parts)


class _Unread(NamedTuple):
    """A shard of which nothing is known."""

    store: Store
    name: str
    labelled: bool
    member: str = ""


class _Expected(NamedTuple):
    """A shard and what its index says."""

    store: Store
    info: ShardInfo
    modality: str
    shape: SampleShape
    classes: int | None
    class_names: tuple[str, ...] | None = None
    member: str = ""

    @property
    def extensions(self) -> tuple[str, ...]:
        """Of the members that hold the samples."""
        return (self.member,) if self.member else modality(self.modality).extensions


class _KeyedShard(Shard):
    """A shard that keeps its samples' names once it is asked for one: of many findings each would be another walk."""

    @cached_property
    def _keys(self) -> list[str]:
        return [members[0].key for members in group(walk(self._read_at, self._size, self.name).members, self.name)]

    def key(self, row: int) -> str:
        return self._keys[row]


def _check_places(shards: Store, index_at: Store) -> list[str]:
    """The shards' names. Raises DatasetError, StorageError."""
    if index_at.exists(INDEX_NAME):
        raise DatasetError(f"{index_at} has an {INDEX_NAME} already: remove it to make a new one")
    names = shard_names(shards)
    if line := unusable_line(shards.listing().unusable):
        print(line, file=sys.stderr)
    if not names:
        if compressed := compressed_shards(shards.names()):
            raise DatasetError(compressed_line(shards.url, compressed))
        raise DatasetError(f"{shards} has no shards (*.tar)" if shards.exists() else f"{shards} does not exist")
    if index_at != shards and shard_names(index_at):
        raise DatasetError(f"{index_at} has shards of its own: choose another folder for the index of {shards}")
    try:
        index_at.probe()
    except StorageError as error:
        if index_at != shards:
            raise
        raise DatasetError(f"{error}; --index-at URL keeps the index in another folder") from error
    return names


def _of_another_split(name: str, listed: Set[str]) -> bool:
    """True for a shard beside those of an index of one split alone, where its name says that it is of another one."""
    splits = {found.name if (found := split_of(each)) else "" for each in listed}
    here = split_of(name)
    return here is not None and len(splits) == 1 and here.name not in splits and "" not in splits


def _check_no_tar_classes(shards: Store, names: list[str], member: str) -> None:
    """Raises DatasetError where classes are told by the names of tars or of folders in them, by the first and last."""
    some, surveys = list(dict.fromkeys((names[0], names[-1]))), list[Survey]()
    for name in some:
        try:
            with _opened(shards, name) as (read_at, size):
                surveys.append(survey(read_at, size, name, (member,) if member else modality(_MODALITY).extensions))
        except (ShardError, FileNotFoundError):  # of which the scan that follows says more
            return
        if not surveys[-1].plain:  # it has labels, captions or records
            return
    if told := classes_of_tars(some, surveys, shards.url):
        shown = ", ".join(told[1][:2])
        raise DatasetError(
            f"{shards}: the shards have no labels, but their names or folders tell classes ({shown}): pack them with "
            f"`{command('make_shards', shards, 'DEST')}`, which keeps these, or index without labels by --labels none"
        )


def _worth_tasks(shards: Store, size: int) -> bool:
    """Whether tasks can read the shards and are done sooner."""
    return shards.protocol != "memory" and size > _ALONE_BYTES


def _scan(piece: _Unread) -> ShardScan:
    with _opened(piece.store, piece.name) as (read_at, size):
        return scan_file(piece.name, read_at, size, modality(_MODALITY), piece.labelled, piece.member)


def _check(piece: _Expected) -> tuple[str, ...]:
    """What is wrong with a shard. One that came with other bytes is fetched again: they may have changed on the way."""
    findings, altered = _findings(piece)
    if altered and piece.store.protocol != "file":
        findings, _ = _findings(piece)
    return findings


def _findings(piece: _Expected) -> tuple[tuple[str, ...], bool]:
    """(what is wrong with a shard, whether its bytes are others than the index says)."""
    try:
        with _opened(piece.store, piece.info.name) as (read_at, size):
            altered = _alteration(piece.info, read_at, size)
            return (*altered, *_of_samples(piece, read_at, size)), bool(altered)
    except FileNotFoundError:
        return ("is missing",), False
    except StorageError as error:
        return (str(error),), False


def _alteration(info: ShardInfo, read_at: ReadAt, size: int) -> tuple[str, ...]:
    """How a file's bytes differ from the index; of size, SHA-256 and CRC-32 the first that differs says it all."""
    if size != info.bytes:
        return (f"has {size:,} bytes, but the index says {info.bytes:,}",)
    crc32, sha256 = checksums(read_at, size)
    if sha256 != info.sha256:
        return (f"has other bytes: SHA-256 {sha256[:8]}..., but the index says {info.sha256[:8]}...",)
    if crc32 != info.crc32:
        return (f"has the CRC-32 {crc32:08x}, but the index says {info.crc32:08x}",)
    return ()


def _of_samples(piece: _Expected, read_at: ReadAt, size: int) -> Iterator[str]:
    """What is wrong with a shard's samples: a line for each kind of fault, with the number of them and the first."""
    name = piece.info.name
    try:
        shard = _KeyedShard(read_at, size, name, piece.extensions)
    except ShardError as error:
        yield str(error).removeprefix(name).removeprefix(":").strip()
        return
    if len(shard) != piece.info.samples:
        yield f"holds {counted(len(shard), 'sample')}, but the index says {piece.info.samples:,}"
    for fault, of_sample in (("a bad picture", _picture_fault), ("a bad label", _label_fault)):
        faults = (of_sample(piece, shard, row) for row in range(len(shard)))
        wrong = [line for line in faults if line]
        if wrong:
            yield (
                wrong[0] if len(wrong) == 1 else f"{counted(len(wrong), 'sample')} have {fault}, the first: {wrong[0]}"
            )


def _picture_fault(piece: _Expected, shard: Shard, row: int) -> str:
    """What is wrong with a sample's picture by its header, or an empty text."""
    try:
        member, extension = shard.picture(row)
        found = modality(piece.modality).shape_of(member, extension)
    except (DecodeError, ShardError) as error:
        return f"sample {shard.key(row)} {error}"
    if common_shape(piece.shape, found) == piece.shape:
        return ""
    if piece.shape.channels == 4 and found.spatial == piece.shape.spatial and not extension.endswith("npy"):
        return ""  # RGBA: a header's shape does not count transparency
    return f"sample {shard.key(row)} is {found}, but the index says {piece.shape}"


def _label_fault(piece: _Expected, shard: Shard, row: int) -> str:
    """What is wrong with a sample's label, or an empty text."""
    if piece.classes is None:
        return ""
    try:
        label = shard.label(row)
    except ShardError as error:
        return str(error).removeprefix(f"{shard.name}: ")
    if label is None:
        return f"sample {shard.key(row)} has no label"
    if isinstance(label, str):
        known = label in (piece.class_names or ())
        return "" if known else f"sample {shard.key(row)} has the label {label!r}, which is none of the classes' names"
    if label >= piece.classes:
        return f"sample {shard.key(row)} has label {label}, but there are {counted(piece.classes, 'class')}"
    return ""


@contextmanager
def _opened(store: Store, name: str) -> Iterator[tuple[ReadAt, int]]:
    """(reader, bytes) of a shard: in place on the local disk, else of a copy that is gone after the block.

    Raises FileNotFoundError, StorageError.
    """
    file: IO[bytes]
    with ExitStack() as stack:
        if store.protocol == "file":
            file = stack.enter_context(store.opened(name))
        else:
            file = stack.enter_context(temporary_file())
            _fetch(store, name, file)
        try:
            yield partial(_read_at, file.fileno()), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise StorageError(f"cannot read {store / name}: {error.strerror or error}") from error


def _fetch(store: Store, name: str, file: IO[bytes]) -> None:
    """Copy a shard into an open file; what may be a transient fault is tried again. Raises as Store does."""
    size = store.size(name)
    check_temporary_room(size)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            store.download(name, f"/dev/fd/{file.fileno()}", stall_s=_STALL_S)
            came = os.fstat(file.fileno()).st_size
            if came == size:
                return
            file.seek(0)
            file.truncate()
            raise StorageError(f"cannot read {store / name}: {came:,} of {size:,} bytes came")
        except StorageError as error:
            if attempt == _ATTEMPTS or isinstance(error, AccessError):
                raise
            time.sleep(random.uniform(0.5, 1) * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1)))


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    return os.pread(descriptor, length, offset)


def _lines(shards: list[CheckedShard], width: int) -> list[str]:
    """A table of shards with a heading."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    table.add_column("shard", overflow="fold")
    table.add_column("samples", justify="right", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("found", overflow="fold")
    for shard in shards:
        sizes = ("", "") if shard.info is None else (f"{shard.info.samples:,}", f"{shard.info.bytes:,}")
        found = "\n".join(map(_printable, shard.findings)) or "good"
        table.add_row(Text(_printable(shard.name)), *sizes, Text(found))
    drawn = io.StringIO()
    Console(file=drawn, width=width, color_system=None, force_terminal=False).print(table)
    return [line.rstrip() for line in drawn.getvalue().splitlines()]


def _printable(text: str) -> str:
    """Text without what a terminal obeys: the names in a shard are another's."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
