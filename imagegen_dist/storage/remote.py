"""Remote storage by its fsspec file system, which writes each object atomically."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, BinaryIO

import fsspec
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.callbacks import Callback
from fsspec.exceptions import FSTimeoutError

from imagegen_dist.storage.errors import local_disk_errors
from imagegen_dist.storage.listing import Listing

BLOCK_BYTES = 4 << 20


class Remote:
    """Any protocol of fsspec. `rm`, `get`, `put` and `cat` of fsspec expand patterns and are therefore not used."""

    def __init__(self, protocol: str, client: type | None = None, **options: Any) -> None:
        client = client or fsspec.get_filesystem_class(protocol)
        self._fs: Any = client(use_listings_cache=False, skip_instance_cache=True, **options)

    def read(self, path: str) -> bytes:
        return bytes(self._fs.cat_file(path))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return bytes(self._fs.cat_file(path, start=start, end=end))

    def write(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(path, data)

    def publish(self, path: str, produce: Callable[[Any], object]) -> None:
        """Collect the file in memory, since the clients' files publish a part if writing fails."""
        content = io.BytesIO()
        produce(content)
        self._fs.pipe_file(path, content.getvalue())

    def upload(self, path: str, local_path: str) -> None:
        self._fs.put_file(local_path, path)

    def download(self, path: str, local_path: str, timeout_s: float | None, stall_s: float | None) -> None:
        if isinstance(self._fs, AsyncFileSystem):
            progress = Progress()
            watch(self._fs, self._fs._get_file(path, local_path, callback=progress), progress, timeout_s, stall_s)
        else:
            with local_disk_errors(local_path):
                self._fs.get_file(path, local_path)

    def open(self, path: str) -> BinaryIO:
        return self._fs.open(path, "rb", block_size=BLOCK_BYTES)

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(path))

    def size(self, path: str) -> int:
        return int(self._fs.info(path)["size"])

    def list(self, path: str) -> Listing:
        folder = str(self._fs._strip_protocol(path)).rstrip("/") + "/"
        try:
            listed = self._fs.ls(path, detail=True)
        except FileNotFoundError:
            return Listing()
        folders = [entry["name"].removesuffix("/") + "/" for entry in listed if entry.get("type") == "directory"]
        return Listing.of(folder, (entry["name"] for entry in listed if entry.get("type") != "directory"), folders)

    def sweep(self, path: str) -> None:
        """Do nothing: objects are complete or do not exist."""

    def remove(self, path: str) -> None:
        """Delete exactly the objects that are listed."""
        found: dict[str, Any] = {}
        with suppress(FileNotFoundError):
            found = self._fs.find(path, withdirs=True, detail=True)
        files = [name for name, entry in found.items() if entry.get("type") != "directory"]
        for name in files:
            with suppress(FileNotFoundError):
                self._fs.rm_file(name)
        folders = {str(self._fs._strip_protocol(path)).rstrip("/"), *found} - set(files)
        for name in sorted(folders, key=len, reverse=True):
            if "/" in name:  # otherwise it is a bucket
                with suppress(FileNotFoundError, NotImplementedError):  # most object stores have no folders
                    self._fs.rmdir(name)


class Progress(Callback):
    """The time at which the last byte of a download arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.last = time.monotonic()

    def relative_update(self, inc: int = 1) -> None:
        self.last = time.monotonic()


def watch(
    fs: Any, fetch: Coroutine[Any, Any, None], progress: Progress, timeout_s: float | None, stall_s: float | None
) -> None:
    """Run a download on the client's event loop, and abort it if it takes too long or stalls for too long."""
    try:
        sync(fs.loop, _watched, fetch, progress, stall_s, timeout=timeout_s)
    except FSTimeoutError as error:
        raise TimeoutError(f"not complete after {timeout_s:g} s") from error


async def _watched(fetch: Coroutine[Any, Any, None], progress: Progress, stall_s: float | None) -> None:
    task = asyncio.ensure_future(fetch)
    try:
        while not (await asyncio.wait({task}, timeout=stall_s and min(stall_s / 4, 1.0)))[0]:
            if stall_s is not None and time.monotonic() - progress.last > stall_s:
                raise TimeoutError(f"no byte arrived for {stall_s:g} s")
        task.result()
    finally:
        task.cancel()
        with suppress(BaseException):
            await task
