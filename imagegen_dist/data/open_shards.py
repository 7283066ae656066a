"""The shards that a process has open, and those that it fetches before they are needed."""

import os
import resource
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from multiprocessing.pool import ThreadPool

from imagegen_dist.data.cache import CacheConfig, ShardFiles, TimedOutError
from imagegen_dist.data.counters import Counters
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.node_folder import NodeFolder
from imagegen_dist.data.shard import Shard
from imagegen_dist.data.tar_offsets import KnownPlaces
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store

_OTHER_FILES = 256


class OpenShards:
    """Opens shards by their number in the index; those used last stay open.

    limit: how many. From remote storage several are fetched at once, and ahead of use where that is asked for. Where
    one could not be had within the time limit, the others of that step are tried once: it is not paid for each.
    """

    def __init__(self, index: DatasetIndex, store: Store, cache: CacheConfig, limit: int, counters: Counters) -> None:
        self._index, self._store = index, index.location(store)
        self._limit = _allowed_files(limit)
        self._extensions = index.extensions
        folder = NodeFolder(cache.folder, cache.limit_bytes)
        self._files = ShardFiles(self._store, folder, cache, counters)
        self._places = KnownPlaces(folder, self._extensions)
        self._open: OrderedDict[int, tuple[int, Shard]] = OrderedDict()
        self._broken: dict[int, str] = {}
        self._timed_out = False
        # Of daemon threads: a loader process that ends does not wait for what it fetches.
        self._now: ThreadPool | None = None
        self._ahead: ThreadPool | None = None
        if self._store.local_path() is None:
            self._now, self._ahead = ThreadPool(cache.fetches), ThreadPool(max(1, cache.fetches // 2))

    def get(self, number: int) -> Shard:
        """A shard. Raises ShardError, at once where it failed before."""
        if number not in self._open and number not in self._broken:
            self._take_in(number, self._descriptor(number))
        if number in self._broken:
            raise ShardError(self._broken[number])
        self._open.move_to_end(number)
        return self._open[number][1]

    def fetch(self, numbers: Iterable[int]) -> None:
        """Open what a step needs, side by side where it has to be fetched; what fails is reported by `get`."""
        missing = [number for number in numbers if number not in self._open and number not in self._broken]
        self._timed_out = False
        if self._now is not None and len(missing) > 1:
            for number, opened in zip(missing, self._now.map(self._descriptor, missing, chunksize=1), strict=True):
                self._take_in(number, opened)

    def fetch_ahead(self, numbers: Iterable[int]) -> None:
        """Bring shards to the node in the background."""
        if self._ahead is not None:
            infos = [self._index.shards[number] for number in numbers if number not in self._open]
            self._ahead.map_async(self._files.fetch_ahead, infos, chunksize=1)

    def close(self) -> None:
        """Close all shards, and leave what is being fetched."""
        for pool in (self._now, self._ahead):
            if pool is not None:
                pool.terminate()
        while self._open:
            os.close(self._open.popitem()[1][0])

    def _descriptor(self, number: int) -> int | ShardError:
        try:
            return self._files.open(self._index.shards[number], 0.0 if self._timed_out else None)
        except ShardError as error:
            self._timed_out |= isinstance(error, TimedOutError)
            return error

    def _take_in(self, number: int, opened: int | ShardError) -> None:
        """Keep a shard whose file was opened, or the reason why it cannot be read."""
        try:
            if isinstance(opened, ShardError):
                raise opened
            self._open[number] = opened, self._walk(number, opened)
        except ShardError as error:
            self._broken[number] = str(error)
        if len(self._open) > self._limit:
            _, (descriptor, _) = self._open.popitem(last=False)
            os.close(descriptor)

    def _walk(self, number: int, descriptor: int) -> Shard:
        info = self._index.shards[number]
        try:
            url, read_at = (self._store / info.name).url, partial(_read_at, descriptor)
            stamp = 0 if self._now else os.fstat(descriptor).st_mtime_ns
            known = self._places.load(info, stamp)
            shard = Shard(read_at, info.bytes, url, self._extensions, info.samples, known)
            if known is None:
                self._places.keep(info, stamp, shard.places)
            return shard
        except BaseException:
            os.close(descriptor)
            raise


def _allowed_files(wanted: int) -> int:
    """How many of the wanted files the process may hold open, its limit raised as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + _OTHER_FILES:
        ceiling = wanted + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(wanted + _OTHER_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
        return max(1, min(wanted, ceiling - _OTHER_FILES))
    return wanted


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    return os.pread(descriptor, length, offset)
