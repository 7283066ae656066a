"""A node's folder of what was fetched and found out, of bounded size, which all processes of a user share."""

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagegen_dist.private_folder import first_usable, is_private, make_private, numbered

SHARDS, PLACES, PARTIAL = ".tar", ".places", ".part"

_LOCK_PAUSE_S = 0.02
_ABANDONED_S = 3600.0
_EVICTING = "evict.lock"

# What this package writes there, and nothing else, is removed: the folder may be one that somebody keeps shards in.
_OURS = re.compile(r"[0-9a-f]{64}\.tar|[0-9a-f]{64}-\d+-[0-9a-f]{8}\.places|([0-9a-f]{64}|[0-9a-f]{32})\.part")


class NodeFolder:
    """Files by name; those unused for longest go first where they take more than the limit, or than the disk has.

    The folder is this user's alone. Raises ValueError where it is not, OSError.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        make_private(path)
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
        with locked(self.path / _EVICTING, deadline=0) as held:
            if not held:
                return
            kept = sorted(_kept(self.path))
            excess = sum(size for _, size, _ in kept) - self._limit
            for _, size, path in kept:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= size
            for modified, _, path in _stats(self.path, (PARTIAL,)):
                if modified < time.time() - _ABANDONED_S:
                    path.unlink(missing_ok=True)


def node_path(directory: str) -> Path:
    """The folder that is used where the user asks for `directory`: itself if it is private or not there yet.

    Else, and where nothing is asked for, one per user in it or below the system's temporary folder. It is not made.
    Raises ValueError where others have taken all names.
    """
    asked = [Path(os.path.realpath(directory))] if directory else []
    parent = asked[0] if asked else Path(tempfile.gettempdir())
    return first_usable([*asked, *numbered(parent, f"imagegen-shards-{os.getuid()}")])


def is_cache(path: Path) -> bool:
    """True if this is a folder of this user alone that such files were kept in before."""
    return is_private(path) and (path / _EVICTING).is_file()


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
    """(bytes, path) of everything that was fetched into a node's folder, unfinished fetches included."""
    return [(size, file) for _, size, file in _stats(path, (SHARDS, PLACES, PARTIAL))]


def _kept(path: Path) -> list[tuple[float, int, Path]]:
    return _stats(path, (SHARDS, PLACES))


def _stats(folder: Path, kinds: tuple[str, ...]) -> list[tuple[float, int, Path]]:
    """(last use, bytes, path) of the files of ours, of these kinds, that are still there."""
    found = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.endswith(kinds) or not _OURS.fullmatch(entry.name):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                # A shard's time of modification says that it was checked (cache.py).
                used = status.st_atime if entry.name.endswith(SHARDS) else status.st_mtime
                found.append((used, status.st_size, Path(entry.path)))
    return found
