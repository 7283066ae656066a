"""The stream of microbatches that a rank reads, step by step.

Its state is one integer, the step. An item of the loader is the rank's microbatches for one step, so that the number of
loader processes cannot change what is read, and any step is reached immediately.
"""

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from imagegen_dist.data.cache import CacheConfig, usable_bytes
from imagegen_dist.data.index import DatasetError, DatasetIndex
from imagegen_dist.data.order import Order, Plan
from imagegen_dist.data.reader import Item, Reader, StreamConfig, empty_bytes, read_by_id, read_labels, read_records
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted

__all__ = [
    "Item",
    "StreamConfig",
    "check_cache",
    "prepare_loaders",
    "read_labels",
    "read_records",
    "read_samples",
    "stream",
]

_NAMED = 5


def stream(
    index: DatasetIndex,
    store: Store,
    plan: Plan,
    microbatches: range,
    start_step: int,
    end_step: int,
    config: StreamConfig | None = None,
) -> Iterator[Item]:
    """Yield the items of steps [start_step, end_step) for a rank that owns some of the plan's microbatches.

    Raises ShardError for a damaged shard or sample (with substitution, for too many of them), and ValueError for
    `memory://` with loader processes, which cannot access it.
    """
    config = config or StreamConfig()
    if config.workers and store.protocol == "memory":
        raise ValueError(f"{store} is in the memory of this process only: set --data.workers 0")
    prepare_loaders(store, config)
    steps = _Steps(index, store, plan, microbatches, config)
    wanted = range(start_step, end_step)
    items: Iterable[Item | _Parcel | ShardError] = map(steps.__getitem__, wanted)
    if config.workers:
        items = DataLoader(
            steps,
            batch_size=None,
            sampler=wanted,
            num_workers=config.workers,
            # The fork server has imported torch once for all of them, and has no threads.
            multiprocessing_context="forkserver",
            prefetch_factor=config.prefetch,
        )
    with closing(steps):
        yield from _watched(items, config.bad_limit)


def prepare_loaders(store: Store, config: StreamConfig) -> None:
    """Start the fork server of the loader processes in the background.

    It takes seconds, during which networks can be built and the index be read; `stream` then finds it ready.
    """
    if config.workers:
        multiprocessing.set_forkserver_preload([__name__, *store.client_modules()])
        forkserver.ensure_running()


def read_samples(
    index: DatasetIndex, store: Store, ids: Sequence[int], config: StreamConfig | None = None
) -> tuple[Tensor, Tensor | None]:
    """Read samples by id, their number in the dataset: (uint8 or uint16 [N, C, *S], labels int64 [N], conditions
    float32 [N, K], or None).

    Raises ShardError for a damaged sample.
    """
    pixels, labels = read_by_id(index, store, ids, config or StreamConfig(decoded_bytes=0))
    return torch.from_numpy(pixels), None if index.labels is None else torch.from_numpy(labels)


def check_cache(index: DatasetIndex, store: Store, plan: Plan, microbatches: range, config: CacheConfig) -> None:
    """Check that a node's cache can hold the current and the next block of each lane of its microbatches.

    Raises DatasetError with the number to set.
    """
    place = index.location(store)
    if place.local_path() is not None:
        return
    order, each = Order(index.counts, plan), plan.lanes // plan.microbatches
    shards = set[int]()
    for lane in range(microbatches.start * each, microbatches.stop * each):
        here, following = order.block(lane, 0)
        shards.update(here.tolist(), order.block(lane, following)[0].tolist())
    needed, free = sum(index.shards[number].bytes for number in shards), usable_bytes(config.folder)
    if needed <= min(config.limit_bytes, free):
        return
    said = (
        f"{place}: the current and the next block of a node's {counted(len(microbatches) * each, 'lane')} are "
        f"{counted(len(shards), 'shard')} of {needed:,} bytes"
    )
    remedy = f"or lower --data.block (now {plan.block}) or --data.lanes (now {plan.lanes})"
    if needed > config.limit_bytes:
        said += f", above --data.cache.limit-bytes {config.limit_bytes}: set it to {needed} or more, {remedy}"
    else:
        said += f", but {config.folder} has room for {free:,}: set --data.cache.directory to a larger disk, {remedy}"
    raise DatasetError(said)


@dataclass(frozen=True)
class _Parcel:
    """An item sent by a loader process, with small tensors as arrays, which need no file descriptors."""

    step: int
    place: tuple[int, int]  # (loader process, address there) of the shared memory that holds the samples
    sample: Tensor | None  # that memory, the first time only, since a descriptor costs more than small samples
    label: NDArray[Any] | None
    id: NDArray[np.int64]
    counters: dict[str, int]
    bad: list[str]

    @classmethod
    def pack(cls, item: Item, loader: int, sent: set[int]) -> "_Parcel":
        """Pack an item for sending. sent: addresses of memory that was sent before, to which this one is added."""
        address = item.sample.data_ptr()
        sample = None if address in sent else item.sample
        sent.add(address)
        label = None if item.label is None else item.label.numpy()
        return cls(item.step, (loader, address), sample, label, item.id.numpy(), item.counters, item.bad)

    def unpack(self, mapped: dict[tuple[int, int], Tensor]) -> Item:
        """The received item, with a copy of the samples. mapped: the memory that was received before."""
        if self.sample is not None:
            mapped[self.place] = self.sample
        shared = mapped[self.place]
        sample = empty_bytes(shared.nbytes).view(shared.dtype).as_strided(shared.shape, shared.stride()).copy_(shared)
        label = None if self.label is None else torch.from_numpy(self.label)
        return Item(self.step, sample, label, torch.from_numpy(self.id), self.counters, self.bad)


def _watched(items: Iterable[Item | _Parcel | ShardError], bad_limit: float) -> Iterator[Item]:
    """Yield items until one is an error, or until too many samples were damaged."""
    seen, bad, named = 0, 0, dict[str, None]()
    mapped: dict[tuple[int, int], Tensor] = {}
    for sent in items:
        if isinstance(sent, ShardError):
            raise sent
        item = sent.unpack(mapped) if isinstance(sent, _Parcel) else sent
        seen, bad = seen + item.id.numel(), bad + len(item.bad)
        if len(named) < _NAMED:
            named.update(dict.fromkeys(item.bad))
        if bad > max(1.0, bad_limit * seen):
            some = "; ".join(list(named)[:_NAMED])
            raise ShardError(
                f"{bad} of {counted(seen, 'sample')} were damaged, above --data.bad-limit {bad_limit}: {some}"
            )
        yield item


class _Steps(Dataset["Item | _Parcel | ShardError"]):
    """Maps a step to its item. An error is returned as a value, so that its message stays one line."""

    def __init__(
        self, index: DatasetIndex, store: Store, plan: Plan, microbatches: range, config: StreamConfig
    ) -> None:
        self._arguments = (index, store, plan, microbatches, config)
        self._reader: Reader | None = None
        self._sent = set[int]()  # addresses of shared memory that the training process has received

    def __getitem__(self, step: int) -> "Item | _Parcel | ShardError":
        loader = get_worker_info()
        if self._reader is None:
            self._reader = Reader(*self._arguments, every=1 if loader is None else loader.num_workers)
        try:
            item = self._reader.read(step)
            return item if loader is None else _Parcel.pack(item, loader.id, self._sent)
        except ShardError as error:
            return error

    def close(self) -> None:
        """Close the reader of this process; loader processes close theirs when they end."""
        if self._reader is not None:
            self._reader.close()
