"""Scans of shards: what each contributes to an index, and the index that they make together."""

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.conditions.rows import encode_rows
from imagegen_dist.conditions.tally import ConditionScan
from imagegen_dist.data.animated import ANIMATED, is_animated
from imagegen_dist.data.conditioned_shard import ConditionedShard
from imagegen_dist.data.deep_picture import is_deep
from imagegen_dist.data.index import DatasetError, DatasetIndex, ShardInfo, shard_names, why_no_index
from imagegen_dist.data.labels import Label, all_differ, in_order_of_classes, too_many
from imagegen_dist.data.modality import ARRAY, DecodeError, Modality, modality
from imagegen_dist.data.tarwalk import ReadAt, ShardError
from imagegen_dist.natural import natural_order
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted

_PART_BYTES = 1 << 20


class MixedSizesError(DatasetError, ShardError):
    """Samples of several sizes in one dataset."""


class ShardScan(NamedTuple):
    """What one shard contributes to an index. Shards can be scanned in parallel."""

    info: ShardInfo
    shape: SampleShape | None  # RGB if any sample is; None without samples
    labels: tuple[tuple[Label, int], ...] | None  # (label, number of samples); None without labels
    conditions: ConditionScan | None = None
    deep: bool = False  # all samples are grey PNGs of 16 bits; the shape says 8, with which they can be read too
    arrays: bool = False  # all samples are .npy
    runs: int = 0  # groups of neighbouring samples of one class; 0 without labels


def scan_shard(name: str, data: bytes, kind: Modality, labelled: bool = True) -> ShardScan:
    """Scan a shard in memory. Raises ShardError if it is damaged or its samples do not fit together."""
    return scan_file(name, lambda offset, length: data[offset : offset + length], len(data), kind, labelled)


def scan_file(
    name: str, read_at: ReadAt, size: int, kind: Modality, labelled: bool = True, member: str = "", still: bool = False
) -> ShardScan:
    """Read a whole shard once for its checksums and again for its samples, with at most one sample in memory.

    read_at: reads the shard's file; size: its bytes; labelled: False ignores its labels; member: as in DatasetIndex;
    still: refuse animations. Raises ShardError if it is damaged, and MixedSizesError, a subclass, if its samples differ
    in size.
    """
    crc32, sha256 = checksums(read_at, size)
    shard = ConditionedShard(read_at, size, name, (member,) if member else kind.extensions)
    shape: SampleShape | None = None
    labels, deep, arrays = [], len(shard) > 0, len(shard) > 0
    conditions = ConditionScan() if labelled and shard.has_conditions else None
    for row in range(len(shard)):
        try:
            data, extension = shard.picture(row)
            if still and is_animated(data):
                raise DecodeError(ANIMATED)
            found = kind.shape_of(data, extension)
        except DecodeError as error:
            raise ShardError(f"{name}: sample {shard.key(row)} {error}") from error
        common = common_shape(shape, found)
        if common is None:
            raise MixedSizesError(f"{name}: sample {shard.key(row)} is {found} where others are {shape}")
        shape = common
        deep, arrays = deep and is_deep(data), arrays and extension == ARRAY
        if conditions is not None:
            _add_condition(conditions, shard, row)
        else:
            labels.append(shard.label(row) if labelled else None)
    info = ShardInfo(name, size, len(shard), crc32, sha256)
    counts = _count_labels(labels, name)
    runs = 0 if counts is None else sum(1 for _ in groupby(labels))
    return ShardScan(info, shape, counts, conditions, deep, arrays, runs)


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

    Samples have 16 bits if all of them are grey PNGs of 16, or arrays of uint16. Pictures that are all arrays are read
    as such (`DatasetIndex.member`), channels first.

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
    if all(scan.deep for scan in filled):
        shape = replace(shape, bits=16)
    only_arrays = modality_name == "image" and all(scan.arrays for scan in filled)
    member = ARRAY if only_arrays else ""
    if any(scan.conditions is not None for scan in filled):
        total = _merged_conditions(filled)
        conditions = within or _conditions_of(total, kinds)
        rows = encode_rows(total.vectors(conditions))
        infos, own = tuple(scan.info for scan in seen), total.within(conditions)
        return DatasetIndex(modality_name, shape, infos, member=member, conditions=own, condition_rows=rows)
    names, counts = _classes(filled, None if classes is None else int(classes), class_names)
    infos = tuple(scan.info for scan in seen)
    return DatasetIndex(
        modality_name, shape, infos, None if counts is None else len(counts), names, None, counts, member
    )


def order_of_classes(scans: Iterable[ShardScan]) -> str:
    """That the samples follow one another by class, in one line; "" if they do not."""
    return in_order_of_classes((dict(scan.labels), scan.runs) for scan in scans if scan.labels)


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
        raise DatasetError(why_no_index(store))
    kind = modality(modality_name)
    return combine_scans((scan_shard(name, store.read(name), kind) for name in names), modality_name, None, class_names)


def common_shape(first: SampleShape | None, second: SampleShape) -> SampleShape | None:
    """The shape to which both can be decoded: RGB for grey and RGB. None if there is none, also for other bits."""
    if first is None or first == second:
        return second
    if (first.spatial, first.bits) != (second.spatial, second.bits) or {first.channels, second.channels} != {1, 3}:
        return None
    return SampleShape(3, first.spatial, first.bits)


def _count_labels(labels: list[Label | None], name: str) -> tuple[tuple[Label, int], ...] | None:
    """(label, samples) of a shard, sorted; None without labels. Raises ShardError if only some samples have labels."""
    known = [label for label in labels if label is not None]
    if known and len(known) != len(labels):
        raise ShardError(f"{name}: {len(labels) - len(known)} of {counted(len(labels), 'sample')} have no label")
    if len({type(label) for label in known}) > 1:
        some = next(label for label in known if isinstance(label, str))
        raise ShardError(f"{name}: labels are numbers and names ({some!r}): all must be of one kind")
    return tuple(sorted(Counter(known).items())) if known else None
