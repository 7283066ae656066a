"""Index shards that others wrote, and check a dataset's shards against its index; one task a shard.

A task reads its shard in parts, on the local disk in place and else from a copy that it fetches, so that shards of any
size can be read. It needs memory for one sample, and disk space for one shard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import tee
from typing import NamedTuple

from imagegen_dist.commands import command
from imagegen_dist.conditions.part import Conditions
from imagegen_dist.data.conditioned_shard import ConditionedShard
from imagegen_dist.data.detection import modality_of_shard
from imagegen_dist.data.index import (
    INDEX_NAME,
    DatasetError,
    DatasetIndex,
    ShardInfo,
    compressed_line,
    compressed_shards,
    shard_names,
)
from imagegen_dist.data.labels import empty_classes
from imagegen_dist.data.modality import DecodeError, Modality, modality
from imagegen_dist.data.scanning import (
    MixedSizesError,
    ShardScan,
    checksums,
    combine_scans,
    common_shape,
    order_of_classes,
    scan_file,
)
from imagegen_dist.data.shard import Shard, group
from imagegen_dist.data.shard_file import opened
from imagegen_dist.data.sources.subsets import Subset, split_of
from imagegen_dist.data.sources.tar_classes import CLASS_NAMES, Survey, class_names_beside, classes_of_tars, survey
from imagegen_dist.data.tarwalk import ReadAt, ShardError, walk
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import StorageError, Store, unusable_line
from imagegen_dist.tasks import Progress, Result, ShowProgress, TaskRunner, no_progress, run_in_process
from imagegen_dist.wording import counted

_ALONE_BYTES = 2 << 30  # which one process reads before tasks have started


def index_shards(
    shards: Store,
    index_at: Store | None = None,
    subset: str = "",
    labelled: bool = True,
    member: str = "",
    kinds: Mapping[str, str] | None = None,
    modality_name: str = "",
    *,
    run_tasks: TaskRunner | None = None,
    progress: ShowProgress = no_progress,
    tell: Callable[[str], None] = print,
) -> DatasetIndex:
    """Read all shards in a folder and write their index.json.

    A file classes.txt beside the shards names the classes, one line for each label.

    index_at: folder for the index, if it is not to be written beside the shards. subset: the split to index if shards
    of several are side by side. labelled: False ignores their labels. member: extension of the pictures in samples that
    have several. kinds: of parts of conditions, as in `combine_scans`. modality_name: of the samples; "" detects it
    where the first sample tells. run_tasks: reads large datasets in parallel;
    None uses this process. tell: takes lines for the user.

    Raises DatasetError if there is no shard, a damaged one or an index already, if samples do not fit together, and if
    only the names of tars or of folders in them are labels, which an index cannot hold; StorageError.
    """
    index_at = index_at or shards
    chosen = Subset(subset)
    names = chosen.files(_check_places(shards, index_at, tell), "shards", shards.url)
    chosen.check_used(shards.url)
    class_names = class_names_beside(shards) if labelled else None
    kind = modality(modality_name or _detect(shards, names[0], member))
    if labelled:
        _check_no_tar_classes(shards, names, (member,) if member else kind.extensions)
    with _errors_named(shards, kind, class_names):
        size = 0 if run_tasks is None else len(names) * shards.size(names[0])
        run = _runner(run_tasks, shards, size)
        pieces = [
            _Unread(shards, name, labelled, member, kind.name, kind.name == "image" != modality_name) for name in names
        ]
        with progress("reading shards") as shown, closing(run(_scan, pieces)) as results:
            scans, seen = tee(scan for _, scan in _counted(results, len(names), shown, "reading shards"))
            index = combine_scans(scans, kind.name, None, class_names, kinds)
    order = order_of_classes(seen)
    in_order = tuple(sorted(index.shards, key=lambda shard: shard.name))
    place = None if index_at == shards else shards.url
    index = dataclasses.replace(index, shards=in_order, shards_url=place, member=member or index.member)
    index.save(index_at)
    again = command("make_shards", shards, "DEST", "--relabel")
    if line := empty_classes([index.class_counts], index.class_names, f"packing them again with `{again}`"):
        tell(line)
    if order:
        tell(order)
    return index


@contextmanager
def _errors_named(shards: Store, kind: Modality, class_names: Sequence[str] | None) -> Iterator[None]:
    """Errors of reading all shards as DatasetErrors that name the folder, and what helps. kind: of the samples."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(str(error)) from error
    except MixedSizesError as error:
        flags = () if kind.name == "image" else ("--modality", kind.name)
        again = command("make_shards", shards, "DEST", *flags, "--size", kind.example_size)
        raise DatasetError(f"{shards}: {error}; pack them again in one size: `{again}`") from error
    except ShardError as error:
        raise DatasetError(f"{shards}: {error}") from error
    except DatasetError as error:
        named = "" if class_names is None else f" ({CLASS_NAMES} names {counted(len(class_names), 'class')})"
        raise DatasetError(f"{shards}: {error}{named}") from error


def check_dataset(
    store: Store,
    remote_shards: bool = False,
    *,
    run_tasks: TaskRunner | None = None,
    progress: ShowProgress = no_progress,
) -> CheckReport:
    """Compare every shard of a dataset with its index: bytes, checksums, and the samples' number, shapes and labels.

    Pictures are checked by their headers. remote_shards: whether the index may name shards that are neither below nor
    beside it. run_tasks: reads large datasets in parallel; None uses this process. Raises DatasetError if there is no
    index or a corrupt one, StorageError if its shards cannot be listed.
    """
    index = DatasetIndex.load(store, remote_shards)
    place = index.location(store)
    present = [*shard_names(place), *place.listing().unusable]
    kinds = index.modality, index.shape, index.classes, index.class_names, index.member, index.conditions
    pieces = [_Expected(place, info, *kinds) for info in index.shards]
    run = _runner(run_tasks, place, sum(info.bytes for info in index.shards))
    with progress("checking shards") as shown, closing(run(_check, pieces)) as results:
        found = dict(_counted(results, len(pieces), shown, "checking shards"))
    listed = [CheckedShard(info.name, info, found[number]) for number, info in enumerate(index.shards)]
    listed_names = {info.name for info in index.shards}
    unlisted = sorted(name for name in set(present) - listed_names if not _is_other_split(name, listed_names))
    return CheckReport((*listed, *(CheckedShard(name, None, ("is not in the index",)) for name in unlisted)))


@dataclass(frozen=True)
class CheckedShard:
    """One shard and what is wrong with it."""

    name: str
    info: ShardInfo | None  # what the index says; None if it does not list the shard
    findings: tuple[str, ...]  # one line each; empty if the shard is good


@dataclass(frozen=True)
class CheckReport:
    """The result of a check: the shards of the index in their order, then those that it does not list."""

    shards: tuple[CheckedShard, ...]

    @property
    def damaged(self) -> int:
        """Number of shards with a finding."""
        return sum(bool(shard.findings) for shard in self.shards)


class _Unread(NamedTuple):
    """A shard to index."""

    store: Store
    name: str
    labelled: bool
    member: str = ""
    modality: str = "image"
    still: bool = False  # refuse animations, since nobody has said that they are pictures


class _Expected(NamedTuple):
    """A shard to check, and what its index says."""

    store: Store
    info: ShardInfo
    modality: str
    shape: SampleShape
    classes: int | None
    class_names: tuple[str, ...] | None = None
    member: str = ""
    conditions: Conditions | None = None

    @property
    def extensions(self) -> tuple[str, ...]:
        """Extensions of the members that hold the samples."""
        return (self.member,) if self.member else modality(self.modality).extensions


class _KeyedShard(ConditionedShard):
    """A shard that caches the names of its samples: many findings would otherwise walk the headers again for each."""

    @cached_property
    def _keys(self) -> list[str]:
        return [members[0].key for members in group(walk(self._read_at, self._size, self.name).members, self.name)]

    def key(self, row: int) -> str:
        return self._keys[row]


def _check_places(shards: Store, index_at: Store, tell: Callable[[str], None]) -> list[str]:
    """The names of the shards. Raises DatasetError, StorageError."""
    if index_at.exists(INDEX_NAME):
        raise DatasetError(f"{index_at} has an {INDEX_NAME} already: remove it to make a new one")
    names = shard_names(shards)
    if line := unusable_line(shards.listing().unusable):
        tell(line)
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


def _is_other_split(name: str, listed: Set[str]) -> bool:
    """True if the listed shards are all of one split by their names, and this one is of another."""
    splits = {found.name if (found := split_of(each)) else "" for each in listed}
    here = split_of(name)
    return here is not None and len(splits) == 1 and here.name not in splits and "" not in splits


def _detect(shards: Store, name: str, member: str) -> str:
    """The modality of the first shard's first sample. Raises DatasetError."""
    try:
        with opened(shards, name) as (read_at, size):
            return modality_of_shard(read_at, size, name, shards, member)
    except FileNotFoundError as error:
        raise DatasetError(str(error)) from error


def _check_no_tar_classes(shards: Store, names: list[str], extensions: Sequence[str]) -> None:
    """Raise DatasetError if the names of the first and last tar, or of folders in them, are their only classes."""
    some, surveys = list(dict.fromkeys((names[0], names[-1]))), list[Survey]()
    for name in some:
        try:
            with opened(shards, name) as (read_at, size):
                surveys.append(survey(read_at, size, name, extensions))
        except (ShardError, FileNotFoundError):  # the scan that follows reports them
            return
        if not surveys[-1].plain:  # it has labels, captions or records
            return
    if told := classes_of_tars(some, surveys, shards.url):
        shown = ", ".join(told[1][:2])
        raise DatasetError(
            f"{shards}: the shards have no labels, but their names or folders tell classes ({shown}): pack them with "
            f"`{command('make_shards', shards, 'DEST')}`, which keeps these, or index without labels by --labels none"
        )


def _runner(run_tasks: TaskRunner | None, shards: Store, size: int) -> TaskRunner:
    """Tasks, if they can read the shards and finish sooner than this process."""
    parallel = shards.protocol != "memory" and size > _ALONE_BYTES
    return run_tasks if parallel and run_tasks is not None else run_in_process


def _counted(results: Iterable[Result], total: int, shown: Progress, activity: str) -> Iterator[Result]:
    """Yield the results and show their number."""
    shown.start(total, 0, activity)
    for result in results:
        shown.advance(1)
        yield result


def _scan(piece: _Unread) -> ShardScan:
    with opened(piece.store, piece.name) as (read_at, size):
        return scan_file(piece.name, read_at, size, modality(piece.modality), piece.labelled, piece.member, piece.still)


def _check(piece: _Expected) -> tuple[str, ...]:
    """What is wrong with a shard. One with other bytes is fetched again, since they may have changed on the way."""
    findings, altered = _findings(piece)
    if altered and piece.store.protocol != "file":
        findings, _ = _findings(piece)
    return findings


def _findings(piece: _Expected) -> tuple[tuple[str, ...], bool]:
    """(what is wrong with a shard, whether its bytes differ from the index)."""
    try:
        with opened(piece.store, piece.info.name) as (read_at, size):
            altered = _alteration(piece.info, read_at, size)
            return (*altered, *_of_samples(piece, read_at, size)), bool(altered)
    except FileNotFoundError:
        return ("is missing",), False
    except StorageError as error:
        return (str(error),), False


def _alteration(info: ShardInfo, read_at: ReadAt, size: int) -> tuple[str, ...]:
    """How a file's bytes differ from the index: the first difference of size, SHA-256 and CRC-32."""
    if size != info.bytes:
        return (f"has {counted(size, 'byte')}, but the index says {info.bytes:,}",)
    crc32, sha256 = checksums(read_at, size)
    if sha256 != info.sha256:
        return (f"has other bytes: SHA-256 {sha256[:8]}..., but the index says {info.sha256[:8]}...",)
    if crc32 != info.crc32:
        return (f"has the CRC-32 {crc32:08x}, but the index says {info.crc32:08x}",)
    return ()


def _of_samples(piece: _Expected, read_at: ReadAt, size: int) -> Iterator[str]:
    """What is wrong with a shard's samples: one line for each kind of fault, with their number and the first one."""
    name = piece.info.name
    try:
        shard = _KeyedShard(read_at, size, name, piece.extensions)
    except ShardError as error:
        yield str(error).removeprefix(name).removeprefix(":").strip()
        return
    if len(shard) != piece.info.samples:
        yield f"holds {counted(len(shard), 'sample')}, but the index says {piece.info.samples:,}"
    for fault, of_sample in ((f"a bad {modality(piece.modality).noun}", _picture_fault), ("a bad label", _label_fault)):
        faults = (of_sample(piece, shard, row) for row in range(len(shard)))
        wrong = [line for line in faults if line]
        if wrong:
            yield (
                wrong[0] if len(wrong) == 1 else f"{counted(len(wrong), 'sample')} have {fault}, the first: {wrong[0]}"
            )


def _picture_fault(piece: _Expected, shard: Shard, row: int) -> str:
    """What is wrong with a sample's picture by its header; "" if nothing."""
    try:
        member, extension = shard.picture(row)
        found = modality(piece.modality).shape_of(member, extension)
    except (DecodeError, ShardError) as error:
        return f"sample {shard.key(row)} {error}"
    if common_shape(piece.shape, found) == piece.shape:
        return ""
    if found.spatial == piece.shape.spatial and not extension.endswith("npy"):
        told = SampleShape(4 if piece.shape.channels == 4 else found.channels, found.spatial, piece.shape.bits)
        if common_shape(piece.shape, told) == piece.shape:
            return ""  # a header's shape counts neither transparency nor 16 bits
    return f"sample {shard.key(row)} is {found}, but the index says {piece.shape}"


def _label_fault(piece: _Expected, shard: ConditionedShard, row: int) -> str:
    """What is wrong with a sample's label; "" if nothing."""
    if piece.conditions is not None:
        return _condition_fault(piece.conditions, shard, row)
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


def _condition_fault(conditions: Conditions, shard: ConditionedShard, row: int) -> str:
    """What is wrong with a sample's condition; "" if nothing."""
    try:
        conditions.encode(shard.condition(row))
    except ShardError as error:
        return str(error).removeprefix(f"{shard.name}: ")
    except ValueError as error:
        return f"sample {shard.key(row)}: {error}"
    return ""
