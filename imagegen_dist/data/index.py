"""The index of a dataset: `index.json` beside its shards.

It has the name, size, number of samples and checksums of every shard; the modality, shape and classes of the dataset;
and a fingerprint of all these, which checkpoints carry.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.commands import command
from imagegen_dist.conditions.part import Conditions, Vector
from imagegen_dist.conditions.rows import ConditionRows, decode_rows, encode_rows
from imagegen_dist.data.labels import Label, number_names
from imagegen_dist.data.modality import modality
from imagegen_dist.data.trust import UntrustedPlaceError, check_shards_place
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.documents import parse_json
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted

INDEX_NAME = "index.json"
_VERSION = 1

_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.lz4")
_LEAST_BYTES = 512  # of a sample: the header of its member
_NAMED = 5  # datasets below a folder that an error lists


class DatasetError(ValueError):
    """A dataset that cannot be used, in one line that names its URL."""


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
    space: VolumeSpace | None = None  # what levels and voxels of volumes stand for

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
            raise DatasetError(why_no_index(store)) from None
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
            **({"bits": self.shape.bits} if self.shape.bits != 8 else {}),
            "classes": self.classes,
            "class_names": None if self.class_names is None else list(self.class_names),
            "shards": [vars(shard) for shard in self.shards],
            **({"member": self.member} if self.member else {}),
            **({"space": self.space.payload()} if self.space is not None else {}),
            **({} if self.known_conditions is None else self.known_conditions.payload()),
        }


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


def why_no_index(store: Store) -> str:
    """An error line about a folder that holds no index."""
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
    bits = _take(payload, "bits", int) if "bits" in payload else 8
    names = _take(payload, "class_names", list, type(None))
    index = DatasetIndex(
        _take(payload, "modality", str),
        SampleShape(_take(payload, "channels", int), tuple(spatial), bits),
        tuple(_shard_info(number, shard) for number, shard in enumerate(_take(payload, "shards", list))),
        _take(payload, "classes", int, type(None)),
        None if names is None else tuple(str(name) for name in names),
        _take(payload, "shards_url", str) if "shards_url" in payload else None,
        _class_counts(payload),
        _take(payload, "member", str) if "member" in payload else "",
        Conditions.from_payload(payload["conditions"]) if "conditions" in payload else None,
        _take(payload, "condition_rows", str) if "condition_rows" in payload else "",
        VolumeSpace.from_payload(payload["space"]) if "space" in payload else None,
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
