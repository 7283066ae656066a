"""The samples of one shard: members grouped by key, and the bytes of each sample's picture and label."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.labels import Label, json_label, parse_label
from imagegen_dist.data.tarwalk import Member, ReadAt, ShardError, walk
from imagegen_dist.wording import counted

PLACE = np.dtype(
    [
        *(("picture", "<i8"), ("picture_bytes", "<u4"), ("picture_kind", "i1")),
        *(("label", "<i8"), ("label_bytes", "<u4"), ("label_kind", "i1")),
    ]
)
"""Where a sample's picture and label lie in a shard's file, and of which extension they are; kind -1: no label."""

_LABELS = ("cls", "json")  # the first of them that a sample has
_NOWHERE = (0, 0, -1)
_SHOWN = 7


class Shard:
    """Where every sample of a shard lies, and its bytes.

    read_at: reads the shard's file; size: its bytes; name: for errors; extensions: of the members that hold the sample.
    samples: how many the index says there are; None while the index is being built, when the end must be marked.
    places: of all samples, [n], where they are known; else the file's headers are walked.
    Raises ShardError where the shard is damaged, where a key comes twice or interleaved with another, where a sample
    has no such member or several, and where the number of samples differs.
    """

    def __init__(
        self,
        read_at: ReadAt,
        size: int,
        name: str,
        extensions: Sequence[str],
        samples: int | None = None,
        places: NDArray[np.void] | None = None,
    ) -> None:
        self.name = name
        self._read_at, self._size, self._extensions = read_at, size, tuple(extensions)
        self.places = self._find_places(samples) if places is None else places

    def _find_places(self, samples: int | None) -> NDArray[np.void]:
        name = self.name
        members, ended = walk(self._read_at, self._size, name)
        groups = group(members, name)
        if samples is None and not ended:
            raise ShardError(
                f"{name} has no end mark after {counted(len(groups), 'sample')}: it is cut, or its writer was "
                f"not closed"
            )
        if samples is not None and len(groups) != samples:
            raise ShardError(f"{name} holds {counted(len(groups), 'sample')}, but its index says {samples}")
        kinds = {extension: number for number, extension in enumerate(self._extensions)}
        entries = np.array([self._entry(members, kinds) for members in groups], np.int64).reshape(
            -1, len(PLACE.names or ())
        )
        places = np.empty(len(groups), PLACE)
        for column, field in enumerate(PLACE.names or ()):
            places[field] = entries[:, column]
        return places

    def __len__(self) -> int:
        return len(self.places)

    def picture(self, row: int) -> tuple[bytes, str]:
        """(encoded bytes, extension) of a sample. Raises ShardError where the file has become shorter."""
        offset, size, kind, *_ = self.places[row].item()
        return self._read(offset, size), self._extensions[kind]

    def label(self, row: int) -> Label | None:
        """A sample's class: the number or name in `.cls`, or under one of LABEL_NAMES in `.json`; None without either.

        Raises ShardError for anything else than a whole number from 0 or a name.
        """
        *_, offset, size, kind = self.places[row].item()
        if kind < 0:
            return None
        text = self._read(offset, size)
        try:
            return parse_label(text) if _LABELS[kind] == "cls" else json_label(text)
        except ValueError as error:
            raise ShardError(
                f"{self.name}: the label of {self.key(row)} is {error}; a whole number from 0 or a name is needed"
            ) from error

    def record(self, row: int) -> dict[str, Any]:
        """What a sample's `.json` holds, where it has one and no `.cls`; else {}. Raises ShardError for other JSON."""
        *_, offset, size, kind = self.places[row].item()
        if kind < 0 or _LABELS[kind] != "json":
            return {}
        try:
            record = json.loads(self._read(offset, size))
        except (ValueError, RecursionError) as error:
            raise ShardError(f"{self.name}: the .json of {self.key(row)} is damaged: {error}") from error
        return record if isinstance(record, dict) else {}

    def key(self, row: int) -> str:
        """A sample's name, found by another walk: for errors."""
        return group(walk(self._read_at, self._size, self.name).members, self.name)[row][0].key

    def _entry(self, members: list[Member], kinds: dict[str, int]) -> tuple[int, ...]:
        """One sample's PLACE. Raises ShardError where it has no picture or several."""
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
            raise ShardError(f"{self.name} is truncated: {size - len(data)} bytes are missing at byte {offset}")
        return data


def _why_not_one(members: list[Member], extensions: Sequence[str]) -> str:
    """What to do about a sample that has not exactly one picture."""
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
        f"{odd.key}; name files without further dots, or, where these are kinds of pictures, take one by --member "
        f"{odd.extension}"
    )


def _dotted(extensions: Sequence[str]) -> str:
    some = ", ".join(f".{extension}" for extension in extensions[:_SHOWN])
    return some + (", ..." if len(extensions) > _SHOWN else "")


def group(members: Sequence[Member], shard: str) -> list[list[Member]]:
    """Members of one key together, in file order.

    Raises ShardError where a key comes back after another one, or has two members of one extension.
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
