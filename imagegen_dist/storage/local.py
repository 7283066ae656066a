"""The local disk. A file is written to a temporary file in the same folder, synced and renamed."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from imagegen_dist.storage.abandoned import hold, is_abandoned
from imagegen_dist.storage.listing import Listing

_TEMPORARY = re.compile(r"^\..*\.[0-9a-f]{32}\.tmp$", re.DOTALL)
_COPIED_BYTES = 1 << 20
_LONGEST_PREFIX = 100  # bytes of its name that a temporary file has from the file: a name has at most 255


class LocalDisk:
    """Files by absolute paths."""

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def read_range(self, path: str, start: int, end: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(end - start)

    def write(self, path: str, data: bytes) -> None:
        with _replacing(path) as file:
            file.write(data)

    def publish(self, path: str, produce: Callable[[Any], object]) -> None:
        with _replacing(path) as file:
            produce(file)

    def upload(self, path: str, local_path: str) -> None:
        with open(local_path, "rb") as source, _replacing(path) as file:
            shutil.copyfileobj(source, file, length=_COPIED_BYTES)

    def download(self, path: str, local_path: str, timeout_s: float | None, stall_s: float | None) -> None:
        shutil.copyfile(path, local_path)

    def open(self, path: str) -> BinaryIO:
        return open(path, "rb")

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def list(self, path: str) -> Listing:
        if not os.path.isdir(path):
            return Listing()
        with os.scandir(path) as found:
            return Listing({entry.name: entry.is_dir() for entry in found})

    def sweep(self, path: str) -> None:
        for folder, _, names in os.walk(path):
            for name in filter(_TEMPORARY.match, names):
                temporary = os.path.join(folder, name)
                if is_abandoned(temporary):
                    with suppress(OSError):
                        os.unlink(temporary)

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


@contextmanager
def _replacing(path: str) -> Iterator[Any]:
    """Open a binary file that replaces `path` when it is complete and synced."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    start = os.fsencode(name)[:_LONGEST_PREFIX].decode(errors="ignore")
    temporary = os.path.join(folder, f".{start}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            hold(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)  # while it is held, so that nobody sweeps it
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
