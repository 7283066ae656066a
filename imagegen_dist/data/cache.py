"""Open a dataset's shards as local files: in place where they are local, else through a cache that a node shares.

A shard is fetched whole, once a node, checked against its size and CRC, and kept under its SHA-256 in a directory of
bounded size; the one unused for longest goes first. Whoever has opened a shard keeps it open, also when it is evicted.
"""

import fcntl
import os
import random
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imagegen_dist.data.index import ShardInfo
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store

_FINAL = (FileNotFoundError, ShardError)
_FINAL_ATTEMPTS = 3
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 20.0
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class CacheConfig:
    """Where fetched shards are kept on a node. Raises ValueError where a bound is not positive."""

    directory: str = ""  # local folder; empty takes one per user below the system's temporary folder
    limit_bytes: int = 32 << 30  # bytes of shards kept, beside those that are open
    timeout_s: float = 300.0  # seconds after which a shard that cannot be fetched ends the run

    def __post_init__(self) -> None:
        if self.limit_bytes < 1 or self.timeout_s <= 0:
            raise ValueError("--data.cache.limit-bytes and --data.cache.timeout-s must be positive")


class ShardFiles:
    """Opens the shards of a store.

    counters: takes `fetched` (bytes from remote storage), `cache_hits` (shards that were on the node) and `retries`.
    """

    def __init__(self, store: Store, config: CacheConfig, counters: Counter[str]) -> None:
        self._store, self._config, self._counters = store, config, counters
        self._directory = Path(config.directory or Path(tempfile.gettempdir()) / f"imagegen-shards-{os.getuid()}")

    def open(self, info: ShardInfo) -> int:
        """A file descriptor of a shard, for the caller to close.

        Raises ShardError where the shard is missing, differs from the index, or cannot be fetched in time.
        """
        local = self._store.local_path(info.name)
        if local is not None:
            return self._open_in_place(info, local)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        cached = self._directory / f"{info.sha256}.tar"
        with _locked(self._directory / f"{info.sha256[:2]}.lock"):
            descriptor = _open_complete(cached, info.bytes)
            if descriptor is not None:
                self._counters["cache_hits"] += 1
                os.utime(descriptor)
                return descriptor
            descriptor = self._fetch(info, cached)
        self._evict()
        return descriptor

    def _open_in_place(self, info: ShardInfo, path: Path) -> int:
        try:
            descriptor = _open_complete(path, info.bytes)
        except OSError as error:
            raise ShardError(f"{path} cannot be read: {error.strerror}") from error
        if descriptor is not None:
            return descriptor
        found = f"has {path.stat().st_size} bytes" if path.exists() else "is missing"
        raise ShardError(f"{path} {found}, but the index says {info.bytes} bytes")

    def _fetch(self, info: ShardInfo, cached: Path) -> int:
        """Bring a shard to the cache and open it; transient faults are tried until the time limit, others thrice."""
        deadline = time.monotonic() + self._config.timeout_s
        partial = cached.with_suffix(".part")
        attempt, final = 0, 0
        while True:
            try:
                self._store.download(info.name, partial)
                _check_content(partial, info)
                self._counters["fetched"] += info.bytes
                return _publish(partial, cached)
            except (OSError, ShardError) as error:
                final += isinstance(error, _FINAL) or isinstance(error.__cause__, PermissionError)
                pause = random.uniform(0.5, 1) * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
                if final >= _FINAL_ATTEMPTS or time.monotonic() + pause > deadline:
                    partial.unlink(missing_ok=True)
                    raise ShardError(
                        f"{self._store / info.name} cannot be fetched ({attempt + 1} attempts): {error}"
                    ) from error
                attempt += 1
                self._counters["retries"] += 1
                time.sleep(pause)

    def _evict(self) -> None:
        """Delete the shards unused for longest until the rest fits, and what died fetches left."""
        with _locked(self._directory / "evict.lock"):
            shards = sorted(_stats(self._directory.glob("*.tar")))
            excess = sum(size for _, size, _ in shards) - self._config.limit_bytes
            for _, size, path in shards:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= size
            for modified, _, path in _stats(self._directory.glob("*.part")):
                if modified < time.time() - _ABANDONED_S:
                    path.unlink(missing_ok=True)


def _stats(paths: Iterator[Path]) -> list[tuple[float, int, Path]]:
    """(last use, bytes, path) of the files that are still there."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return found


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


def _publish(partial: Path, cached: Path) -> int:
    """Give a complete file its name; it is opened before, since another process may evict it right after."""
    descriptor = os.open(partial, os.O_RDONLY)
    os.replace(partial, cached)
    return descriptor


def _check_content(path: Path, info: ShardInfo) -> None:
    """Raises ShardError where a fetched file is not the one that the index describes."""
    size, crc = 0, 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    if size != info.bytes:
        raise ShardError(f"{size} bytes came, but the index says {info.bytes}")
    if crc != info.crc32:
        raise ShardError(f"its CRC is {crc:08x}, but the index says {info.crc32:08x}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that excludes other processes, and other opens in this one."""
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
