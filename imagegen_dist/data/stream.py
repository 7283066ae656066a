"""Order and bytes to microbatches: what a rank reads, step by step.

The state is one integer, the step. A loader's item is one step's microbatches of the rank, so that the number of loader
processes cannot change what comes, and any step is reached at once.
"""

import os
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imagegen_dist.data.cache import CacheConfig, ShardFiles
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import DecodeError, modality
from imagegen_dist.data.order import IntArray, Order, Plan, Samples
from imagegen_dist.data.shard import Shard
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store

_SUBSTITUTES = 16


@dataclass(frozen=True)
class StreamConfig:
    """How samples are read. Raises ValueError where a value cannot work."""

    workers: int = 0  # loader processes of a rank; 0 reads in the training process
    prefetch: int = 2  # steps that each loader process keeps ready
    open_shards: int = 256  # shards that each process keeps open
    decoded_bytes: int = 64 << 20  # bytes of decoded samples that each process keeps in memory
    on_bad: Literal["error", "substitute"] = "error"  # what a damaged sample does
    bad_limit: float = 0.001  # share of damaged samples above which the run stops
    cache: CacheConfig = field(default_factory=CacheConfig)  # of shards from remote storage

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("prefetch", 1), ("open_shards", 1), ("decoded_bytes", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise ValueError(f"--data.{flag} is {getattr(self, name)}; it must be at least {least}")
        if self.on_bad not in ("error", "substitute"):
            raise ValueError(f"--data.on-bad is {self.on_bad!r}; it must be error or substitute")
        if not 0 < self.bad_limit <= 1:
            raise ValueError(f"--data.bad-limit is {self.bad_limit}; it must lie in (0, 1]")


@dataclass
class Item:
    """One step's microbatches of a rank."""

    step: int
    sample: Tensor  # uint8 [draws, M, b, C, *S]
    label: Tensor | None  # int64 [draws, M, b]; None where the dataset has no classes
    id: Tensor  # int64 [draws, M, b], number of each sample in the dataset
    counters: dict[str, int]  # since the process's last item: bytes, fetched, cache_hits, decoded_hits, retries, bad
    bad: list[str]  # what was wrong with each substituted sample, a line each


def stream(
    index: DatasetIndex,
    store: Store,
    plan: Plan,
    microbatches: range,
    start_step: int,
    end_step: int,
    config: StreamConfig | None = None,
) -> Iterator[Item]:
    """The items of steps [start_step, end_step) for a rank that owns some of the plan's microbatches.

    Raises ShardError for a damaged shard or sample (or too many of them, with substitution), and ValueError for
    `memory://` with loader processes, which cannot see it.
    """
    config = config or StreamConfig()
    if config.workers and store.protocol == "memory":
        raise ValueError(f"{store} is in this process's memory alone: set --data.workers 0")
    steps = _Steps(index, store, plan, microbatches, config)
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=range(start_step, end_step),
        num_workers=config.workers,
        multiprocessing_context="forkserver" if config.workers else None,
        prefetch_factor=config.prefetch if config.workers else None,
    )
    with closing(steps):
        yield from _watched(loader, config.bad_limit)


def _watched(items: Iterable[Item | ShardError], bad_limit: float) -> Iterator[Item]:
    """Items until one is an error, or until too many samples were damaged."""
    seen, bad = 0, 0
    for item in items:
        if isinstance(item, ShardError):
            raise item
        seen, bad = seen + item.id.numel(), bad + len(item.bad)
        if bad > max(1.0, bad_limit * seen):
            raise ShardError(
                f"{bad} of {seen} samples were damaged, above --data.bad-limit {bad_limit}: {item.bad[-1]}"
            )
        yield item


def read_samples(
    index: DatasetIndex, store: Store, ids: Sequence[int], config: StreamConfig | None = None
) -> tuple[Tensor, Tensor | None]:
    """The samples of those ids, each a number in the dataset: uint8 [N, C, *S] and labels int64 [N] or None.

    Raises ShardError for a damaged one.
    """
    one_by_one = Plan(seed=0, microbatches=1, microbatch_size=1, draws=1, lanes=1, block=1)
    pixels = np.empty((len(ids), *index.shape.dims), dtype=np.uint8)
    labels = np.empty(len(ids), dtype=np.int64)
    shards = np.searchsorted(index.offsets, ids, side="right") - 1
    rows = np.asarray(ids) - index.offsets[shards]
    with closing(_Reader(index, store, one_by_one, range(1), config or StreamConfig(decoded_bytes=0))) as reader:
        for at, (shard, row) in enumerate(zip(shards.tolist(), rows.tolist(), strict=True)):
            labels[at] = reader.decode(shard, row, pixels[at])
    return torch.from_numpy(pixels), None if index.classes is None else torch.from_numpy(labels)


class _Steps(Dataset["Item | ShardError"]):
    """A map from a step to its item; an error is handed over as a value, so that it keeps its one line."""

    def __init__(
        self, index: DatasetIndex, store: Store, plan: Plan, microbatches: range, config: StreamConfig
    ) -> None:
        self._arguments = (index, store, plan, microbatches, config)
        self._reader: _Reader | None = None

    def __getitem__(self, step: int) -> "Item | ShardError":
        if self._reader is None:
            self._reader = _Reader(*self._arguments)
        try:
            return self._reader.read(step)
        except ShardError as error:
            return error

    def close(self) -> None:
        """Close what this process has read; loader processes end with theirs."""
        if self._reader is not None:
            self._reader.close()


class _Reader:
    """Reads steps in one process: open shards, decoded samples, and nothing that changes what comes."""

    def __init__(
        self, index: DatasetIndex, store: Store, plan: Plan, microbatches: range, config: StreamConfig
    ) -> None:
        self._index, self._plan, self._microbatches, self._config = index, plan, microbatches, config
        self._order = Order(index.counts, plan)
        self._modality = modality(index.modality)
        self._counters: Counter[str] = Counter()
        self._shards = _OpenShards(index, store, config, self._counters)
        self._decoded = _Decoded(index, config.decoded_bytes)
        self._bad: list[str] = []

    def read(self, step: int) -> Item:
        """The item of a step. Raises ShardError."""
        samples = self._order.step(step, self._microbatches)
        pixels = np.empty((samples.id.size, *self._index.shape.dims), dtype=np.uint8)
        labels, ids = np.empty(samples.id.size, dtype=np.int64), samples.id.copy()
        missing = self._decoded.take(ids, pixels, labels)
        self._counters["decoded_hits"] += ids.size - missing.size
        for at in missing[np.lexsort((samples.row[missing], samples.shard[missing]))].tolist():
            ids[at], labels[at] = self._read_sample(samples, at, pixels[at])
        self._decoded.keep(ids[missing], missing, pixels, labels)
        shape = (self._plan.draws, len(self._microbatches), self._plan.microbatch_size)
        return Item(
            step=step,
            sample=torch.from_numpy(pixels).view(*shape, *self._index.shape.dims),
            label=None if self._index.classes is None else torch.from_numpy(labels).view(shape),
            id=torch.from_numpy(ids).view(shape),
            counters=self._take_counters(),
            bad=self._take_bad(),
        )

    def _read_sample(self, samples: Samples, at: int, out: NDArray[np.uint8]) -> tuple[int, int]:
        """(id, label) of the sample decoded into `out`: the one wanted, or where it is damaged a substitute."""
        try:
            return int(samples.id[at]), self.decode(int(samples.shard[at]), int(samples.row[at]), out)
        except ShardError as error:
            if self._config.on_bad == "error":
                raise
            self._counters["bad"] += 1
            self._bad.append(str(error))
        others = self._order.substitutes(int(samples.lane[at]), int(samples.position[at]), _SUBSTITUTES)
        for other, shard, row in zip(others.id.tolist(), others.shard.tolist(), others.row.tolist(), strict=True):
            try:
                return other, self.decode(shard, row, out)
            except ShardError as error:
                last = error
        raise ShardError(f"no good sample near a damaged one in {_SUBSTITUTES} draws: {last}") from last

    def decode(self, number: int, row: int, out: NDArray[np.uint8]) -> int:
        """Decode a sample into `out`, and its label, 0 where the dataset has none. Raises ShardError."""
        shard = self._shards.get(number)
        member, extension = shard.picture(row)
        self._counters["bytes"] += len(member)
        try:
            self._modality.decode_into(member, extension, out)
        except DecodeError as error:
            raise ShardError(f"{shard.name}: sample {shard.key(row)} {error}") from error
        if self._index.classes is None:
            return 0
        label = shard.label(row)
        if label is None or label >= self._index.classes:
            raise ShardError(
                f"{shard.name}: the label of {shard.key(row)} is {label}, of {self._index.classes} classes"
            )
        return label

    def close(self) -> None:
        """Close the shards that are open."""
        self._shards.close()

    def _take_counters(self) -> dict[str, int]:
        taken = {
            name: self._counters[name] for name in ("bytes", "fetched", "cache_hits", "decoded_hits", "retries", "bad")
        }
        self._counters.clear()
        return taken

    def _take_bad(self) -> list[str]:
        taken, self._bad = self._bad, []
        return taken


class _OpenShards:
    """The shards used last, open."""

    def __init__(self, index: DatasetIndex, store: Store, config: StreamConfig, counters: Counter[str]) -> None:
        self._index, self._store, self._limit = index, store, config.open_shards
        self._extensions = modality(index.modality).extensions
        self._files = ShardFiles(store, config.cache, counters)
        self._open: OrderedDict[int, tuple[int, Shard]] = OrderedDict()
        self._broken: dict[int, str] = {}

    def get(self, number: int) -> Shard:
        """A shard by its number in the index. Raises ShardError, at once where it failed before."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number][1]
        if number in self._broken:
            raise ShardError(self._broken[number])
        try:
            opened = self._open[number] = self._load(number)
        except ShardError as error:
            self._broken[number] = str(error)
            raise
        if len(self._open) > self._limit:
            _, (descriptor, _) = self._open.popitem(last=False)
            os.close(descriptor)
        return opened[1]

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            os.close(self._open.popitem()[1][0])

    def _load(self, number: int) -> tuple[int, Shard]:
        info = self._index.shards[number]
        descriptor = self._files.open(info)
        try:
            url = (self._store / info.name).url
            return descriptor, Shard(
                partial(_read_at, descriptor), info.bytes, url, self._extensions, samples=info.samples
            )
        except BaseException:
            os.close(descriptor)
            raise


class _Decoded:
    """Decoded samples kept in memory: those of the lowest ids that fit, so that a small dataset is decoded once."""

    def __init__(self, index: DatasetIndex, limit_bytes: int) -> None:
        self._capacity = min(index.samples, limit_bytes // index.shape.numel)
        self._pixels = np.empty((self._capacity, *index.shape.dims), dtype=np.uint8)
        self._labels = np.empty(self._capacity, dtype=np.int64)
        self._known = np.zeros(self._capacity, dtype=np.bool_)

    def take(self, ids: IntArray, pixels: NDArray[np.uint8], labels: IntArray) -> IntArray:
        """Fill in the samples that are kept; the places of the others are returned."""
        held = ids < self._capacity
        held[held] = self._known[ids[held]]
        places = np.flatnonzero(held)
        pixels[places], labels[places] = self._pixels[ids[places]], self._labels[ids[places]]
        return np.flatnonzero(~held)

    def keep(self, ids: IntArray, places: IntArray, pixels: NDArray[np.uint8], labels: IntArray) -> None:
        """Keep the samples at `places` that have room."""
        room = ids < self._capacity
        ids, places = ids[room], places[room]
        self._pixels[ids], self._labels[ids], self._known[ids] = pixels[places], labels[places], True


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    return os.pread(descriptor, length, offset)
