"""Which modality the samples of shards have that others wrote, as far as their members tell."""

from __future__ import annotations

from collections.abc import Sequence

from imagegen_dist.commands import command
from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.modality import MODALITIES, DecodeError, modality
from imagegen_dist.data.npy import npy_dims
from imagegen_dist.data.shard import group
from imagegen_dist.data.sources.files import CONVERTED
from imagegen_dist.data.tarwalk import Member, ReadAt, ShardError, walk
from imagegen_dist.storage import Store

_COLOURS = 4  # channels of a picture, at most


def modality_of_shard(read_at: ReadAt, size: int, name: str, place: Store, member: str = "") -> str:
    """The modality of a shard's first sample, by the extension of its members and the axes of an array.

    Damage, and members that are no samples, are left to the scan: they count as pictures. Raises DatasetError if an
    array can be of several modalities, and for videos and volumes in files that must be packed.
    """
    try:
        groups = group(walk(read_at, size, name).members, name)
    except ShardError:
        return "image"
    found = [each for each in (groups[0] if groups else []) if member in ("", each.extension)]
    kinds = {each.extension.rpartition(".")[2]: each for each in found}
    pictures = [kind for kind in kinds if kind != "npy" and kind in modality("image").extensions]
    if pictures:
        return "image"
    if "npy" in kinds:
        return _of_array(kinds["npy"], read_at, place)
    if packed := _converted(found):
        again = command("make_shards", place, "DEST", "--modality", packed)
        raise DatasetError(f"{place}: {name} holds .{found[0].extension} files, which must be packed first: `{again}`")
    return "image"


def _of_array(member: Member, read_at: ReadAt, place: Store) -> str:
    """The modality of an array by the number of its axes. Raises DatasetError if it is not clear."""
    try:
        dims = npy_dims(read_at(member.offset, member.size))
    except DecodeError:
        return "image"
    fitting = [name for name, kind in MODALITIES.items() if len(dims) in (len(kind.axes), len(kind.axes) + 1)]
    if len(dims) == len(modality("image").axes) + 1 and dims[0] <= _COLOURS:
        fitting = ["image"]
    if len(fitting) == 1 or not fitting:
        return fitting[0] if fitting else "image"
    words = " or ".join(f"--modality {name}" for name in fitting)
    raise DatasetError(f"{place}: {member.name} is an array {list(dims)}: say what its axes are with {words}")


def _converted(members: Sequence[Member]) -> str:
    return next((found for each in members if (found := CONVERTED.get(each.extension.rpartition(".")[2]))), "")
