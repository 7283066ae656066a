"""Write datasets shard by shard, one task a shard. An interrupted packing continues, and ends with the same bytes.

DEST/made_by.json states the command and how the dataset is divided into shards; it is written first and kept. A receipt
below DEST/.parts follows each shard. When all shards are there, the index is written and the receipts are removed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from imagegen_dist.data.contents import IN_PROCESS_S, count_copies
from imagegen_dist.data.conversion import Conversion
from imagegen_dist.data.index import INDEX_NAME, DatasetError, DatasetIndex, shard_names
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.pack_tasks import (
    Notes,
    Packed,
    Part,
    Recipe,
    Sized,
    estimate,
    find_packed,
    pack_part,
    shared_space,
)
from imagegen_dist.data.picture import DEEPEST_WHITE
from imagegen_dist.data.scanning import combine_scans, common_conditions, order_of_classes
from imagegen_dist.data.sources.base import Source, UnfitError, listing_digest
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import TaskError
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import PATIENCE_S, StorageError, Store
from imagegen_dist.tasks import ShowProgress, TaskRunner, no_progress, run_in_process
from imagegen_dist.wording import counted, first_line

_MADE_BY = "made_by.json"
UNDECODABLE = "undecodable.txt"

UNDECODABLE_LIMIT = 0.01
"""Default share of undecodable pictures above which packing fails."""

_VERSION = 1
_RECEIPTS = ".parts"
_MAX_SAMPLES = 100_000  # of a shard
_PROBE_RUNS, _PROBE_RUN = 4, 12  # places that are probed for the size of a sample, and records read at each
_SHARD = re.compile(r"shard-\d{6}\.tar")
_REQUESTS = 16
_DARK = 1 << 14  # a quarter of white in 16 bits


class UndecodableError(TaskError):
    """More pictures than allowed cannot be decoded. lines: one for each of them."""

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines = lines


class PackingInterrupted(KeyboardInterrupt):
    """The user has stopped packing; the message says what was kept."""


class Target(NamedTuple):
    """One dataset to write."""

    name: str  # folder below DEST; "" for DEST itself
    source: Source
    rows: IntArray  # numbers of its records, in the order of the dataset


class PackedDatasets(NamedTuple):
    """Written datasets, by the names of their folders below DEST ("" for DEST itself)."""

    stores: dict[str, Store]
    indexes: dict[str, DatasetIndex]
    undecodable: list[str]  # a line for each picture that was left out
    fresh: bool  # False if everything was complete already
    copies: int = 0  # pictures with the same bytes as another one


@dataclass(frozen=True)
class _Plan:
    """The content of made_by.json."""

    flags: dict[str, str]
    pictures: int
    listing: str  # digest of all sources
    samples_per_shard: int
    sized: Sized | None  # the first picture's size, if all pictures must have it


def pack_shards(
    dest: Store,
    targets: Sequence[Target],
    recipe: Recipe,
    made_by: Mapping[str, str],
    shard_bytes: int,
    max_bad: float = UNDECODABLE_LIMIT,
    kinds: Mapping[str, str] | None = None,
    *,
    workers: int | None = None,
    run_tasks: TaskRunner | None = None,
    progress: ShowProgress = no_progress,
    tell: Callable[[str], None] = print,
) -> PackedDatasets:
    """Write the shards of the targets that are not there yet, and then the indexes.

    made_by: everything that determines the bytes, by the names that the user knows; a packing continues only if these
    are equal. shard_bytes: approximate size of a shard. max_bad: share of pictures that may be left out because they
    cannot be decoded. kinds: of parts of conditions, as in `combine_scans`. workers: tasks at a time; None uses all
    CPU cores, or this process if there is little work; 0 uses this process. run_tasks: runs the tasks; None uses this
    process. tell: takes lines for the user.

    Raises DatasetError if DEST holds something else or the result of another command; UnfitError, after which nothing
    is left in DEST; UndecodableError; TaskError; PackingInterrupted; and what the sources and the storage raise.
    """
    packing = _Packing(dest, targets, recipe, made_by, shard_bytes, max_bad, kinds)
    try:
        return packing.run(workers, run_tasks, progress)
    except KeyboardInterrupt:
        raise PackingInterrupted(packing.describe_kept()) from None
    finally:
        for note in packing.notes:
            tell(note)


class _Packing:
    """Datasets below DEST that are written from sources. notes: lines for the user."""

    def __init__(
        self,
        dest: Store,
        targets: Sequence[Target],
        recipe: Recipe,
        flags: Mapping[str, str],
        shard_bytes: int,
        max_bad: float,
        kinds: Mapping[str, str] | None,
    ) -> None:
        self.notes: list[str] = []
        self._kept, self._shards = 0, 0
        self._pictures = sum(target.rows.size for target in targets)
        self._dest, self._targets, self._recipe = dest, targets, recipe
        self._noun = "picture" if recipe.conversion is None else recipe.conversion.files.noun
        self._flags, self._shard_bytes, self._max_bad, self._kinds = flags, shard_bytes, max_bad, kinds
        self._stores = [dest / target.name if target.name else dest for target in targets]
        self._receipts = dest / _RECEIPTS
        self._listing = _listing_of([target.name for target in targets], [target.source for target in targets])
        self._pace_s: float | None = None  # seconds a picture

    def run(self, workers: int | None, run_tasks: TaskRunner | None, progress: ShowProgress) -> PackedDatasets:
        plan = self._find_plan()
        if plan is not None and all(store.exists(INDEX_NAME) for store in self._stores):
            self._receipts.remove()
            return self._result([DatasetIndex.load(store) for store in self._stores], [], fresh=False)
        for store in self._stores:
            store.sweep()
        try:
            with progress("packing") as shown:
                parts = self._parts(plan or self._make_plan())
                packed, missing = self._find_done(parts)
                pieces = [parts[number] for number in missing]
                left = sum(part.count for part in pieces)
                parallel = run_tasks is not None and len(pieces) > 1 and self._is_parallel(left, workers)
                shown.start(self._pictures, self._pictures - left, "starting workers" if parallel else "packing")
                run = run_tasks if parallel and run_tasks is not None else run_in_process
                with closing(run(pack_part, pieces, workers, shown.advance)) as results:
                    for number, result in results:
                        packed[missing[number]] = result
                        self._kept += 1
            return self._finish(parts, [packed[number] for number in range(len(parts))])
        except UnfitError:
            self._clear()
            raise
        except (ValueError, TaskError):
            raise
        except Exception as error:  # one line for the user, whatever the error is
            raise TaskError(f"a shard could not be made ({type(error).__name__}: {first_line(error)})") from error

    def describe_kept(self) -> str:
        """What an interrupted packing has kept."""
        if not self._kept:
            return "interrupted: no shard was finished; the same command starts over"
        return (
            f"interrupted: {counted(self._kept, 'shard')} of {self._shards:,} kept; "
            "the same command continues from there"
        )

    def _find_plan(self) -> _Plan | None:
        """The plan in DEST; None if DEST is empty, or was cleared because the pictures have changed."""
        if not self._dest.exists(_MADE_BY):
            for store in dict.fromkeys((self._dest, *self._stores)):
                _check_empty(store)
            return None
        plan = _read_plan(self._dest)
        if differing := _differing_flags(plan.flags, self._flags):
            there, here = plan.flags.get(differing[0]), self._flags.get(differing[0])
            raise DatasetError(
                f"{self._dest} was made by another command, with {_say(differing[0], there)} and not "
                f"{_say(differing[0], here)}: remove it, or choose another place"
            )
        if (plan.listing, plan.pictures) == (self._listing, self._pictures):
            return plan
        changed = (
            f"{self._flags['SOURCE']} has changed since "
            f"({counted(plan.pictures, self._noun)} then, {self._pictures:,} now)"
        )
        if all(store.exists(INDEX_NAME) for store in self._stores):
            raise DatasetError(f"{self._dest} is complete, but {changed}: remove it, or choose another place")
        self.notes.append(f"{changed}: starting over")
        self._clear()
        return None

    def _make_plan(self) -> _Plan:
        """Read some pictures, and publish the plan that follows from them."""
        self._dest.probe()
        mean, sized = self._probe()
        samples = int(min(_MAX_SAMPLES, max(1, self._shard_bytes // mean)))
        if self._recipe.conversion is not None and self._recipe.conversion.is_sized:
            sized = None
        plan = _Plan(dict(self._flags), self._pictures, self._listing, samples, sized)
        document = json.dumps({"version": _VERSION, **asdict(plan)}, indent=1) + "\n"
        self._dest.write(_MADE_BY, document.encode())
        return plan

    def _probe(self) -> tuple[float, Sized | None]:
        """(mean bytes of a sample in a shard, the first picture's size), from pictures at several places."""
        first = self._targets[0]
        runs = np.linspace(0, first.rows.size, _PROBE_RUNS, endpoint=False).astype(np.int64)
        conversion = self._recipe.conversion
        run = _PROBE_RUN if conversion is None or not conversion.files.usual_bytes else 1  # large files
        places = np.unique((runs[:, None] + np.arange(run)).clip(max=first.rows.size - 1))
        began = time.monotonic()
        found = estimate(first.source.select(first.rows[places]), self._recipe)
        self._pace_s = (time.monotonic() - began) / places.size
        return found

    def _parts(self, plan: _Plan) -> list[Part]:
        """All shards; those of one dataset have equal numbers of records, within one."""
        recipe, parts = replace(self._recipe, sized=plan.sized), list[Part]()
        receipts = Store(self._receipts.url, PATIENCE_S)
        for target, dest in zip(self._targets, self._stores, strict=True):
            store, first = Store(dest.url, PATIENCE_S), 0
            for number, rows in enumerate(np.array_split(target.rows, -(-target.rows.size // plan.samples_per_shard))):
                receipt = f"{target.name or 'all'}-{number:06d}.json"
                records = target.source.select(rows)
                parts.append(
                    Part(store, f"shard-{number:06d}.tar", first, rows.size, records, recipe, receipts, receipt)
                )
                first += rows.size
        return parts

    def _find_done(self, parts: list[Part]) -> tuple[dict[int, Packed], list[int]]:
        """(the results of the parts that are done, by number; the numbers of the others)."""
        with ThreadPoolExecutor(_REQUESTS) as pool:
            found = list(pool.map(find_packed, parts)) if self._receipts.exists() else [None] * len(parts)
        packed = {number: each for number, each in enumerate(found) if each is not None}
        self._kept, self._shards = len(packed), len(parts)
        return packed, [number for number in range(len(parts)) if number not in packed]

    def _is_parallel(self, pictures: int, workers: int | None) -> bool:
        """Whether tasks should pack this many pictures. Tasks cannot reach what is in this process's memory."""
        places = [self._dest.url, *(target.source.place for target in self._targets)]
        if workers == 0 or any(place.startswith("memory://") for place in places):
            return False
        if workers is None and self._pace_s is None and pictures:
            self._probe()
        return workers is not None or pictures * (self._pace_s or 0) > IN_PROCESS_S

    def _finish(self, parts: list[Part], packed: list[Packed]) -> PackedDatasets:
        """Write the list of undecodable pictures and the indexes; remove the receipts."""
        undecodable = [line for each in packed for line in each.undecodable]
        if undecodable:
            self._dest.write(
                UNDECODABLE, "".join(f"{line}\n" for line in undecodable).encode(errors="backslashreplace")
            )
        else:
            self._dest.remove(UNDECODABLE)
        if len(undecodable) > self._max_bad * self._pictures:
            for part, each in zip(parts, packed, strict=True):
                if each.undecodable:
                    part.receipts.remove(part.receipt)
            raise UndecodableError(
                f"{len(undecodable):,} of {counted(self._pictures, self._noun)} cannot be decoded, above --max-bad "
                f"{self._max_bad:g}: no index was written. Repair or remove those listed in "
                f"{self._dest / UNDECODABLE}, or allow more with a larger --max-bad, then run the same command again",
                undecodable,
            )
        indexes = self._make_indexes(parts, packed)
        self._note_samples(packed)
        self._note_dark(max((each.deepest for each in packed), default=0))
        if line := order_of_classes(each.scan for each in packed):
            self.notes.append(line)
        for index, store in zip(indexes, self._stores, strict=True):
            index.save(store)
        self._receipts.remove()
        copies = count_copies(b"".join(each.contents for each in packed))
        return self._result(indexes, undecodable, fresh=True, copies=copies)

    def _result(
        self, indexes: list[DatasetIndex], undecodable: list[str], fresh: bool, copies: int = 0
    ) -> PackedDatasets:
        names = [target.name for target in self._targets]
        stores = dict(zip(names, self._stores, strict=True))
        return PackedDatasets(stores, dict(zip(names, indexes, strict=True)), undecodable, fresh, copies)

    def _note_samples(self, packed: list[Packed]) -> None:
        """Note what conversions said of samples, with their number and the first one."""
        notes = Notes()
        for each in packed:
            for note, count, first in each.notes:
                notes.add(note, count, first)
        for note, count, first in notes.listed():
            self.notes.append(f"{count:,} of {counted(self._pictures, self._noun)}: {note} (the first is {first})")

    def _note_dark(self, deepest: int) -> None:
        """Note 16-bit grey pictures that use only the lower bits and therefore come out dark."""
        conversion = self._recipe.conversion
        if 0 < deepest < _DARK and isinstance(conversion, Conversion) and conversion.white == DEEPEST_WHITE:
            white = (1 << deepest.bit_length()) - 1
            self.notes.append(
                f"the largest value of all 16-bit grey pictures is {deepest:,} of {DEEPEST_WHITE:,}, so that they come "
                f"out dark; if they hold {deepest.bit_length()} bits, pack them with --white-level {white}"
            )

    def _make_indexes(self, parts: list[Part], packed: list[Packed]) -> list[DatasetIndex]:
        """The index of each dataset, with equal classes, conditions and channels in all.

        Raises UnfitError for conditions that are not of the requested kinds; DatasetError, StorageError.
        """
        found = [label for each in packed for label, _ in each.scan.labels or ()]
        largest = [label for label in found if isinstance(label, int)]  # shards that are packed here have numbers
        try:
            known = self._targets[0].source.known
            conditions = known or common_conditions((each.scan for each in packed), self._kinds)
        except DatasetError as error:
            raise UnfitError(str(error)) from error
        indexes = []
        for target, store in zip(self._targets, self._stores, strict=True):
            scans = [each.scan for part, each in zip(parts, packed, strict=True) if part.store == store]
            if {scan.info.name for scan in scans} - set(shard_names(store)):
                raise StorageError(f"{store} lacks shards that were written: the cluster's nodes must all reach it")
            source = target.source
            classes = source.classes or (max(largest) + 1 if largest else None)
            index = combine_scans(scans, self._recipe.modality, classes, source.class_names, within=conditions)
            indexes.append(index)
        channels, bits = (max(getattr(index.shape, name) for index in indexes) for name in ("channels", "bits"))
        space = self._targets[0].source.space if self._recipe.conversion is None else None
        for each in packed:
            space = shared_space(space, each.space)
        shapes = [SampleShape(channels, index.shape.spatial, bits) for index in indexes]
        return [replace(index, shape=shape, space=space) for index, shape in zip(indexes, shapes, strict=True)]

    def _clear(self) -> None:
        """Remove everything that was written by a plan; DEST was empty before it."""
        for store in self._stores:
            for name in [INDEX_NAME, *filter(_SHARD.fullmatch, shard_names(store))]:
                store.remove(name)
        for name in (_RECEIPTS, UNDECODABLE, _MADE_BY):
            self._dest.remove(name)


def find_packed_datasets(
    dest: Store, names: Sequence[str], source: Source, made_by: Mapping[str, str]
) -> PackedDatasets | None:
    """The complete datasets that the same command has made of the same source, or None.

    names: folders of the datasets below DEST. This needs no reading of the source, unlike dividing it among them.
    """
    stores = {name: dest / name if name else dest for name in names}
    if not dest.exists(_MADE_BY) or not all(store.exists(INDEX_NAME) for store in stores.values()):
        return None
    plan = _read_plan(dest)
    if _differing_flags(plan.flags, made_by) or plan.listing != _listing_of(names, [source] * len(names)):
        return None
    return PackedDatasets(stores, {name: DatasetIndex.load(store) for name, store in stores.items()}, [], False)


def _listing_of(names: Sequence[str], sources: Sequence[Source]) -> str:
    return listing_digest([name, source.listing] for name, source in zip(names, sources, strict=True))


def _differing_flags(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """The flags in which two commands differ; a flag that an older version did not have counts as not given."""
    return [flag for flag in sorted(there.keys() | here.keys()) if (there.get(flag) or "") != (here.get(flag) or "")]


def _say(flag: str, value: str | None) -> str:
    return f"{flag} {value}" if value else f"no {flag}"


def _check_empty(dest: Store) -> None:
    if dest.exists(INDEX_NAME):
        raise DatasetError(f"{dest} holds a dataset already: remove it, or choose another place")
    shards = shard_names(dest)
    if shards:
        raise DatasetError(
            f"{dest} has {counted(len(shards), 'shard')} without an {INDEX_NAME} or a {_MADE_BY}: index them "
            "with --index-only, remove them, or choose another place"
        )


def _read_plan(dest: Store) -> _Plan:
    """The plan in made_by.json. Raises DatasetError."""
    text = dest.read(_MADE_BY)
    try:
        payload = parse_json(text)
        if payload.pop("version") != _VERSION:
            raise ValueError("it is of another version")
        sized = payload.pop("sized")
        if sized is not None:
            name, size = sized
            sized = Sized(str(name), tuple(map(int, size)))
        return _Plan(**{**payload, "flags": dict(payload["flags"]), "sized": sized})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{dest / _MADE_BY} is corrupt ({error}): remove {dest}, or choose another place") from error
