"""The shards that a process keeps open, and those that it fetches before they are needed."""

import hashlib
import os
import resource
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.cache import OFFSETS, CacheConfig, NodeFolder, ShardFiles, TimedOutError
from imagegen_dist.data.conditioned_shard import ConditionedShard
from imagegen_dist.data.counters import Counters
from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.data.shard import Shard
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store

_OTHER_FILES = 256
_CRC_BYTES = 4


class OpenShards:
    """Opens shards by their number in the index and keeps the most recently used ones open.

    limit: number of open shards. Several shards are fetched from remote storage at the same time, and ahead of use on
    request. If one cannot be fetched within the time limit, each other one of that step is attempted only once, so that
    the time limit is not spent again for each.
    """

    def __init__(self, index: DatasetIndex, store: Store, cache: CacheConfig, limit: int, counters: Counters) -> None:
        self._index, self._store = index, index.location(store)
        self._limit = _allowed_files(limit)
        self._extensions = index.extensions
        folder = NodeFolder(cache.folder, cache.limit_bytes)
        self._files = ShardFiles(self._store, folder, cache, counters)
        self._shard = Shard if index.conditions is None else ConditionedShard
        self._offsets = _KnownOffsets(folder, self._extensions, self._shard.layout)
        self._open: OrderedDict[int, tuple[int, Shard]] = OrderedDict()
        self._broken: dict[int, str] = {}
        self._timed_out = False
        # Daemon threads: a loader process that ends does not wait for its fetches.
        self._now: ThreadPool | None = None
        self._ahead: ThreadPool | None = None
        self.fetches = self._store.local_path() is None
        """Whether shards are fetched; local ones are read where they lie."""
        if self.fetches:
            self._now, self._ahead = ThreadPool(cache.fetches), ThreadPool(max(1, cache.fetches // 2))

    def get(self, number: int) -> Shard:
        """A shard. Raises ShardError, immediately if the shard has failed before."""
        if number not in self._open and number not in self._broken:
            self._take_in(number, self._descriptor(number))
        if number in self._broken:
            raise ShardError(self._broken[number])
        self._open.move_to_end(number)
        return self._open[number][1]

    def fetch(self, numbers: Iterable[int]) -> None:
        """Open the shards of a step, fetching in parallel; failures are reported by `get`."""
        missing = [number for number in numbers if number not in self._open and number not in self._broken]
        self._timed_out = False
        if self._now is not None and len(missing) > 1:
            for number, opened in zip(missing, self._now.map(self._descriptor, missing, chunksize=1), strict=True):
                self._take_in(number, opened)

    def fetch_ahead(self, numbers: Iterable[int]) -> None:
        """Fetch shards to the node in the background."""
        if self._ahead is not None:
            infos = [self._index.shards[number] for number in numbers if number not in self._open]
            self._ahead.map_async(self._files.fetch_ahead, infos, chunksize=1)

    def close(self) -> None:
        """Close all shards and stop fetching."""
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
        """Keep an opened shard, or the reason why it cannot be read."""
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
            known = self._offsets.load(info, stamp)
            shard = self._shard(read_at, info.bytes, url, self._extensions, info.samples, known, descriptor)
            if known is None:
                self._offsets.keep(info, stamp, shard.offsets)
            return shard
        except BaseException:
            os.close(descriptor)
            raise


def _allowed_files(wanted: int) -> int:
    """How many files the process may keep open, up to `wanted`; its limit is raised as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + _OTHER_FILES:
        ceiling = wanted + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(wanted + _OTHER_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
        return max(1, min(wanted, ceiling - _OTHER_FILES))
    return wanted


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    return os.pread(descriptor, length, offset)


class _KnownOffsets:
    """Sample offsets of shards by SHA-256, in files that all processes of a node share.

    Walking the headers takes microseconds for each member, which every loader process would otherwise spend on every
    shard in every epoch. A file that does not fit its shard counts as absent.
    """

    def __init__(self, folder: NodeFolder, extensions: Sequence[str], layout: np.dtype[np.void]) -> None:
        self._folder, self._layout = folder, layout
        self._kind = hashlib.sha256(repr((*extensions, layout.descr)).encode()).hexdigest()[:8]

    def load(self, info: ShardInfo, stamp: int) -> NDArray[np.void] | None:
        """Offsets of a shard's samples, [n], or None if they are not known.

        stamp: time of modification of a file that is read in place, which distinguishes its versions.
        """
        path = self._folder.path / self._name(info, stamp)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        content = data[:-_CRC_BYTES]
        if (
            len(content) != info.samples * self._layout.itemsize
            or zlib.crc32(content).to_bytes(4, "little") != data[-4:]
        ):
            return None
        return np.frombuffer(content, self._layout)

    def keep(self, info: ShardInfo, stamp: int, offsets: NDArray[np.void]) -> None:
        """Save the offsets of a shard; a full disk is not an error."""
        content = offsets.tobytes()
        partial = self._folder.path / f"{uuid.uuid4().hex}.part"
        try:
            partial.write_bytes(content + zlib.crc32(content).to_bytes(_CRC_BYTES, "little"))
            os.replace(partial, self._folder.path / self._name(info, stamp))
        except OSError:
            partial.unlink(missing_ok=True)
        else:
            self._folder.sweep(len(content))

    def _name(self, info: ShardInfo, stamp: int) -> str:
        return f"{info.sha256}-{stamp}-{self._kind}{OFFSETS}"
