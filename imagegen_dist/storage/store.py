"""A folder of files at a URL, on any kind of storage.

Files are written atomically: a reader sees the old content or the new, never a part. Errors are one line that names the
URL.
"""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from fsspec.registry import known_implementations

from imagegen_dist.storage.backend import Backend, Output, backend_of, client_module, forget
from imagegen_dist.storage.errors import AccessError, CredentialsError, StorageError, first_line, named
from imagegen_dist.storage.listing import Listing
from imagegen_dist.storage.urls import check_credentials, parse

PATIENCE_S = 180.0
"""Seconds for which a run repeats a failing operation on remote storage before it ends."""

_UNPUBLISHED = re.compile(r"^\..*\.tmp$")
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0

Result = TypeVar("Result")


class Store:
    """A folder at a URL.

    url: a local path (made absolute), `file://`, `memory://`, `s3://`, or another protocol of fsspec. Raises
    StorageError for an unknown protocol and for a URL that contains a password. patience_s: seconds for which failing
    operations on remote storage are repeated, except refusals and downloads. Files are written whole, so that repeating
    a write that has succeeded unnoticed is harmless.

    A store is a value: it is compared by URL, and pickled without its client, which each process creates on first use.
    """

    def __init__(self, url: str | os.PathLike[str], patience_s: float = 0.0) -> None:
        self._protocol, self._root = parse(os.fspath(url))
        self._patience_s = patience_s if self._protocol not in ("file", "memory") else 0.0
        self._backend: Backend | None = None
        self._backend_pid = 0

    @property
    def url(self) -> str:
        """The URL of the folder; on the local disk, its absolute path."""
        return self._root

    @property
    def protocol(self) -> str:
        """`file`, `memory`, `s3`, ..."""
        return self._protocol

    def client_modules(self) -> list[str]:
        """Modules that are imported on the first use in a process, which can take half a second."""
        found = known_implementations.get(self._protocol)
        return [str(found["class"]).rpartition(".")[0], client_module(self._protocol)] if found else []

    def __truediv__(self, name: str) -> Store:
        return Store(self._join(name), self._patience_s)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[type[Store], tuple[str, float]]:
        return Store, (self.url, self._patience_s)

    def read(self, name: str) -> bytes:
        """Read a whole file. Raises FileNotFoundError, StorageError."""
        path = self._join(name)
        return self._try("read", path, lambda files: files.read(path))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Read bytes [start, end) of a file, fewer if the file ends before. Raises FileNotFoundError, StorageError."""
        path = self._join(name)
        return self._try("read", path, lambda files: files.read_range(path, start, end))

    def write(self, name: str, data: bytes) -> None:
        """Write the file `name` atomically. Raises StorageError."""
        path = self._join(name)
        self._try("write", path, lambda files: files.write(path, data))

    def publish(self, name: str, produce: Callable[[Output], object]) -> None:
        """Write the file `name` atomically, with the content that `produce` writes; each attempt calls it again.

        Locally and on S3, the content is not held in memory or in a temporary folder. Raises StorageError, and any
        error of `produce` itself, after which it is not called again.
        """
        path = self._join(name)

        def guarded(output: Output) -> None:
            watched = _Watched(output)
            try:
                produce(watched)
            except Exception as error:
                if watched.failed:
                    raise
                raise _OwnError(error) from error

        try:
            self._try("write", path, lambda files: files.publish(path, guarded))
        except _OwnError as own:
            raise own.error from None

    def upload(self, name: str, local_path: str | os.PathLike[str]) -> None:
        """Write a copy of a local file as `name`, atomically. Raises StorageError."""
        path = self._join(name)
        self._try("write", path, lambda files: files.upload(path, os.fspath(local_path)))

    def download(
        self,
        name: str,
        local_path: str | os.PathLike[str],
        timeout_s: float | None = None,
        stall_s: float | None = None,
    ) -> None:
        """Copy the file `name` to a local path in one attempt; a failure may leave a part.

        The attempt continues the part of an earlier one if the client can (S3). timeout_s: limit for the whole copy;
        stall_s: limit without a received byte; neither applies to file systems that are not asynchronous. Raises
        FileNotFoundError, AccessError, StorageError.
        """
        path = self._join(name)
        with self._attempt("read", path) as files:
            files.download(path, os.fspath(local_path), timeout_s, stall_s)

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for seeking and reading within a block. Opening raises FileNotFoundError, StorageError."""
        path = self._join(name)
        with self._attempt("read", path) as files:
            file = files.open(path)
        with file:
            yield file

    def exists(self, name: str = "") -> bool:
        """True if the file or folder exists. Raises StorageError."""
        path = self._join(name)
        return self._try("reach", path, lambda files: files.exists(path))

    def size(self, name: str) -> int:
        """The size of a file in bytes. Raises FileNotFoundError, StorageError."""
        path = self._join(name)
        return self._try("reach", path, lambda files: files.size(path))

    def names(self, prefix: str = "") -> list[str]:
        """Sorted names of files and folders in the folder `prefix`; [] if it does not exist. Raises StorageError."""
        return list(self.entries(prefix))

    def entries(self, prefix: str = "") -> dict[str, bool]:
        """Names as from `names`, with True for a folder and False for a file. Raises StorageError."""
        return self.listing(prefix).entries

    def listing(self, prefix: str = "") -> Listing:
        """Entries, and objects without a usable name, which exist only in object storage. Raises StorageError."""
        path = self._join(prefix)
        found = self._try("list", path, lambda files: files.list(path))
        names = sorted(name for name in found.entries if not _UNPUBLISHED.match(name))
        return Listing({name: found.entries[name] for name in names}, found.unusable)

    def remove(self, name: str = "") -> None:
        """Delete a file or a whole folder, if it exists. Raises StorageError.

        The name is taken literally, as everywhere in a store: `*`, `?`, `[` and `]` match only themselves. A bucket
        itself is never deleted.
        """
        path = self._join(name)
        self._try("remove", path, lambda files: files.remove(path))

    def sweep(self) -> None:
        """Remove temporary files of killed processes from this folder and its sub-folders. Raises StorageError."""
        self._try("sweep", self._root, lambda files: files.sweep(self._root))

    def local_path(self, name: str = "") -> Path | None:
        """The path of a file if the store is on the local disk, else None."""
        path = self._join(name)
        return Path(path) if self._protocol == "file" else None

    def probe(self) -> None:
        """Write, read and delete a small file. Raises StorageError if the folder cannot be used."""
        name, data = f"probe-{uuid.uuid4().hex}", uuid.uuid4().bytes
        try:
            self.write(name, data)
            kept = self.read(name)
            self.remove(name)
        except FileNotFoundError as error:
            raise StorageError(f"cannot write to {self.url}: {first_line(error)}") from error
        if kept != data:
            raise StorageError(f"cannot write to {self.url}: a file read back differs from what was written")

    def _join(self, name: str) -> str:
        if not name:
            return self._root
        if name.startswith("/") or not set(name.split("/")).isdisjoint(("", ".", "..")):
            raise StorageError(f"{name!r} is not a name inside {self.url}: no absolute, empty, '.' or '..' parts")
        return os.path.join(self._root, name) if self._protocol == "file" else f"{self._root}/{name}"

    def _try(self, action: str, path: str, call: Callable[[Backend], Result]) -> Result:
        """Call, and repeat after failures for the time of this store's patience."""
        deadline, pause = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            try:
                with self._attempt(action, path) as files:
                    return call(files)
            except AccessError:
                raise
            except StorageError:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    @contextmanager
    def _attempt(self, action: str, path: str) -> Iterator[Backend]:
        """The client for one attempt, whose errors name the path. A client with bad credentials is discarded."""
        if self._backend is None or self._backend_pid != os.getpid():
            self._backend, self._backend_pid = backend_of(self._protocol), os.getpid()
        files = self._backend
        try:
            with named(action, path):
                yield files
        except CredentialsError:
            self._backend = None
            forget(files)
            raise


class _OwnError(BaseException):
    """Carries an error of `produce` past the code that would attribute it to the storage."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Watched:
    """Passes bytes on, and records whether the storage has failed to take them."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.failed = False

    def write(self, data: bytes | memoryview) -> None:
        try:
            self._output.write(data)
        except BaseException:
            self.failed = True
            raise


def reached(url: str | os.PathLike[str]) -> Store:
    """A store that repeats failing operations, after a first one has succeeded.

    Storage that cannot be reached at all is thus reported immediately, as StorageError.
    """
    Store(url).exists()
    return Store(url, PATIENCE_S)


def file_at(url: str, patience_s: float = 0.0) -> tuple[Store, str]:
    """(the folder, the name) of the file at a path or URL. Arguments and errors are those of Store."""
    check_credentials(url)
    folder, slash, name = url.rpartition("/")
    return Store(folder or slash or ".", patience_s), name
