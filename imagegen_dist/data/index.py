"""The index of a dataset: `index.json` beside its shards.

It has the name, size, number of samples and checksums of every shard; the modality, shape and classes of the dataset;
and a fingerprint of all these, which checkpoints carry.
"""

import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.commands import command
from imagegen_dist.conditions.part import Conditions, Vector
from imagegen_dist.conditions.rows import ConditionRows, decode_rows, encode_rows
from imagegen_dist.conditions.tally import ConditionScan
from imagegen_dist.data.conditioned_shard import ConditionedShard
from imagegen_dist.data.labels import Label, all_differ, number_names, too_many
from imagegen_dist.data.modality import DecodeError, Modality, modality
from imagegen_dist.data.tarwalk import ReadAt, ShardError
from imagegen_dist.data.trust import UntrustedPlaceError, check_shards_place
from imagegen_dist.documents import parse_json
from imagegen_dist.natural import natural_order
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted

INDEX_NAME = "index.json"
_VERSION = 1

_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.lz4")
_PART_BYTES = 1 << 20
_LEAST_BYTES = 512  # of a sample: the header of its member
_NAMED = 5  # datasets below a folder that an error lists


class DatasetError(ValueError):
    """A dataset that cannot be used, in one line that names its URL."""


class MixedSizesError(DatasetError, ShardError):
    """Samples of several sizes in one dataset."""


@dataclass(frozen=True)
class ShardInfo:
    """What the index says about one shard."""

    name: str  # file name below the dataset's URL
    bytes: int  # size of the file
    samples: int
    crc32: int
    sha256: str  # hexadecimal


@dataclass(frozen=True)
class DatasetIndex:
    """What a dataset holds. Raises DatasetError if the fields contradict each other."""

    modality: str  # image, video or voxels
    shape: SampleShape  # of every sample
    shards: tuple[ShardInfo, ...]
    classes: int | None = None  # labels are 0 .. classes - 1; None without labels
    class_names: tuple[str, ...] | None = None
    shards_url: str | None = None  # where the shards are; None if beside the index
    class_counts: tuple[int, ...] | None = None  # samples of each class; None if unknown, as in older indexes
    member: str = ""  # extension of the members to read, if samples have several pictures
    conditions: Conditions | None = None  # named conditions, which take the place of classes
    condition_rows: str = ""  # conditions of some samples, as conditions.rows.encode_rows gives them

    def __post_init__(self) -> None:
        if len(self.shape.spatial) != len(modality(self.modality).axes):
            raise DatasetError(f"samples of {self.modality} cannot have the spatial shape {self.shape.spatial}")
        if self.classes is not None and self.classes < 1:
            raise DatasetError(f"classes is {self.classes}; it must be at least 1, or null for no labels")
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise DatasetError(
                f"{counted(len(self.class_names), 'class name')} for {counted(self.classes or 0, 'class')}"
            )
        if self.class_counts is not None and len(self.class_counts) != self.classes:
            raise DatasetError(
                f"{counted(len(self.class_counts), 'class count')} for {counted(self.classes or 0, 'class')}"
            )
        if len({shard.name for shard in self.shards}) != len(self.shards):
            raise DatasetError("a shard is listed twice")
        if self.conditions is not None and self.classes is not None:
            raise DatasetError("it has both classes and conditions")
        if self.conditions is not None:
            _ = self.known_conditions
        if self.samples < 1:
            raise DatasetError("it has no samples")
        if self.member and self.member.rpartition(".")[2] not in modality(self.modality).extensions:
            raise DatasetError(f"member is {self.member[:80]!r}, which is not an extension of {self.modality} samples")

    @property
    def extensions(self) -> tuple[str, ...]:
        """Extensions of the members that hold the samples."""
        return (self.member,) if self.member else modality(self.modality).extensions

    def location(self, store: Store) -> Store:
        """The folder of the shards of an index that was read from `store`."""
        return store if self.shards_url is None else Store(self.shards_url)

    def told_as(self, known: ConditionRows | None) -> "DatasetIndex":
        """The same samples with their conditions as vectors of another dataset's, with its names, means and deviations.

        known: of the other dataset; None changes nothing. Raises DatasetError if they differ in more.
        """
        if known is None:
            return self
        if differing := known.conditions.differing(self.conditions):
            raise DatasetError(differing)
        return replace(self, conditions=known.conditions, condition_rows=encode_rows(known.rows))

    @property
    def labels(self) -> Conditions | int | None:
        """What samples are labelled with: conditions, one of so many classes, or nothing."""
        return self.classes if self.conditions is None else self.conditions

    def describe_labels(self, names: int = 0) -> str:
        """What samples are labelled with, in words. names: of classes that are listed, at most."""
        if self.conditions is not None:
            return f"{counted(len(self.conditions.parts), 'condition')}: {self.conditions.describe()}"
        if not self.classes:
            return "no labels"
        listed = (self.class_names or ())[:names]
        more = ", ..." if self.classes > len(listed) else ""
        return counted(self.classes, "class") + (f" ({', '.join(listed)}{more})" if listed else "")

    @property
    def label_dims(self) -> tuple[int, ...]:
        """Shape of a sample's label: (K,) for conditions, else ()."""
        return () if self.conditions is None else (self.conditions.width,)

    def encode_label(self, found: Label | dict[str, Any] | None) -> int | Vector:
        """A sample's label as networks take it: the number of its class, or its condition as a vector, float32 [K].

        Raises ValueError, which describes it, for a label that the index does not have.
        """
        if self.conditions is not None:
            return self.conditions.encode(found if isinstance(found, dict) else {})
        label = self.class_numbers.get(found, found) if isinstance(found, str) else found
        if not isinstance(label, int) or label >= (self.classes or 0):
            raise ValueError(f"{label}, of {counted(self.classes or 0, 'class')}")
        return label

    @cached_property
    def known_conditions(self) -> ConditionRows | None:
        """The parts of conditions, and the conditions of some samples, evenly spaced; None without conditions."""
        if self.conditions is None:
            return None
        try:
            return ConditionRows(self.conditions, decode_rows(self.condition_rows, self.conditions.width))
        except ValueError as error:
            raise DatasetError(str(error)) from error

    @cached_property
    def distinct_classes(self) -> int:
        """Number of classes that the labels distinguish; 0 without labels, and if all samples are of one class."""
        several = self.class_counts is None or sum(count > 0 for count in self.class_counts) > 1
        return self.classes or 0 if several and (self.classes or 0) > 1 else 0

    @property
    def tells(self) -> bool:
        """True if labels tell samples apart: conditions, or two or more classes that have samples."""
        return self.conditions is not None or bool(self.distinct_classes)

    @cached_property
    def class_numbers(self) -> dict[str, int]:
        """The number of each class by its name; {} if classes have no names."""
        return number_names(self.class_names or ())

    @cached_property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Number of samples in each shard, [S]."""
        return np.array([shard.samples for shard in self.shards], dtype=np.int64)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """The id of each shard's first sample, followed by the number of samples, [S + 1]."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical JSON of the content: equal for equal datasets, wherever they are."""
        text = json.dumps(self._payload(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, store: Store) -> None:
        """Write `index.json` to a dataset's folder. Raises StorageError."""
        place = {} if self.shards_url is None else {"shards_url": self.shards_url}
        # The counts follow from the shards; the fingerprint excludes them, so that those of older indexes stay valid.
        counts = {} if self.class_counts is None else {"class_counts": list(self.class_counts)}
        payload = {**self._payload(), **counts, **place, "fingerprint": self.fingerprint}
        store.write(INDEX_NAME, (json.dumps(payload, indent=1) + "\n").encode())

    @classmethod
    def load(cls, store: Store, remote_shards: bool = False) -> "DatasetIndex":
        """Read a dataset's index.

        remote_shards: whether the index may name shards that are neither below nor beside it. Raises DatasetError for
        such shards if it may not, and if there is no such folder, no shard, no index or a corrupt one; StorageError.
        """
        try:
            text = store.read(INDEX_NAME)
        except FileNotFoundError:
            raise DatasetError(_why_no_index(store)) from None
        try:
            index = _from_payload(parse_json(text, checked=False))
            if index.shards_url is not None:
                check_shards_place(store, index.shards_url, remote_shards)
        except UntrustedPlaceError as error:
            raise DatasetError(f"{store / INDEX_NAME}: {error}") from error
        except RecursionError as error:
            raise DatasetError(f"{store / INDEX_NAME} is corrupt: it is nested too deeply") from error
        except ValueError as error:
            raise DatasetError(f"{store / INDEX_NAME} is corrupt: {error}") from error
        return index

    def _payload(self) -> dict[str, Any]:
        """Everything that the fingerprint covers. Shards are not copied, which would take most of a load's time."""
        return {
            "version": _VERSION,
            "modality": self.modality,
            "channels": self.shape.channels,
            "spatial": list(self.shape.spatial),
            "classes": self.classes,
            "class_names": None if self.class_names is None else list(self.class_names),
            "shards": [vars(shard) for shard in self.shards],
            **({"member": self.member} if self.member else {}),
            **({} if self.known_conditions is None else self.known_conditions.payload()),
        }


class ShardScan(NamedTuple):
    """What one shard contributes to an index. Shards can be scanned in parallel."""

    info: ShardInfo
    shape: SampleShape | None  # RGB if any sample is; None without samples
    labels: tuple[tuple[Label, int], ...] | None  # (label, number of samples); None without labels
    conditions: ConditionScan | None = None


def scan_shard(name: str, data: bytes, kind: Modality, labelled: bool = True) -> ShardScan:
    """Scan a shard in memory. Raises ShardError if it is damaged or its samples do not fit together."""
    return scan_file(name, lambda offset, length: data[offset : offset + length], len(data), kind, labelled)


def scan_file(
    name: str, read_at: ReadAt, size: int, kind: Modality, labelled: bool = True, member: str = ""
) -> ShardScan:
    """Read a whole shard once for its checksums and again for its samples, with at most one sample in memory.

    read_at: reads the shard's file; size: its bytes; labelled: False ignores its labels; member: as in DatasetIndex.
    Raises ShardError if it is damaged, and MixedSizesError, a subclass, if its samples differ in size.
    """
    crc32, sha256 = checksums(read_at, size)
    shard = ConditionedShard(read_at, size, name, (member,) if member else kind.extensions)
    shape: SampleShape | None = None
    labels = []
    conditions = ConditionScan() if labelled and shard.has_conditions else None
    for row in range(len(shard)):
        try:
            found = kind.shape_of(*shard.picture(row))
        except DecodeError as error:
            raise ShardError(f"{name}: sample {shard.key(row)} {error}") from error
        common = common_shape(shape, found)
        if common is None:
            raise MixedSizesError(f"{name}: sample {shard.key(row)} is {found} where others are {shape}")
        shape = common
        if conditions is not None:
            _add_condition(conditions, shard, row)
        else:
            labels.append(shard.label(row) if labelled else None)
    info = ShardInfo(name, size, len(shard), crc32, sha256)
    return ShardScan(info, shape, _count_labels(labels, name), conditions)


def checksums(read_at: ReadAt, size: int) -> tuple[int, str]:
    """(CRC-32, SHA-256 in hexadecimal) of a file."""
    crc32, sha256 = 0, hashlib.sha256()
    for offset in range(0, size, _PART_BYTES):
        part = read_at(offset, min(_PART_BYTES, size - offset))
        crc32 = zlib.crc32(part, crc32)
        sha256.update(part)
    return crc32, sha256.hexdigest()


def combine_scans(
    scans: Iterable[ShardScan],
    modality_name: str,
    classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
    kinds: Mapping[str, str] | None = None,
    within: Conditions | None = None,
) -> DatasetIndex:
    """The index of scanned shards, in their order; the first shard that does not fit the earlier ones is an error.

    classes: None takes one more than the largest label, or the number of names. Labels that are names are numbered in
    the order of class_names, or else in their natural order. kinds: of parts of conditions, by name, that are not what
    their values suggest (`conditions.tally.REQUESTED_KINDS`). within: conditions of a larger dataset, whose names,
    means and deviations this one takes. Raises DatasetError if only some samples have labels, if some labels are
    numbers and others names, if a label is too large or its name is not in class_names, if labels cannot be classes
    (`too_many`, `all_differ`), and for conditions that do not fit together or cannot be of these kinds;
    MixedSizesError, a subclass, if the shards' shapes differ.
    """
    seen: list[ShardScan] = []
    shape: SampleShape | None = None
    for scan in scans:
        seen.append(scan)
        if scan.shape is None:
            continue
        common = common_shape(shape, scan.shape)
        if common is None:
            raise MixedSizesError(f"{scan.info.name} is {scan.shape} where others are {shape}")
        shape = common
    if shape is None:
        raise DatasetError("the shards have no samples")
    filled = [scan for scan in seen if scan.shape is not None]
    if any(scan.conditions is not None for scan in filled):
        total = _merged_conditions(filled)
        conditions = within or _conditions_of(total, kinds)
        rows = encode_rows(total.vectors(conditions))
        infos, own = tuple(scan.info for scan in seen), total.within(conditions)
        return DatasetIndex(modality_name, shape, infos, conditions=own, condition_rows=rows)
    names, counts = _classes(filled, None if classes is None else int(classes), class_names)
    infos = tuple(scan.info for scan in seen)
    return DatasetIndex(modality_name, shape, infos, None if counts is None else len(counts), names, None, counts)


def common_conditions(scans: Iterable[ShardScan], kinds: Mapping[str, str] | None = None) -> Conditions | None:
    """The conditions of all samples of several datasets; None without conditions. Arguments as for `combine_scans`.

    Raises DatasetError if they do not fit together or cannot be of these kinds.
    """
    filled = [scan for scan in scans if scan.shape is not None]
    return _conditions_of(_merged_conditions(filled), kinds) if any(scan.conditions for scan in filled) else None


def _merged_conditions(filled: list[ShardScan]) -> ConditionScan:
    """The conditions of all samples. Raises DatasetError."""
    total = ConditionScan()
    for scan in filled:
        if scan.conditions is None:
            with_them = next(each.info.name for each in filled if each.conditions is not None)
            raise DatasetError(f"{scan.info.name} has no conditions, but {with_them} has")
        try:
            total.merge(scan.conditions)
        except ValueError as error:
            raise DatasetError(f"{scan.info.name}: {error}") from error
    return total


def _conditions_of(scan: ConditionScan, kinds: Mapping[str, str] | None) -> Conditions:
    """The parts of conditions of these kinds. Raises DatasetError."""
    if unknown := [name for name in kinds or () if name not in scan.tallies]:
        raise DatasetError(f"there is no condition {unknown[0]}; there are {', '.join(scan.tallies)}")
    try:
        return scan.conditions(kinds)
    except ValueError as error:
        raise DatasetError(str(error)) from error


def _add_condition(conditions: ConditionScan, shard: ConditionedShard, row: int) -> None:
    """Add a sample's condition. Raises ShardError."""
    try:
        conditions.add(shard.condition(row))
    except ShardError:
        raise
    except ValueError as error:
        raise ShardError(f"{shard.name}: the condition of {shard.key(row)} {error}") from error


def _classes(
    scans: list[ShardScan], classes: int | None, names: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, tuple[int, ...] | None]:
    """(names of the classes, samples of each class), checked against the labels of every shard; None without labels."""
    labelled = [scan for scan in scans if scan.labels is not None]
    if not labelled:
        if classes is not None or names is not None:
            raise DatasetError(f"classes is {classes or len(names or ())}, but the samples have no labels")
        return None, None
    if len(labelled) < len(scans):
        without = next(scan.info.name for scan in scans if scan.labels is None)
        raise DatasetError(f"{without} has no labels, but other shards have")
    samples = sum(scan.info.samples for scan in labelled)
    total = Counter[Label]()
    for scan in labelled:
        total.update(dict(scan.labels or ()))
    _check_kinds(labelled)
    if isinstance(next(iter(total)), str):
        if names is None:
            names = tuple(natural_order(map(str, total)))
            if complaint := all_differ(len(names), samples):
                raise DatasetError(complaint)
        _check_known(labelled, names)
        return names, tuple(total[name] for name in names)
    largest = max(label for label in total if isinstance(label, int))
    if classes is None:
        classes = largest + 1 if names is None else len(names)
        if names is None and (complaint := too_many(classes, samples)):
            raise DatasetError(complaint)
    if largest >= classes:
        name = next(scan.info.name for scan in labelled if largest in dict(scan.labels or ()))
        raise DatasetError(f"{name} has label {largest}, but classes is {classes}")
    return names, tuple(total[number] for number in range(classes))


def _check_kinds(scans: list[ShardScan]) -> None:
    """Raise DatasetError if labels are numbers in one shard and names in another."""
    of_kind = {type(label): scan.info.name for scan in scans for label, _ in scan.labels or ()}
    if len(of_kind) > 1:
        raise DatasetError(f"labels are numbers in {of_kind[int]} and names in {of_kind[str]}: all must be of one kind")


def _check_known(scans: list[ShardScan], names: tuple[str, ...]) -> None:
    """Raise DatasetError for a label that is not the name of a class."""
    known = set(names)
    for scan in scans:
        for label, _ in scan.labels or ():
            if label not in known:
                raise DatasetError(
                    f"{scan.info.name} has the label {label!r}, which is none of the {counted(len(names), 'name')}"
                )


def build_index(store: Store, modality_name: str = "image", class_names: tuple[str, ...] | None = None) -> DatasetIndex:
    """Read all shards in a folder and return their index, which is not saved.

    Raises DatasetError, ShardError, StorageError.
    """
    names = shard_names(store)
    if not names:
        raise DatasetError(_why_no_index(store))
    kind = modality(modality_name)
    return combine_scans((scan_shard(name, store.read(name), kind) for name in names), modality_name, None, class_names)


def shard_names(store: Store) -> list[str]:
    """Sorted names of the shards in a folder, without hidden files."""
    return [name for name in store.names() if name.endswith(".tar") and not name.startswith(".")]


def compressed_shards(names: Iterable[str]) -> list[str]:
    """The file names that are those of compressed tars."""
    return [name for name in names if name.lower().endswith(_COMPRESSED) and not name.startswith(".")]


def compressed_line(place: str, names: list[str]) -> str:
    """An error line that says how to unpack compressed shards."""
    first = names[0]
    tool = "gunzip" if first.lower().endswith("gz") else "a decompressor of its kind, e.g. zstd -d"
    return (
        f"{place}/{first} is a compressed tar{f', and {len(names) - 1:,} more are' if len(names) > 1 else ''}: samples "
        f"are read in place, for which a shard must be a plain .tar; unpack it with {tool}"
    )


def common_shape(first: SampleShape | None, second: SampleShape) -> SampleShape | None:
    """The shape to which both can be decoded: RGB for grey and RGB. None if there is none."""
    if first is None or first == second:
        return second
    if first.spatial != second.spatial or {first.channels, second.channels} != {1, 3}:
        return None
    return SampleShape(3, first.spatial)


def _count_labels(labels: list[Label | None], name: str) -> tuple[tuple[Label, int], ...] | None:
    """(label, samples) of a shard, sorted; None without labels. Raises ShardError if only some samples have labels."""
    known = [label for label in labels if label is not None]
    if known and len(known) != len(labels):
        raise ShardError(f"{name}: {len(labels) - len(known)} of {counted(len(labels), 'sample')} have no label")
    if len({type(label) for label in known}) > 1:
        some = next(label for label in known if isinstance(label, str))
        raise ShardError(f"{name}: labels are numbers and names ({some!r}): all must be of one kind")
    return tuple(sorted(Counter(known).items())) if known else None


def _why_no_index(store: Store) -> str:
    shards = shard_names(store)
    if not shards and (compressed := compressed_shards(store.names())):
        return compressed_line(store.url, compressed)
    if shards:
        return (
            f"{store} has {counted(len(shards), 'shard')} but no {INDEX_NAME}: "
            f"write it with `{command('index_shards', store)}`"
        )
    below = [name for name, is_folder in store.entries().items() if is_folder and store.exists(f"{name}/{INDEX_NAME}")]
    if below:
        some = ", ".join(below[:_NAMED])
        return f"{store} has no shards (*.tar); datasets lie below it ({some}): give one, e.g. {store / below[0]}"
    if store.exists():
        return f"{store} has no shards (*.tar)"
    return f"{store} does not exist"


def _from_payload(payload: Any) -> DatasetIndex:
    """The index in parsed JSON. Raises ValueError with what is wrong."""
    if not isinstance(payload, dict):
        raise ValueError("it is not a JSON object")
    if payload.get("version") != _VERSION:
        raise ValueError(f"version is {payload.get('version')!r}; this program reads {_VERSION}")
    spatial = _take(payload, "spatial", list)
    if not all(type(extent) is int for extent in spatial):
        raise ValueError(f"spatial is {spatial!r}; whole numbers are needed")
    names = _take(payload, "class_names", list, type(None))
    index = DatasetIndex(
        _take(payload, "modality", str),
        SampleShape(_take(payload, "channels", int), tuple(spatial)),
        tuple(_shard_info(number, shard) for number, shard in enumerate(_take(payload, "shards", list))),
        _take(payload, "classes", int, type(None)),
        None if names is None else tuple(str(name) for name in names),
        _take(payload, "shards_url", str) if "shards_url" in payload else None,
        _class_counts(payload),
        _take(payload, "member", str) if "member" in payload else "",
        Conditions.from_payload(payload["conditions"]) if "conditions" in payload else None,
        _take(payload, "condition_rows", str) if "condition_rows" in payload else "",
    )
    if payload.get("fingerprint") != index.fingerprint:
        raise ValueError("its fingerprint does not match its content; it was edited or damaged")
    return index


def _class_counts(payload: dict[str, Any]) -> tuple[int, ...] | None:
    """The samples of each class; None if the index does not state them."""
    if "class_counts" not in payload:
        return None
    counts = _take(payload, "class_counts", list)
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("class_counts must be whole numbers from 0")
    return tuple(counts)


def _shard_info(number: int, shard: Any) -> ShardInfo:
    if not isinstance(shard, dict):
        raise ValueError(f"shards[{number}] is not an object")
    try:
        info = ShardInfo(
            _take(shard, "name", str),
            _take(shard, "bytes", int),
            _take(shard, "samples", int),
            _take(shard, "crc32", int),
            _take(shard, "sha256", str),
        )
    except ValueError as error:
        raise ValueError(f"shards[{number}]: {error}") from error
    if not re.fullmatch(r"[0-9a-f]{64}", info.sha256):
        raise ValueError(f"shards[{number}]: sha256 is {info.sha256[:80]!r}, which is not 64 hexadecimal digits")
    if not _is_name(info.name):
        raise ValueError(
            f"shards[{number}]: name is {info.name[:80]!r}, which is not the name of a file below the folder"
        )
    if info.bytes < 0 or info.samples < 0:
        raise ValueError(f"shards[{number}] has a negative size")
    if info.samples * _LEAST_BYTES > info.bytes or not 0 <= info.crc32 < 1 << 32:
        raise ValueError(
            f"shards[{number}]: {info.bytes} bytes and CRC {info.crc32} do not fit {counted(info.samples, 'sample')}"
        )
    return info


def _is_name(name: str) -> bool:
    """True for a relative path without empty, '.' and '..' parts and without control characters."""
    return set(name.split("/")).isdisjoint(("", ".", "..")) and min(map(ord, name)) >= 32


def _take(payload: dict[str, Any], name: str, *kinds: type) -> Any:
    """A field whose value has one of the types; a bool is not an int."""
    if name not in payload:
        raise ValueError(f"{name} is missing")
    if type(payload[name]) not in kinds:
        raise ValueError(f"{name} is {payload[name]!r}, which is not of type {kinds[0].__name__}")
    return payload[name]
