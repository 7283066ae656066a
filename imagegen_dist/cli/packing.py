"""Pack sources into datasets, a task a shard: restartable, with the same bytes however often it was interrupted.

DEST/made_by.json says what makes the dataset and how it is cut into shards; it is written first and stays. A receipt
below DEST/.parts follows each shard. The index comes last, when all of them are there, and the receipts go.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from imagegen_dist.data.contents import count_copies
from imagegen_dist.data.index import INDEX_NAME, DatasetError, DatasetIndex, combine_scans, shard_names
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.pack_tasks import Packed, Part, Recipe, Sized, estimate, find_packed, pack_part
from imagegen_dist.data.picture import DEEPEST_WHITE
from imagegen_dist.data.sources.base import Source, UnfitError, listing_digest
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import TaskError
from imagegen_dist.ray.tasks import run_tasks
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import PATIENCE_S, StorageError, Store
from imagegen_dist.wording import counted

MADE_BY = "made_by.json"
UNDECODABLE = "undecodable.txt"

UNDECODABLE_LIMIT = 0.01
"""Share of pictures that cannot be decoded above which the job fails, where no other one is asked for."""

_VERSION = 1
_RECEIPTS = ".parts"
_MAX_SAMPLES = 100_000  # of a shard
_PROBE_RUNS, _PROBE_RUN = 4, 12  # the first pictures at so many places tell the size of all
_IN_PROCESS_S = 10.0  # of work, up to which Ray's start would not pay
_SHARD = re.compile(r"shard-\d{6}\.tar")
_REQUESTS = 16
_DARK = 1 << 14  # values of 16-bit pictures below this are a quarter of white at most


class UndecodableError(Exception):
    """Too many pictures that cannot be decoded."""

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines = lines  # one for each


class Bar(Protocol):
    """Shows how far the work is."""

    def start(self, total: int, done: int, phase: str) -> None:
        """So many pictures in all, and some done; `phase` until the first of the rest is."""

    def advance(self, pictures: int) -> None:
        """So many more are done."""


class Target(NamedTuple):
    """One dataset to be made."""

    name: str  # of its folder below DEST; "" for DEST itself
    source: Source
    rows: IntArray  # its records, in the dataset's order


@dataclass(frozen=True)
class Request:
    """What was asked for: what makes the samples, and how."""

    flags: Mapping[str, str]  # as the user typed them, filled up with defaults: equal where the bytes are
    recipe: Recipe
    shard_bytes: int
    workers: int | None  # tasks at once; None: all cores, or this process where the work is small; 0: this process
    max_bad: float = UNDECODABLE_LIMIT  # share of pictures that cannot be decoded above which the job fails


class Made(NamedTuple):
    """What was packed."""

    indexes: list[DatasetIndex]  # of each target
    undecodable: list[str]  # a line for each picture left out
    fresh: bool  # whether anything was done: else it was complete
    copies: int = 0  # pictures whose bytes another one has, too


@dataclass(frozen=True)
class _Plan:
    """The content of made_by.json."""

    flags: dict[str, str]
    pictures: int
    listing: str  # of all sources
    samples_per_shard: int
    sized: Sized | None  # the first picture's size, where all must have it


class Packing:
    """Datasets below DEST that are made from sources.

    kept, shards: how many shards are done, and how many there will be; 0 before that is known.
    notes: lines for the user.
    """

    def __init__(self, dest: Store, targets: Sequence[Target], request: Request) -> None:
        self.kept, self.shards = 0, 0
        self.notes: list[str] = []
        self.pictures = sum(target.rows.size for target in targets)
        self._dest, self._targets, self._request = dest, targets, request
        self._stores = [dest / target.name if target.name else dest for target in targets]
        self._receipts = dest / _RECEIPTS
        self._listing = _listing_of([target.name for target in targets], [target.source for target in targets])
        self._pace_s: float | None = None  # seconds a picture

    def run(self, bar: Bar) -> Made:
        """Make what is not there yet.

        Raises DatasetError where DEST holds something else, or what another command made; UnfitError, after which
        nothing is left; UndecodableError where too many pictures cannot be decoded, and there is no index; TaskError;
        and as the sources and the storage do.
        """
        plan = self._find_plan()
        if plan is not None and all(store.exists(INDEX_NAME) for store in self._stores):
            self._receipts.remove()
            return Made([DatasetIndex.load(store) for store in self._stores], [], False)
        for store in self._stores:
            store.sweep()
        try:
            parts = self._parts(plan or self._make_plan())
            return self._finish(parts, self._pack(parts, bar))
        except UnfitError:
            self._clear()
            raise

    def _find_plan(self) -> _Plan | None:
        """The plan that DEST was begun with; None where it is empty, or is again since the pictures have changed."""
        if not self._dest.exists(MADE_BY):
            for store in dict.fromkeys((self._dest, *self._stores)):
                _check_empty(store)
            return None
        plan, flags = _read_plan(self._dest), self._request.flags
        if differing := _differing_flags(plan.flags, flags):
            there, here = plan.flags.get(differing[0]), flags.get(differing[0])
            raise DatasetError(
                f"{self._dest} was made by another command, with {_said(differing[0], there)} and not "
                f"{_said(differing[0], here)}: remove it, or choose another place"
            )
        if (plan.listing, plan.pictures) == (self._listing, self.pictures):
            return plan
        changed = (
            f"{flags['SOURCE']} has changed since ({counted(plan.pictures, 'picture')} then, {self.pictures:,} now)"
        )
        if all(store.exists(INDEX_NAME) for store in self._stores):
            raise DatasetError(f"{self._dest} is complete, but {changed}: remove it, or choose another place")
        self.notes.append(f"{changed}: starting anew")
        self._clear()
        return None

    def _make_plan(self) -> _Plan:
        """Look at some pictures, and publish what follows from them."""
        self._dest.probe()
        mean, sized = self._probe()
        samples = int(min(_MAX_SAMPLES, max(1, self._request.shard_bytes // mean)))
        conversion = self._request.recipe.conversion
        if conversion is not None and conversion.size is not None:
            sized = None
        plan = _Plan(dict(self._request.flags), self.pictures, self._listing, samples, sized)
        document = json.dumps({"version": _VERSION, **asdict(plan)}, indent=1) + "\n"
        self._dest.write(MADE_BY, document.encode())
        return plan

    def _probe(self) -> tuple[float, Sized | None]:
        """(mean bytes of a sample in a shard, the first picture's size), from a few pictures at several places."""
        first = self._targets[0]
        runs = np.linspace(0, first.rows.size, _PROBE_RUNS, endpoint=False).astype(np.int64)
        places = np.unique((runs[:, None] + np.arange(_PROBE_RUN)).clip(max=first.rows.size - 1))
        began = time.monotonic()
        found = estimate(first.source.select(first.rows[places]), self._request.recipe)
        self._pace_s = (time.monotonic() - began) / places.size
        return found

    def _parts(self, plan: _Plan) -> list[Part]:
        """All shards; those of one dataset have as many records, give or take one."""
        recipe, parts = replace(self._request.recipe, sized=plan.sized), list[Part]()
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

    def _pack(self, parts: list[Part], bar: Bar) -> list[Packed]:
        """What came of each part; those that are not done are made."""
        with ThreadPoolExecutor(_REQUESTS) as pool:
            found = list(pool.map(find_packed, parts)) if self._receipts.exists() else [None] * len(parts)
        packed = {number: each for number, each in enumerate(found) if each is not None}
        missing = [number for number in range(len(parts)) if number not in packed]
        self.kept, self.shards = len(packed), len(parts)
        left = sum(parts[number].count for number in missing)
        pieces = [parts[number] for number in missing]
        parallel = len(pieces) > 1 and self._in_parallel(left)
        bar.start(self.pictures, self.pictures - left, "starting Ray" if parallel else "packing")
        results = run_tasks(pack_part, pieces, parallel, self._request.workers, bar.advance)
        try:
            with closing(results):
                for number, result in results:
                    packed[missing[number]] = result
                    self.kept += 1
        except (ValueError, TaskError):
            raise
        except Exception as error:  # of whatever kind, it is one line for the user
            line = (str(error).strip().splitlines() or [""])[0]
            raise TaskError(f"a shard could not be made ({type(error).__name__}: {line})") from error
        return [packed[number] for number in range(len(parts))]

    def _in_parallel(self, pictures: int) -> bool:
        """Whether Ray packs so many pictures, other than what lies in this process's memory."""
        places = [self._dest, *(Store(target.source.place) for target in self._targets)]
        if self._request.workers == 0 or any(place.protocol == "memory" for place in places):
            return False
        if self._request.workers is None and self._pace_s is None and pictures:
            self._probe()
        return self._request.workers is not None or pictures * (self._pace_s or 0) > _IN_PROCESS_S

    def _finish(self, parts: list[Part], packed: list[Packed]) -> Made:
        """Write what cannot be decoded, and the indexes; remove the receipts."""
        undecodable = [line for each in packed for line in each.undecodable]
        if undecodable:
            self._dest.write(
                UNDECODABLE, "".join(f"{line}\n" for line in undecodable).encode(errors="backslashreplace")
            )
        else:
            self._dest.remove(UNDECODABLE)
        if len(undecodable) > self._request.max_bad * self.pictures:
            for part, each in zip(parts, packed, strict=True):
                if each.undecodable:
                    part.receipts.remove(part.receipt)
            raise UndecodableError(
                f"{len(undecodable):,} of {counted(self.pictures, 'picture')} cannot be decoded, above --max-bad "
                f"{self._request.max_bad:g}: no index was written. Repair or remove those listed in "
                f"{self._dest / UNDECODABLE}, or allow more with a larger --max-bad, then run the same command again",
                undecodable,
            )
        indexes = self._index(parts, packed)
        self._tell_dark(max((each.deepest for each in packed), default=0))
        for index, store in zip(indexes, self._stores, strict=True):
            index.save(store)
        self._receipts.remove()
        return Made(indexes, undecodable, True, count_copies(b"".join(each.contents for each in packed)))

    def _tell_dark(self, deepest: int) -> None:
        """Note 16-bit grey pictures that use the lower bits alone, and come out dark."""
        conversion = self._request.recipe.conversion
        if 0 < deepest < _DARK and conversion is not None and conversion.white == DEEPEST_WHITE:
            white = (1 << deepest.bit_length()) - 1
            self.notes.append(
                f"the largest value of all 16-bit grey pictures is {deepest:,} of {DEEPEST_WHITE:,}, so that they come "
                f"out dark; if they hold {deepest.bit_length()} bits, pack them with --white-level {white}"
            )

    def _index(self, parts: list[Part], packed: list[Packed]) -> list[DatasetIndex]:
        """The index of each dataset; all have as many classes and channels. Raises DatasetError, StorageError."""
        found = [label for each in packed for label, _ in each.scan.labels or ()]
        largest = [label for label in found if isinstance(label, int)]  # the shards that are packed here have numbers
        indexes = []
        for target, store in zip(self._targets, self._stores, strict=True):
            scans = [each.scan for part, each in zip(parts, packed, strict=True) if part.store == store]
            if {scan.info.name for scan in scans} - set(shard_names(store)):
                raise StorageError(f"{store} lacks shards that were written: the cluster's nodes must all reach it")
            source = target.source
            classes = source.classes or (max(largest) + 1 if largest else None)
            indexes.append(combine_scans(scans, self._request.recipe.modality, classes, source.class_names))
        channels = max(index.shape.channels for index in indexes)
        return [replace(index, shape=SampleShape(channels, index.shape.spatial)) for index in indexes]

    def _clear(self) -> None:
        """Remove all that a plan brought: DEST was empty before it."""
        for store in self._stores:
            for name in [INDEX_NAME, *filter(_SHARD.fullmatch, shard_names(store))]:
                store.remove(name)
        for name in (_RECEIPTS, UNDECODABLE, MADE_BY):
            self._dest.remove(name)


def find_made(dest: Store, names: Sequence[str], source: Source, flags: Mapping[str, str]) -> Made | None:
    """What the same command has made of the same source, complete; None where that is not so.

    names: of the datasets below DEST. It is found before the source is read for which of them gets what.
    """
    stores = [dest / name if name else dest for name in names]
    if not dest.exists(MADE_BY) or not all(store.exists(INDEX_NAME) for store in stores):
        return None
    plan = _read_plan(dest)
    if _differing_flags(plan.flags, flags) or plan.listing != _listing_of(names, [source] * len(names)):
        return None
    return Made([DatasetIndex.load(store) for store in stores], [], False)


def _listing_of(names: Sequence[str], sources: Sequence[Source]) -> str:
    return listing_digest([name, source.listing] for name, source in zip(names, sources, strict=True))


def _differing_flags(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """The flags that two commands do not share; one that an older version lacked was not given."""
    return [flag for flag in sorted(there.keys() | here.keys()) if (there.get(flag) or "") != (here.get(flag) or "")]


def _said(flag: str, value: str | None) -> str:
    return f"{flag} {value}" if value else f"no {flag}"


def _check_empty(dest: Store) -> None:
    if dest.exists(INDEX_NAME):
        raise DatasetError(f"{dest} holds a dataset already: remove it, or choose another place")
    shards = shard_names(dest)
    if shards:
        raise DatasetError(
            f"{dest} has {counted(len(shards), 'shard')} without an {INDEX_NAME} or a {MADE_BY}: index them "
            f"with --index-only, "
            "remove them, or choose another place"
        )


def _read_plan(dest: Store) -> _Plan:
    """The plan in made_by.json. Raises DatasetError."""
    text = dest.read(MADE_BY)
    try:
        payload = parse_json(text)
        if payload.pop("version") != _VERSION:
            raise ValueError("it is of another version")
        sized = payload.pop("sized")
        if sized is not None:
            name, (height, width) = sized
            sized = Sized(str(name), (int(height), int(width)))
        return _Plan(**{**payload, "flags": dict(payload["flags"]), "sized": sized})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{dest / MADE_BY} is corrupt ({error}): remove {dest}, or choose another place") from error
