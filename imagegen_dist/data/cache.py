"""Open a dataset's shards as local files: in place where they are local, else through a cache that a node shares.

A shard is fetched whole, once a node, checked against its size and CRC, and kept under its SHA-256 in a directory of
bounded size; the one unused for longest goes first. Whoever has opened a shard keeps it open, also when it is evicted.

A file of the cache whose content was checked has a time of modification that follows from its CRC, which any write
changes. One without it is read through and checked before it is used; the time of last access says when that was.
"""

import os
import random
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imagegen_dist.data.counters import Counters
from imagegen_dist.data.index import ShardInfo
from imagegen_dist.data.node_folder import PARTIAL, SHARDS, NodeFolder, locked, node_path
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import AccessError, Store

_FINAL = (FileNotFoundError, AccessError, ShardError)
_FINAL_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 20.0
_SHORTEST_S = 0.1
_CHUNK_BYTES = 1 << 20
_NANOSECONDS = 10**9
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class TimedOutError(ShardError):
    """A shard that could not be fetched within the time limit."""


@dataclass(frozen=True)
class CacheConfig:
    """Where fetched shards are kept on a node, and how they are fetched. Raises ValueError for what cannot work."""

    directory: str = ""
    """Local folder of this user alone; empty: a folder below the system's temporary folder."""
    limit_bytes: int = 64 << 30
    """Bytes of cached shards to keep on a node, in addition to those that are open."""
    timeout_s: float = 300.0
    """Seconds after which a shard that cannot be fetched ends the run."""
    stall_s: float = 15.0
    """Seconds without a received byte after which a request is repeated."""
    fetches: int = 8
    """Shards that one process fetches at the same time."""

    def __post_init__(self) -> None:
        for name in ("limit_bytes", "timeout_s", "stall_s", "fetches"):
            if getattr(self, name) <= 0:
                flag = name.replace("_", "-")
                raise ValueError(f"--data.cache.{flag} is {getattr(self, name)}; it must be positive")

    @property
    def folder(self) -> Path:
        """The local folder, which is `directory` or, where others may enter that, one of this user's in it."""
        return node_path(self.directory)


class ShardFiles:
    """Opens the shards of a store; may be used by several threads."""

    def __init__(self, store: Store, folder: NodeFolder, config: CacheConfig, counters: Counters) -> None:
        self._store, self._config, self._counters = store, config, counters
        self._folder = folder

    def open(self, info: ShardInfo, timeout_s: float | None = None) -> int:
        """A file descriptor of a shard, for the caller to close.

        timeout_s: as configured, unless given; one attempt is always made. Raises ShardError where the shard is missing
        or differs from the index, TimedOutError where it cannot be fetched in time.
        """
        local = self._store.local_path(info.name)
        if local is not None:
            return _open_in_place(info, local)
        limit_s = self._config.timeout_s if timeout_s is None else timeout_s
        cached, deadline = self._cached(info), time.monotonic() + limit_s
        descriptor = _open_checked(cached, info)
        if descriptor is not None:
            self._counters.add("cache_hits")
            return descriptor
        self._counters.add("cache_misses")
        with locked(self._lock_of(info), deadline) as held:
            if not held:
                raise TimedOutError(
                    f"{self._store / info.name} cannot be fetched: another reader on this node tries since "
                    f"{limit_s:g} s"
                )
            descriptor = _open_checked(cached, info)
            if descriptor is None:
                descriptor = self._fetch(info, cached, deadline)
        self._folder.sweep(info.bytes)
        return descriptor

    def fetch_ahead(self, info: ShardInfo) -> None:
        """Bring a shard to the cache if nobody does yet. A fault is left to `open`, which tries longer and reports."""
        cached = self._cached(info)
        with locked(self._lock_of(info), deadline=0) as held:
            if not held:
                return
            descriptor = _open_checked(cached, info)
            if descriptor is not None:
                os.close(descriptor)
                return
            try:
                os.close(self._attempt(info, cached, self._config.timeout_s))
            except (OSError, ShardError):
                self._counters.add("retries")
        self._folder.sweep(info.bytes)

    def _cached(self, info: ShardInfo) -> Path:
        return self._folder.path / f"{info.sha256}{SHARDS}"

    def _lock_of(self, info: ShardInfo) -> Path:
        return self._folder.path / f"{info.sha256[:3]}.lock"

    def _fetch(self, info: ShardInfo, cached: Path, deadline: float) -> int:
        """Fetch and open a shard; transient faults are tried until the deadline, others thrice."""
        attempt, final = 0, 0
        while True:
            attempt += 1
            try:
                return self._attempt(info, cached, max(deadline - time.monotonic(), _SHORTEST_S))
            except (OSError, ShardError) as error:
                final += isinstance(error, _FINAL)
                pause = random.uniform(0.5, 1) * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1))
                late = time.monotonic() + pause > deadline
                if late or final >= _FINAL_ATTEMPTS:
                    tried = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                    kind = TimedOutError if late else ShardError
                    raise kind(f"{self._store / info.name} cannot be fetched ({tried}): {error}") from error
                self._counters.add("retries")
                time.sleep(pause)

    def _attempt(self, info: ShardInfo, cached: Path, timeout_s: float) -> int:
        """Fetch and open a shard, or raise; what came of it is kept for the next attempt unless it is wrong."""
        partial = cached.with_suffix(PARTIAL)
        try:
            self._store.download(info.name, partial, timeout_s, self._config.stall_s)
            _check_content(partial, info)
        except ShardError:
            partial.unlink(missing_ok=True)
            raise
        except OSError:
            with suppress(FileNotFoundError):
                if partial.stat().st_size >= info.bytes:
                    partial.unlink()
            raise
        self._counters.add("fetched", info.bytes)
        descriptor = os.open(partial, _FLAGS)  # before it has a name by which another process may evict it
        os.replace(partial, cached)
        _mark_checked(descriptor, info)  # under its last name: a partial file of that age counts as abandoned
        return descriptor


def _open_in_place(info: ShardInfo, path: Path) -> int:
    try:
        descriptor = _open_complete(path, info.bytes)
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror}") from error
    if descriptor is not None:
        return descriptor
    found = f"has {path.stat().st_size} bytes" if path.exists() else "is missing"
    raise ShardError(f"{path} {found}, but the index says {info.bytes} bytes")


def _open_complete(path: Path, size: int) -> int | None:
    """A descriptor of the file if it is there and has that size."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if os.fstat(descriptor).st_size == size:
        return descriptor
    os.close(descriptor)
    return None


def _open_checked(path: Path, info: ShardInfo) -> int | None:
    """A descriptor of a cached file that is the one which the index describes, marked as used now; else None.

    A symbolic link, and a file whose content differs, count as absent.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return None
    status = os.fstat(descriptor)
    try:
        if status.st_size == info.bytes and status.st_mtime_ns != _mark(info):
            _check_content(path, info)
        if status.st_size == info.bytes:
            _mark_checked(descriptor, info)
            return descriptor
    except (OSError, ShardError):
        pass
    os.close(descriptor)
    return None


def _mark(info: ShardInfo) -> int:
    """The time of modification of a file that was checked, in nanoseconds: a whole second between 1970 and 2004."""
    return (info.crc32 & 0x3FFF_FFFF) * _NANOSECONDS


def _mark_checked(descriptor: int, info: ShardInfo) -> None:
    """Say that the file is the one which the index describes, and that it is used now."""
    os.utime(descriptor, ns=(time.time_ns(), _mark(info)))


def _check_content(path: Path, info: ShardInfo) -> None:
    """Raises ShardError where a fetched file is not the one that the index describes."""
    size, crc, buffer = 0, 0, memoryview(bytearray(_CHUNK_BYTES))
    with open(os.open(path, _FLAGS), "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            size, crc = size + count, zlib.crc32(buffer[:count], crc)
    if size != info.bytes:
        raise ShardError(f"{size} bytes came, but the index says {info.bytes}")
    if crc != info.crc32:
        raise ShardError(f"its CRC is {crc:08x}, but the index says {info.crc32:08x}")
