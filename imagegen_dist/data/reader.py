"""Read steps as microbatches in one process, and the configuration of reading."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagegen_dist.conditions.part import Vector
from imagegen_dist.data.arrays import ArrayReads
from imagegen_dist.data.cache import CacheConfig
from imagegen_dist.data.conditioned_shard import ConditionedShard
from imagegen_dist.data.counters import Counters
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.labels import Label
from imagegen_dist.data.modality import ARRAY, DecodeError, modality, stored_type
from imagegen_dist.data.open_shards import OpenShards
from imagegen_dist.data.order import IntArray, Order, Plan, Samples, StepByStep
from imagegen_dist.data.shard import Shard
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store

_SUBSTITUTES = 16


@dataclass(frozen=True)
class StreamConfig:
    """How samples are read. Raises ValueError for unusable values."""

    workers: int = 0
    """Loader processes of a rank; 0 reads in the training process."""
    prefetch: int = 2
    """Steps that each loader process keeps ready."""
    open_shards: int = 0
    """Shards that each process keeps open; 0: those of one block of each of its lanes."""
    decoded_bytes: int = 64 << 20
    """Bytes up to which each process keeps a whole dataset decoded in memory."""
    on_bad: Literal["error", "substitute"] = "error"
    """What a damaged sample does: end the run, or be replaced by another sample."""
    bad_limit: float = 0.001
    """Share of damaged samples above which the run stops, from 0 to 1."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """The cache of shards from remote storage."""
    allow_remote_shards: bool = False
    """Whether an index may name shards that are neither below nor beside it."""

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("prefetch", 1), ("open_shards", 0), ("decoded_bytes", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise ValueError(f"--data.{flag} is {getattr(self, name)}; it must be at least {least}")
        if self.on_bad not in ("error", "substitute"):
            raise ValueError(f"--data.on-bad is {self.on_bad!r}; it must be error or substitute")
        if not 0 < self.bad_limit <= 1:
            raise ValueError(f"--data.bad-limit is {self.bad_limit}; it must lie in (0, 1]")


@dataclass
class Item:
    """The microbatches of a rank for one step."""

    step: int
    sample: Tensor  # uint8 or uint16 [draws, M, b, C, *S], in the memory layout of the decoder
    label: Tensor | None  # int64 [draws, M, b], or conditions float32 [draws, M, b, K]; None without labels
    id: Tensor  # int64 [draws, M, b], number of each sample in the dataset
    counters: dict[str, int]  # of data.counters.COUNTED, since the last item of the process
    bad: list[str]  # what was wrong with each substituted sample
    held_out: "Item | None" = None  # held-out samples for a measurement, [1, M, b, ...], if one is due after this step


class Reader:
    """Reads steps. Its state is open shards and decoded samples, which do not change what is read.

    every: the distance of the steps that are asked for, which is the number of processes that read in turn.
    """

    def __init__(
        self,
        index: DatasetIndex,
        store: Store,
        plan: Plan,
        microbatches: range,
        config: StreamConfig,
        every: int = 1,
    ) -> None:
        self._index, self._plan, self._microbatches, self._config = index, plan, microbatches, config
        self._order = Order(index.counts, plan)
        self._samples = StepByStep(self._order, microbatches, every)
        self._modality = modality(index.modality)
        self._counters = Counters()
        lanes = plan.lanes // plan.microbatches * len(microbatches)
        limit = config.open_shards or lanes * (plan.block + 1)
        self._shards = OpenShards(index, store, config.cache, min(limit, len(index.shards)), self._counters)
        self._decoded = _Decoded(index, config.decoded_bytes)
        one = arranged(np.empty(index.shape.numel, stored_type(index.shape)), index)
        in_place = one.flags.c_contiguous and index.conditions is None
        self._arrays = ArrayReads(index.shape, index.extensions) if in_place else None
        self._next_block: IntArray = np.zeros(plan.lanes, dtype=np.int64)
        self._memory = _Memory(slots=config.prefetch + 2)
        self._bad: list[str] = []
        self._bytes = 0

    def read(self, step: int) -> Item:
        """Read one step. Raises ShardError."""
        samples = self._samples[step]
        memory = self._memory.take(samples.id.size * self._index.shape.bytes)
        pixels = arranged(memory.numpy().view(stored_type(self._index.shape)), self._index)
        labels, ids = empty_labels(self._index, samples.id.size), samples.id.copy()
        missing = self._decoded.take(ids, pixels, labels)
        self._counters.add("decoded_hits", ids.size - missing.size)
        if self._shards.fetches:
            self._shards.fetch(np.unique(samples.shard[missing]).tolist())
            self._fetch_ahead(samples)
        in_order = missing[np.lexsort((samples.row[missing], samples.shard[missing]))]
        if self._arrays is not None:
            in_order = self._read_arrays(self._arrays, samples, in_order, memory, labels)
        for at in in_order.tolist():
            ids[at], labels[at] = self._read_sample(samples, at, pixels[at])
        self._decoded.keep(ids[missing], missing, pixels, labels)
        self._counters.add("bytes", self._bytes)
        self._bytes = 0
        shape = (self._plan.draws, len(self._microbatches), self._plan.microbatch_size)
        return Item(
            step=step,
            sample=_like(pixels.reshape(*shape, *pixels.shape[1:]), memory),
            label=None if self._index.labels is None else torch.from_numpy(labels.reshape(*shape, *labels.shape[1:])),
            id=torch.from_numpy(ids.reshape(shape)),
            counters=self._counters.take(),
            bad=self._take_bad(),
        )

    def decode(self, number: int, row: int, out: NDArray[Any]) -> int | Vector:
        """Decode a sample into `out` and return its label as networks take it, 0 without labels. Raises ShardError."""
        shard = self._shards.get(number)
        labelled = self._index.labels is not None
        member, extension, label = shard.sample(row) if labelled else (*shard.picture(row), None)
        self._bytes += len(member)
        try:
            self._modality.decode_into(member, extension, out)
        except DecodeError as error:
            raise ShardError(f"{shard.name}: sample {shard.key(row)} {error}") from error
        return self._encoded(label, shard, row) if labelled else 0

    def _encoded(self, label: Label | dict[str, Any] | None, shard: Shard, row: int) -> int | Vector:
        """A label as networks take it. Raises ShardError."""
        if isinstance(label, int) and label < (self._index.classes or 0):
            return label
        try:
            return self._index.encode_label(label)
        except ValueError as error:
            what = "label" if self._index.conditions is None else "condition"
            raise ShardError(f"{shard.name}: the {what} of {shard.key(row)} is {error}") from error

    def _read_arrays(
        self, arrays: ArrayReads, samples: Samples, order: IntArray, memory: Tensor, labels: NDArray[Any]
    ) -> IntArray:
        """Read the samples at these places, in the order of shards and rows, that are plain arrays; the others' places.

        Whatever is wrong with a sample is left to `decode` to say.
        """
        values, size = memory.numpy().data, self._index.shape.bytes
        labelled, left = self._index.labels is not None, list[int]()
        places = zip(order.tolist(), samples.shard[order].tolist(), samples.row[order].tolist(), strict=True)
        last = -1
        for at, number, row in places:
            try:
                if number != last:
                    shard = self._shards.get(number)
                    read, last = shard.read_array or arrays.of_shard(shard, labelled), number
                found = read(row, values[at * size : (at + 1) * size])
                if found is None:
                    left.append(at)
                elif labelled:
                    labels[at] = self._encoded(found[0], shard, row)
            except ShardError:
                left.append(at)
        self._bytes += (len(order) - len(left)) * arrays.whole
        return np.array(left, np.int64)

    def close(self) -> None:
        """Close all open shards."""
        self._shards.close()

    def _fetch_ahead(self, samples: Samples) -> None:
        """For each lane that has entered a new block, fetch the shards of that block and of the next one."""
        entered = samples.position >= self._next_block[samples.lane]
        if not entered.any():
            return
        here, next_ = [], []
        for lane in np.unique(samples.lane[entered]).tolist():
            position = int(samples.position[samples.lane == lane].max())
            shards, self._next_block[lane] = self._order.block(lane, position)
            here += shards.tolist()
            next_ += self._order.block(lane, int(self._next_block[lane]))[0].tolist()
        self._shards.fetch_ahead(dict.fromkeys([*here, *next_]))

    def _read_sample(self, samples: Samples, at: int, out: NDArray[Any]) -> tuple[int, int | Vector]:
        """Decode a sample, or a substitute if it is damaged, into `out`; returns the (id, label) of the decoded one."""
        try:
            return int(samples.id[at]), self.decode(int(samples.shard[at]), int(samples.row[at]), out)
        except ShardError as error:
            if self._config.on_bad == "error":
                raise
            self._counters.add("bad")
            self._bad.append(str(error))
        others = self._order.substitutes(int(samples.lane[at]), int(samples.position[at]), _SUBSTITUTES)
        for other, shard, row in zip(others.id.tolist(), others.shard.tolist(), others.row.tolist(), strict=True):
            try:
                return other, self.decode(shard, row, out)
            except ShardError as error:
                last = error
        raise ShardError(f"{_SUBSTITUTES} substitutes for a damaged sample are damaged as well: {last}") from last

    def _take_bad(self) -> list[str]:
        taken, self._bad = self._bad, []
        return taken


def read_by_id(
    index: DatasetIndex, store: Store, ids: Sequence[int], config: StreamConfig
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read samples by id: (uint8 or uint16 [N, C, *S], labels int64 [N] or conditions float32 [N, K]).

    Raises ShardError for a damaged sample.
    """
    one_by_one = Plan(seed=0, microbatches=1, microbatch_size=1, draws=1, lanes=1, block=1)
    pixels = np.empty((len(ids), *index.shape.dims), stored_type(index.shape))
    labels = empty_labels(index, len(ids))
    reader = Reader(index, store, one_by_one, range(1), config)
    try:
        for at, (shard, row) in enumerate(_locate(index, ids)):
            labels[at] = reader.decode(shard, row, pixels[at])
    finally:
        reader.close()
    return pixels, labels


def read_records(
    index: DatasetIndex, store: Store, ids: Sequence[int], cache: CacheConfig | None = None
) -> list[dict[str, Any]]:
    """Read the `.json` members of samples by id; {} for a sample without one. Raises ShardError."""
    shards = OpenShards(index, store, cache or CacheConfig(), 1, Counters())
    try:
        return [shards.get(number).record(row) for number, row in _locate(index, ids)]
    finally:
        shards.close()


def read_labels(
    index: DatasetIndex, store: Store, ids: Sequence[int], cache: CacheConfig | None = None
) -> NDArray[np.int64] | Vector:
    """The labels of samples by id, int64 [N], or conditions float32 [N, K], without decoding the samples.

    The dataset has labels. Raises ShardError for a label that its index does not have.
    """
    shards, found = OpenShards(index, store, cache or CacheConfig(), 1, Counters()), empty_labels(index, len(ids))
    try:
        for at, (number, row) in enumerate(_locate(index, ids)):
            shard = shards.get(number)
            try:
                label = shard.condition(row) if isinstance(shard, ConditionedShard) else shard.label(row)
                found[at] = index.encode_label(label)
            except ShardError:
                raise
            except ValueError as error:
                raise ShardError(f"{shard.name}: the label of {shard.key(row)} is {error}") from error
    finally:
        shards.close()
    return found


def _locate(index: DatasetIndex, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(number of the shard, row in the shard) of each sample."""
    shards = np.searchsorted(index.offsets, ids, side="right") - 1
    rows = np.asarray(ids) - index.offsets[shards]
    return zip(shards.tolist(), rows.tolist(), strict=True)


def arranged(flat: NDArray[Any], index: DatasetIndex) -> NDArray[Any]:
    """View flat values as samples [N, C, *S] in the layout in which they are read: that of arrays, or of decoders."""
    if index.extensions == (ARRAY,):
        return flat.reshape(-1, *index.shape.dims)
    return modality(index.modality).arrange(flat, index.shape)


class _Memory:
    """The memory into which steps are decoded; in a loader process it is shared memory that is reused.

    The page faults of new shared memory take longer than the decoding of a large image. slots: steps that may be in use
    at the same time; the loader requests a step from this process when it hands out the one `prefetch` earlier, so that
    prefetch + 1 of them are.
    """

    def __init__(self, slots: int) -> None:
        self._slots: list[Tensor] = []
        self._count = slots
        self._taken = 0

    def take(self, count: int) -> Tensor:
        """Uninitialised bytes, [count]."""
        if torch.utils.data.get_worker_info() is None:
            return empty_bytes(count)
        number, self._taken = self._taken % self._count, self._taken + 1
        if number == len(self._slots):
            storage = torch.UntypedStorage._new_shared(count)  # as torch's own collate does
            self._slots.append(torch.empty(0, dtype=torch.uint8).set_(storage))
        return self._slots[number]


def _like(pixels: NDArray[Any], memory: Tensor) -> Tensor:
    """The tensor of an array in this memory, with the array's layout."""
    values = memory if pixels.dtype == np.uint8 else memory.view(torch.uint16)
    return values.as_strided(pixels.shape, [stride // pixels.itemsize for stride in pixels.strides])


def empty_bytes(count: int) -> Tensor:
    """Uninitialised bytes, [count], allocated by numpy: glibc keeps much of what torch.empty frees."""
    return torch.from_numpy(np.empty(count, dtype=np.uint8))


def empty_labels(index: DatasetIndex, count: int) -> NDArray[Any]:
    """Uninitialised labels of samples: int64 [count], or conditions float32 [count, K]."""
    return np.empty((count, *index.label_dims), np.int64 if index.conditions is None else np.float32)


class _Decoded:
    """The decoded samples of a small dataset, which is thus decoded once; for a large one it stays empty."""

    def __init__(self, index: DatasetIndex, limit_bytes: int) -> None:
        self._capacity = index.samples if index.samples * index.shape.bytes <= limit_bytes else 0
        self._pixels = arranged(np.empty(self._capacity * index.shape.numel, stored_type(index.shape)), index)
        self._labels = empty_labels(index, self._capacity)
        self._known = np.zeros(self._capacity, dtype=np.bool_)

    def take(self, ids: IntArray, pixels: NDArray[Any], labels: NDArray[Any]) -> IntArray:
        """Fill in the cached samples; returns the places of the others."""
        if not self._capacity:
            return np.arange(ids.size)
        held = self._known[ids]
        places = np.flatnonzero(held)
        pixels[places], labels[places] = self._pixels[ids[places]], self._labels[ids[places]]
        return np.flatnonzero(~held)

    def keep(self, ids: IntArray, places: IntArray, pixels: NDArray[Any], labels: NDArray[Any]) -> None:
        """Cache the samples at `places`."""
        if not self._capacity:
            return
        self._pixels[ids], self._labels[ids], self._known[ids] = pixels[places], labels[places], True
