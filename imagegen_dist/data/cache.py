"""A dataset's shards as local files: local ones in place, remote ones through a cache shared by a node's processes.

A shard is fetched whole, once for each node, checked against its size and CRC, and kept under its SHA-256 in a folder
of bounded size, from which the least recently used files are evicted. A process that has opened a shard can read it
also after its eviction.

The time of modification of a cached file whose content was checked is derived from its CRC; any write changes it. A
file with another time is read and checked before it is used. The time of last access is the time of its last use.
"""

import fcntl
import os
import random
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imagegen_dist.data.counters import Counters
from imagegen_dist.data.index import ShardInfo
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.private_folder import first_usable, is_private, make_private, numbered
from imagegen_dist.storage import AccessError, Store
from imagegen_dist.wording import counted, message

OFFSETS = ".places"
"""Extension of the files of sample offsets in a node's folder."""

_SHARDS, _PARTIAL = ".tar", ".part"
_FINAL = (FileNotFoundError, AccessError, ShardError)
_FINAL_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 20.0
_SHORTEST_S = 0.1
_CHUNK_BYTES = 1 << 20
_NANOSECONDS = 10**9
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_PAUSE_S = 0.02
_ABANDONED_S = 3600.0
_EVICTING = "evict.lock"

# Only files with the names that this package writes are removed: the user may keep other shards in the folder.
_OURS = re.compile(r"[0-9a-f]{64}\.tar|[0-9a-f]{64}-\d+-[0-9a-f]{8}\.places|([0-9a-f]{64}|[0-9a-f]{32})\.part")


class TimedOutError(ShardError):
    """A shard that could not be fetched within the time limit."""


@dataclass(frozen=True)
class CacheConfig:
    """Where fetched shards are kept on a node, and how they are fetched. Raises ValueError for unusable values."""

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
        """The local folder: `directory`, or if others may enter that, a folder of this user in it."""
        return node_path(self.directory)


class ShardFiles:
    """Opens the shards of a store; safe to use from several threads."""

    def __init__(self, store: Store, folder: "NodeFolder", config: CacheConfig, counters: Counters) -> None:
        self._store, self._config, self._counters = store, config, counters
        self._folder = folder

    def open(self, info: ShardInfo, timeout_s: float | None = None) -> int:
        """Open a shard and return its file descriptor, which the caller closes.

        timeout_s: time limit instead of the configured one; at least one attempt is made. Raises ShardError if the
        shard is missing or differs from the index, TimedOutError if it cannot be fetched in time.
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
        with _locked(self._lock_of(info), deadline) as held:
            if not held:
                raise TimedOutError(
                    f"{self._store / info.name} cannot be fetched: another reader on this node has tried "
                    f"for {limit_s:g} s"
                )
            descriptor = _open_checked(cached, info)
            if descriptor is None:
                descriptor = self._fetch(info, cached, deadline)
        self._folder.sweep(info.bytes)
        return descriptor

    def fetch_ahead(self, info: ShardInfo) -> None:
        """Fetch a shard into the cache unless another reader does. Faults are left to `open`, which tries longer."""
        cached = self._cached(info)
        with _locked(self._lock_of(info), deadline=0) as held:
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
        return self._folder.path / f"{info.sha256}{_SHARDS}"

    def _lock_of(self, info: ShardInfo) -> Path:
        return self._folder.path / f"{info.sha256[:3]}.lock"

    def _fetch(self, info: ShardInfo, cached: Path, deadline: float) -> int:
        """Fetch and open a shard, repeating after transient faults until the deadline and after others twice."""
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
                    tried = counted(attempt, "attempt")
                    kind = TimedOutError if late else ShardError
                    raise kind(f"{self._store / info.name} cannot be fetched ({tried}): {message(error)}") from error
                self._counters.add("retries")
                time.sleep(pause)

    def _attempt(self, info: ShardInfo, cached: Path, timeout_s: float) -> int:
        """Fetch and open a shard, or raise; a correct part is kept for the next attempt."""
        partial = cached.with_suffix(_PARTIAL)
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
        descriptor = os.open(partial, _FLAGS)  # before it has the name under which another process may evict it
        os.replace(partial, cached)
        _mark_checked(descriptor, info)  # after the renaming, since a partial file of that age counts as abandoned
        return descriptor


def _open_in_place(info: ShardInfo, path: Path) -> int:
    try:
        descriptor = _open_complete(path, info.bytes)
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror}") from error
    if descriptor is not None:
        return descriptor
    if not path.exists():
        raise ShardError(f"{path} is missing, but the index says {counted(info.bytes, 'byte')}")
    raise ShardError(f"{path} has {counted(path.stat().st_size, 'byte')}, but the index says {info.bytes:,}")


def _open_complete(path: Path, size: int) -> int | None:
    """A descriptor of the file, or None if it does not exist or has another size."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if os.fstat(descriptor).st_size == size:
        return descriptor
    os.close(descriptor)
    return None


def _open_checked(path: Path, info: ShardInfo) -> int | None:
    """A descriptor of a cached file, marked as used now, or None if it is not the one that the index describes.

    Symbolic links and files with other content count as absent.
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
    """The time of modification of a checked file, in nanoseconds: a whole second between 1970 and 2004."""
    return (info.crc32 & 0x3FFF_FFFF) * _NANOSECONDS


def _mark_checked(descriptor: int, info: ShardInfo) -> None:
    """Mark a file as the one that the index describes and as used now."""
    os.utime(descriptor, ns=(time.time_ns(), _mark(info)))


def _check_content(path: Path, info: ShardInfo) -> None:
    """Raise ShardError if a fetched file is not the one that the index describes."""
    size, crc, buffer = 0, 0, memoryview(bytearray(_CHUNK_BYTES))
    with open(os.open(path, _FLAGS), "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            size, crc = size + count, zlib.crc32(buffer[:count], crc)
    if size != info.bytes:
        raise ShardError(f"{counted(size, 'byte')} arrived, but the index says {info.bytes:,}")
    if crc != info.crc32:
        raise ShardError(f"its CRC is {crc:08x}, but the index says {info.crc32:08x}")


class NodeFolder:
    """The folder of a node for cached files. It evicts the least recently used above its limit or the disk's size.

    The folder must be private to this user: raises ValueError if it is not, OSError.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        make_private(path)
        self.path = path
        self._limit = min(limit_bytes, usable_bytes(path))
        self._unswept = self._limit

    def sweep(self, added: int) -> None:
        """Evict files after `added` more bytes were written, and remove abandoned partial files.

        It acts only after a hundredth of the limit was added, since listing many thousands of files takes time.
        """
        self._unswept += added
        if self._unswept < self._limit / 100:
            return
        self._unswept = 0
        with _locked(self.path / _EVICTING, deadline=0) as held:
            if not held:
                return
            kept = sorted(_kept(self.path))
            excess = sum(size for _, size, _ in kept) - self._limit
            for _, size, path in kept:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= size
            for modified, _, path in _stats(self.path, (_PARTIAL,)):
                if modified < time.time() - _ABANDONED_S:
                    path.unlink(missing_ok=True)


def node_path(directory: str) -> Path:
    """The cache folder for a configured `directory`: itself, if it is private or does not exist yet.

    Otherwise it is a folder of this user in it, or for "" in the system's temporary folder. It is not created. Raises
    ValueError if other users have taken all names.
    """
    asked = [Path(os.path.realpath(directory))] if directory else []
    parent = asked[0] if asked else Path(tempfile.gettempdir())
    return first_usable([*asked, *numbered(parent, f"imagegen-shards-{os.getuid()}")])


def is_cache(path: Path) -> bool:
    """True if this is a private folder that has been used as a cache."""
    return is_private(path) and (path / _EVICTING).is_file()


def usable_bytes(path: Path) -> int:
    """Bytes that a node's folder can hold, including those that it has."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free + sum(size for _, size, _ in _kept(path))


@contextmanager
def _locked(path: Path, deadline: float) -> Iterator[bool]:
    """Hold a lock that excludes other processes and other threads; yields whether it was acquired by the deadline.

    deadline: by time.monotonic.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "ab") as file:
        held = True
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    held = False
                    break
                time.sleep(_LOCK_PAUSE_S)
        yield held


def cached_files(path: Path) -> list[tuple[int, Path]]:
    """(bytes, path) of all cached files in a node's folder, including partial ones."""
    return [(size, file) for _, size, file in _stats(path, (_SHARDS, OFFSETS, _PARTIAL))]


def _kept(path: Path) -> list[tuple[float, int, Path]]:
    return _stats(path, (_SHARDS, OFFSETS))


def _stats(folder: Path, kinds: tuple[str, ...]) -> list[tuple[float, int, Path]]:
    """(last use, bytes, path) of the existing cached files with these extensions."""
    found = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.endswith(kinds) or not _OURS.fullmatch(entry.name):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                # The time of modification of a shard says that it was checked.
                used = status.st_atime if entry.name.endswith(_SHARDS) else status.st_mtime
                found.append((used, status.st_size, Path(entry.path)))
    return found
