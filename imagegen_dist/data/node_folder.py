"""A node's folder of what was fetched and found out, of bounded size, which all processes of a user share."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHARDS, PLACES, PARTIAL = ".tar", ".places", ".part"

_LOCK_PAUSE_S = 0.02
_ABANDONED_S = 3600.0


class NodeFolder:
    """Files by name; those unused for longest go first where they take more than the limit, or than the disk has."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._limit = min(limit_bytes, room(path))
        self._unswept = self._limit

    def sweep(self, added: int) -> None:
        """Make room after so many bytes were added, and remove what died fetches left.

        Only when a hundredth of the limit was added: a folder of many thousand files takes a while to list.
        """
        self._unswept += added
        if self._unswept < self._limit / 100:
            return
        self._unswept = 0
        with locked(self.path / "evict.lock", deadline=0) as held:
            if not held:
                return
            kept = sorted(_kept(self.path))
            excess = sum(size for _, size, _ in kept) - self._limit
            for _, size, path in kept:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= size
            for modified, _, path in _stats(self.path.glob(f"*{PARTIAL}")):
                if modified < time.time() - _ABANDONED_S:
                    path.unlink(missing_ok=True)


def default_folder() -> Path:
    """One per user below the system's temporary folder."""
    return Path(tempfile.gettempdir()) / f"imagegen-shards-{os.getuid()}"


def room(path: Path) -> int:
    """Bytes that a node's folder can hold, those that it has included."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free + sum(size for _, size, _ in _kept(path))


@contextmanager
def locked(path: Path, deadline: float) -> Iterator[bool]:
    """Hold a lock that excludes other processes, and other opens in this one; whether it was had by the deadline.

    deadline: a reading of time.monotonic.
    """
    with open(path, "ab") as file:
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


def _kept(path: Path) -> list[tuple[float, int, Path]]:
    return [each for kind in (SHARDS, PLACES) for each in _stats(path.glob(f"*{kind}"))]


def _stats(paths: Iterator[Path]) -> list[tuple[float, int, Path]]:
    """(last use, bytes, path) of the files that are still there."""
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return found
