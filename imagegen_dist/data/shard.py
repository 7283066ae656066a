"""The samples of one shard: its members grouped by key, and the bytes of each sample's picture and label."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.labels import Label, json_label, parse_label
from imagegen_dist.data.tarwalk import Member, ReadAt, ShardError, walk
from imagegen_dist.wording import counted

TAR_OFFSETS = np.dtype(
    [
        *(("picture", "<i8"), ("picture_bytes", "<u4"), ("picture_kind", "i1")),
        *(("label", "<i8"), ("label_bytes", "<u4"), ("label_kind", "i1")),
    ]
)
"""Offset, size and extension of a sample's picture and label in the shard's file; kind -1 means no label."""

ReadRow = Callable[[int, memoryview], tuple[Label | None] | None]
"""(row, out) -> (label of the sample,), or None if it is not an array of the dataset's shape.

It writes the sample's values to `out`, which is overwritten in either case. It raises ShardError for a label that
cannot be read.
"""

_LABELS = ("cls", "json")  # a sample's label is in the first of these members that it has
_NOWHERE = (0, 0, -1)
NEAR = 4096  # bytes between a picture and its label that take less time to read than a second read
_SHOWN = 7


class Shard:
    """The position of every sample in a shard, and the sample's bytes.

    read_at: reads the shard's file; size: its bytes; name: for errors; extensions: of the members that hold the sample.
    samples: number of samples in the index; None while the index is being built, when the end mark is required.
    offsets: TAR_OFFSETS of all samples, [n], if they are known; otherwise the headers of the file are walked.
    descriptor: of the file, if it is open.
    Raises ShardError if the shard is damaged, if a key occurs twice or interleaved with another, if a sample has no
    such member or several, and if the number of samples differs.
    """

    layout = TAR_OFFSETS
    """Type of `offsets`."""

    def __init__(
        self,
        read_at: ReadAt,
        size: int,
        name: str,
        extensions: Sequence[str],
        samples: int | None = None,
        offsets: NDArray[np.void] | None = None,
        descriptor: int = -1,
    ) -> None:
        self.name, self.descriptor = name, descriptor
        self.read_array: ReadRow | None = None  # once data.arrays has found that all samples are such arrays
        self._read_at, self._size, self._extensions = read_at, size, tuple(extensions)
        self.offsets = self._find_offsets(samples) if offsets is None else offsets

    def _find_offsets(self, samples: int | None) -> NDArray[np.void]:
        name = self.name
        members, ended = walk(self._read_at, self._size, name)
        groups = group(members, name)
        if samples is None and not ended:
            raise ShardError(
                f"{name} has no end mark after {counted(len(groups), 'sample')}: it is cut, or its writer was "
                "not closed"
            )
        if samples is not None and len(groups) != samples:
            raise ShardError(f"{name} holds {counted(len(groups), 'sample')}, but its index says {samples}")
        kinds = {extension: number for number, extension in enumerate(self._extensions)}
        fields = self.layout.names or ()
        entries = np.array([self._entry(members, kinds) for members in groups], np.int64).reshape(-1, len(fields))
        offsets = np.empty(len(groups), self.layout)
        for column, field in enumerate(fields):
            offsets[field] = entries[:, column]
        return offsets

    def __len__(self) -> int:
        return len(self.offsets)

    @cached_property
    def columns(self) -> tuple[memoryview, ...]:
        """The columns of `offsets`, whose items are quick to read."""
        fields = [self.offsets[name] for name in self.offsets.dtype.names or ()]
        return tuple(field.astype(field.dtype.newbyteorder("=")).data for field in fields)  # copied: aligned

    @cached_property
    def uniform(self) -> tuple[int, int] | None:
        """(bytes, kind) of a sample where all samples have the same; None where they differ or there are none."""
        sizes, kinds = self.offsets["picture_bytes"], self.offsets["picture_kind"]
        if not len(self) or (sizes != sizes[0]).any() or (kinds != kinds[0]).any():
            return None
        return int(sizes[0]), int(kinds[0])

    def picture(self, row: int) -> tuple[bytes, str]:
        """(encoded bytes, extension) of a sample. Raises ShardError if the file has become shorter."""
        start, size, kind = self.columns[:3]
        return self._read(start[row], size[row]), self._extensions[kind[row]]

    def label(self, row: int) -> Label | None:
        """A sample's class: the number or name in `.cls`, or under one of LABEL_NAMES in `.json`; None without either.

        Raises ShardError for a label that is neither a whole number from 0 nor a name.
        """
        *_, offset, size, kind = self.offsets[row].item()
        return None if kind < 0 else self.parse_label(row, self._read(offset, size), kind)

    def sample(self, row: int) -> tuple[bytes, str, Label | dict[str, Any] | None]:
        """`picture` and `label` (in ConditionedShard: `condition`) of a sample, by a single read if they are close."""
        at, size, kind, label_at, label_size, label_kind = [column[row] for column in self.columns]
        start, end = min(at, label_at), max(at + size, label_at + label_size)
        if label_kind < 0 or end - start > size + label_size + NEAR:
            return *self.picture(row), self.label(row)
        data = self._read(start, end - start)
        text = data[label_at - start : label_at - start + label_size]
        return data[at - start : at - start + size], self._extensions[kind], self.parse_label(row, text, label_kind)

    def parse_label(self, row: int, text: bytes, kind: int) -> Label | None:
        """The label in a member of that kind. Raises ShardError."""
        try:
            return parse_label(text) if _LABELS[kind] == "cls" else json_label(text)
        except ValueError as error:
            raise ShardError(
                f"{self.name}: the label of {self.key(row)} is {error}; a whole number from 0 or a name is needed"
            ) from error

    def record(self, row: int) -> dict[str, Any]:
        """The object in a sample's `.json`; {} if it has none, or has a `.cls`. Raises ShardError for damaged JSON."""
        *_, offset, size, kind = self.offsets[row].item()
        return self._record(row, self._read(offset, size)) if kind >= 0 and _LABELS[kind] == "json" else {}

    def _record(self, row: int, text: bytes) -> dict[str, Any]:
        """The object in a `.json`; {} for anything else that is JSON."""
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ShardError(f"{self.name}: the .json of {self.key(row)} is damaged: {error}") from error
        return record if isinstance(record, dict) else {}

    def key(self, row: int) -> str:
        """A sample's key, for errors; it takes another walk of the headers."""
        return group(walk(self._read_at, self._size, self.name).members, self.name)[row][0].key

    def _entry(self, members: list[Member], kinds: dict[str, int]) -> tuple[int, ...]:
        """The offsets of one sample, in the order of `layout`. Raises ShardError if it has no picture or several."""
        picture, pictures, label = _NOWHERE, 0, _NOWHERE
        for _, extension, offset, size, _ in members:
            if extension in kinds:
                picture, pictures = (offset, size, kinds[extension]), pictures + 1
            elif extension in _LABELS and (label is _NOWHERE or extension == _LABELS[0]):
                label = offset, size, _LABELS.index(extension)
        if pictures != 1:
            raise ShardError(f"{self.name}: {_why_not_one(members, self._extensions)}")
        return (*picture, *label)

    def _read(self, offset: int, size: int) -> bytes:
        data = self._read_at(offset, size)
        if len(data) != size:
            raise ShardError(f"{self.name} is truncated: it lacks {counted(size - len(data), 'byte')} at byte {offset}")
        return data


def _why_not_one(members: list[Member], extensions: Sequence[str]) -> str:
    """An error line about a sample that does not have exactly one picture."""
    held, wanted = _dotted([member.extension for member in members]), _dotted(extensions)
    line = f"sample {members[0].key} has {held}; exactly one of {wanted} is needed"
    found = [member.extension for member in members if member.extension in extensions]
    if len(found) > 1:
        return f"{line}: choose with --member, e.g. --member {found[0]}"
    odd = next((member for member in members if member.extension.rpartition(".")[2] in extensions), None)
    if found or odd is None:
        return line
    return (
        f"{line}: the key of a file ends at the first dot of its name, so that {odd.name} is the .{odd.extension} of "
        f"{odd.key}; name files without further dots, or, if these are kinds of pictures, take one with --member "
        f"{odd.extension}"
    )


def _dotted(extensions: Sequence[str]) -> str:
    some = ", ".join(f".{extension}" for extension in extensions[:_SHOWN])
    return some + (", ..." if len(extensions) > _SHOWN else "")


def group(members: Sequence[Member], shard: str) -> list[list[Member]]:
    """Group members by key, in the order of the file.

    Raises ShardError if a key occurs again after another one, or has two members with one extension.
    """
    groups: list[list[Member]] = []
    seen: set[str] = set()
    for member in members:
        if groups and groups[-1][0].key == member.key:
            if any(other.extension == member.extension for other in groups[-1]):
                raise ShardError(f"{shard} has {member.name} twice")
            groups[-1].append(member)
            continue
        if member.key in seen:
            raise ShardError(f"{shard} has key {member.key} in two places: interleaved or duplicated at {member.name}")
        seen.add(member.key)
        groups.append([member])
    return groups
