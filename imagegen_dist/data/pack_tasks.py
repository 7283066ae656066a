"""The task of packing one shard, which runs in any process and always gives the same bytes."""

import io
import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import webdataset

from imagegen_dist.conditions.tally import ConditionScan
from imagegen_dist.data.conditioned_shard import condition_members
from imagegen_dist.data.contents import SHORT_DIGEST_BYTES, content_digest
from imagegen_dist.data.index import DatasetError, ShardInfo
from imagegen_dist.data.modality import DecodeError, modality
from imagegen_dist.data.sample_conversion import Encoded, SampleConversion
from imagegen_dist.data.scanning import ShardScan, scan_shard
from imagegen_dist.data.sources.base import Record, Records, UnfitError
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.documents import parse_json
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import StorageError, Store
from imagegen_dist.tasks import Advance

_BLOCK = 512  # bytes of a tar block: a member is a header of one block and its data, padded to blocks


class Sized(NamedTuple):
    """The record whose size all others must have."""

    name: str
    size: tuple[int, ...]  # *S


@dataclass(frozen=True)
class Recipe:
    """How records become samples."""

    conversion: SampleConversion | None  # None if the records' bytes are the samples
    extension: str  # of the samples: one of the conversion's formats, or without conversion one of the modality's
    sized: Sized | None = None  # if the conversion does not set a size
    modality: str = "image"


@dataclass(frozen=True)
class Part:
    """A shard to pack: everything that the task needs."""

    store: Store  # the dataset's folder
    name: str  # of the shard
    first: int  # position of the first record in the dataset, from which the samples' keys follow
    count: int  # number of records
    records: Records
    recipe: Recipe
    receipts: Store  # folder for the receipts of finished parts
    receipt: str  # name of the receipt of this part


class Packed(NamedTuple):
    """The result of packing a part."""

    scan: ShardScan
    undecodable: tuple[str, ...]  # a line for each picture that was left out
    deepest: int = 0  # largest value of all 16-bit grey pictures
    contents: bytes = b""  # concatenated digests of the source bytes of the packed pictures
    space: VolumeSpace | None = None  # what all volumes have in common
    notes: tuple[tuple[str, int, str], ...] = ()  # (note about samples, their number, name of the first)


def pack_part(part: Part, advance: Advance) -> Packed:
    """Pack a shard, publish it, and then publish its receipt. Undecodable pictures are left out.

    The keys of samples follow from the place of their record: 000000012, or 000000012-0003 if it gives several.
    Raises UnfitError if two samples differ in size and the recipe does not set a size, and if conditions do not fit
    together; StorageError; and whatever reading the records raises.
    """
    undecodable, deepest, contents = list[str](), 0, bytearray()
    conditions = ConditionScan()
    space, notes = None, Notes()
    target = io.BytesIO()
    with webdataset.TarWriter(target, encoder=False, mtime=0) as writer:
        for place, record in enumerate(part.records.read(), part.first):
            try:
                samples = _convert(record, part.recipe)
            except DecodeError as error:
                undecodable.append(f"{record.name} {error}")
            else:
                for number, sample in enumerate(samples):
                    key = f"{place:09d}" if len(samples) == 1 else f"{place:09d}-{number:04d}"
                    members = _label_members(record, conditions)
                    writer.write({"__key__": key, part.recipe.extension: sample.data, **members})
                    deepest = max(deepest, sample.deepest)
                    space = shared_space(space, sample.space)
                    notes.add(sample.note, 1, record.name)
                contents += content_digest(record.data, SHORT_DIGEST_BYTES)
            advance(1)
    data = target.getvalue()
    scan = scan_shard(part.name, data, modality(part.recipe.modality))
    conversion = part.recipe.conversion
    if conversion is not None and scan.shape is not None:  # headers tell neither transparency nor 16 bits of pictures
        channels = 4 if conversion.is_transparent else scan.shape.channels
        scan = scan._replace(
            shape=SampleShape(channels, scan.shape.spatial, max(scan.shape.bits, conversion.stored_bits))
        )
    packed = Packed(scan, tuple(undecodable), deepest, bytes(contents), space, notes.listed())
    part.store.write(part.name, data)
    part.receipts.write(part.receipt, json.dumps(_to_json(packed)).encode())
    return packed


class Notes:
    """Notes about samples, each once, with the number of the samples and the name of the first."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, note: str, count: int, name: str) -> None:
        """Count a note; "" is none."""
        if note:
            before, first = self._found.get(note, (0, name))
            self._found[note] = before + count, first

    def listed(self) -> tuple[tuple[str, int, str], ...]:
        """(note, number of samples, name of the first)."""
        return tuple((note, count, first) for note, (count, first) in self._found.items())


def shared_space(first: VolumeSpace | None, second: VolumeSpace | None) -> VolumeSpace | None:
    """What two volumes, or two sets of them, have in common; None says nothing about a set."""
    if first is None or second is None:
        return first or second
    return first.shared(second)


def find_packed(part: Part) -> Packed | None:
    """The result of a finished part: it has a receipt, and its shard has the size in the receipt. Else None."""
    try:
        payload = parse_json(part.receipts.read(part.receipt))
        if "labels" not in payload:  # written by an older version
            return None
        packed = _from_json(payload)
        return packed if part.store.size(part.name) == packed.scan.info.bytes else None
    except FileNotFoundError:
        return None
    except StorageError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{part.receipts / part.receipt} is corrupt ({error}): remove it") from error


def estimate(records: Records, recipe: Recipe) -> tuple[float, Sized | None]:
    """(mean bytes of a record's samples in a shard, the size of the first sample) of some records."""
    total, count = 0, 0
    sized: Sized | None = None
    for record in records.read():
        count += 1
        try:
            samples = _samples(record, recipe)
        except DecodeError:
            continue
        if sized is None and recipe.conversion is not None:
            sized = Sized(record.name, samples[0].size)
        beside = sum(_in_tar(len(each)) for each in _label_members(record).values())
        total += sum(_in_tar(len(sample.data)) + beside for sample in samples)
    return max(_BLOCK, total / max(1, count)), sized


def _convert(record: Record, recipe: Recipe) -> list[Encoded]:
    """The samples of a record, which have the size of all others. Raises DecodeError, UnfitError."""
    samples, conversion = _samples(record, recipe), recipe.conversion
    for sample in samples:
        if recipe.sized is not None and conversion is not None and sample.size != recipe.sized.size:
            say = conversion.describe_size
            raise UnfitError(
                f"the {conversion.files.noun}s have several sizes: {recipe.sized.name} is {say(recipe.sized.size)}, "
                f"{record.name} {say(sample.size)}; give them one with {conversion.size_flags}"
            )
    return samples


def _samples(record: Record, recipe: Recipe) -> list[Encoded]:
    """The samples of a record. Raises DecodeError, also if there are none."""
    if record.problem:
        raise DecodeError(record.problem)
    if recipe.conversion is None:
        return [Encoded(record.data, ())]
    samples = list(recipe.conversion.convert(record.data, record.name, recipe.extension))
    if not samples:
        raise DecodeError("gives no samples")
    return samples


def _label_members(record: Record, seen: ConditionScan | None = None) -> dict[str, bytes]:
    """The members beside a picture, by extension. seen: the conditions before this one, to which it must fit.

    Raises UnfitError.
    """
    if record.condition is None:
        return {} if record.label is None else {"cls": b"%d" % record.label}
    try:
        if seen is not None:
            seen.add(record.condition)
        return condition_members(record.condition)
    except (ValueError, TypeError) as error:
        raise UnfitError(f"the condition of {record.name}: {error}") from error


def _in_tar(length: int) -> int:
    """Bytes that a member of this length takes in a tar file."""
    return _BLOCK + -(-length // _BLOCK) * _BLOCK


def _to_json(packed: Packed) -> dict[str, Any]:
    scan = packed.scan
    shape = None if scan.shape is None else scan.shape.dims
    bits = {} if scan.shape is None or scan.shape.bits == 8 else {"bits": scan.shape.bits}
    return {
        "shard": asdict(scan.info),
        "dims": shape,
        "labels": scan.labels,
        "conditions": None if scan.conditions is None else scan.conditions.to_json(),
        "undecodable": packed.undecodable,
        "deepest": packed.deepest,
        "contents": packed.contents.hex(),
        "space": None if packed.space is None else packed.space.payload(),
        "notes": packed.notes,
        "arrays": scan.arrays,
        "runs": scan.runs,
        **bits,
    }


def _from_json(payload: Any) -> Packed:
    dims = payload["dims"]
    shape = None if dims is None else SampleShape(dims[0], tuple(dims[1:]), payload.get("bits", 8))
    labels = None if payload["labels"] is None else tuple((label, count) for label, count in payload["labels"])
    found = payload.get("conditions")
    conditions = None if found is None else ConditionScan.from_json(found)
    more = {"arrays": payload.get("arrays", False), "runs": payload.get("runs", 0)}
    scan = ShardScan(ShardInfo(**payload["shard"]), shape, labels, conditions, **more)
    space = None if payload.get("space") is None else VolumeSpace.from_payload(payload["space"])
    return Packed(
        scan,
        tuple(payload["undecodable"]),
        payload.get("deepest", 0),
        bytes.fromhex(payload.get("contents", "")),
        space,
        tuple((note, count, first) for note, count, first in payload.get("notes", ())),
    )
