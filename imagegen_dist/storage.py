"""Files under a URL: local disk, object storage, memory. The only file that touches fsspec.

A `Store` is a folder named by a URL. Every write publishes a whole file at once: a reader sees the old content or the
new, never a part. Errors are one line that names the URL.
"""

import asyncio
import os
import random
import re
import shutil
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.callbacks import Callback
from fsspec.exceptions import FSTimeoutError
from fsspec.registry import known_implementations

from imagegen_dist.credentials import without_credentials

PATIENCE_S = 180.0
"""For how long a run tries again what a remote place fails with, before it ends."""

_PROTOCOL = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
_BLOCK_BYTES = 4 << 20
_UNPUBLISHED = re.compile(r"^\..*\.tmp$")

_CHUNK_BYTES = 1 << 20
_DELETED_AT_ONCE = 1000  # objects, the most that S3 takes in a request
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0

Result = TypeVar("Result")

# Many S3-compatible stores cannot answer the checksums that botocore asks for by default.
_S3_CONFIG = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError")


class StorageError(OSError, ValueError):
    """A place that cannot be read or written, in one line that names its URL."""


class AccessError(StorageError):
    """A place that is not there, or may not be used with the credentials at hand: trying again does not help."""


class Store:
    """A folder under a URL.

    url: a local path (made absolute), `file://`, `memory://`, `s3://`, or another protocol that fsspec knows.
    Raises StorageError for a protocol that nobody knows and for a URL that carries a password.
    patience_s: for how long whatever a place that is not this machine's fails with is tried again, a refusal and a
    download excepted. Writes are whole files, so that one that has arrived unseen may come again.

    A store is a value: it compares by URL, and is pickled without its client, which is made on first use in each
    process.
    """

    def __init__(self, url: str | os.PathLike[str], patience_s: float = 0.0) -> None:
        self._protocol, self._root = _parse(os.fspath(url))
        self._patience_s = patience_s if self._protocol not in ("file", "memory") else 0.0
        self._backend: _Backend | None = None
        self._backend_pid = 0

    @property
    def url(self) -> str:
        """The folder's URL; on the local disk its absolute path."""
        return self._root

    @property
    def protocol(self) -> str:
        """`file`, `memory`, `s3`, ..."""
        return self._protocol

    def client_modules(self) -> list[str]:
        """Modules that the first use in a process imports, which can take half a second."""
        found = known_implementations.get(self._protocol)
        return [str(found["class"]).rpartition(".")[0]] if found else []

    def __truediv__(self, name: str) -> "Store":
        return Store(self._join(name), self._patience_s)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[type["Store"], tuple[str, float]]:
        return Store, (self.url, self._patience_s)

    def read(self, name: str) -> bytes:
        """The whole file. Raises FileNotFoundError, StorageError."""
        path = self._join(name)
        return self._try("read", path, lambda files: files.read(path))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file; fewer where the file ends before. Raises FileNotFoundError, StorageError."""
        path = self._join(name)
        return self._try("read", path, lambda files: files.read_range(path, start, end))

    def write(self, name: str, data: bytes) -> None:
        """Publish `data` as the file `name`, atomically. Raises StorageError."""
        path = self._join(name)
        self._try("write", path, lambda files: files.write(path, data))

    def upload(self, name: str, local_path: str | os.PathLike[str]) -> None:
        """Publish a copy of a local file as `name`, atomically. Raises StorageError."""
        path = self._join(name)
        self._try("write", path, lambda files: files.upload(path, os.fspath(local_path)))

    def download(
        self,
        name: str,
        local_path: str | os.PathLike[str],
        timeout_s: float | None = None,
        stall_s: float | None = None,
    ) -> None:
        """Copy the file `name` to a local path, in one attempt, which a failure may leave in part.

        A part that an earlier attempt left is gone on with where the client can (S3). timeout_s: for the whole of it;
        stall_s: without a byte; neither holds for file systems that are not asynchronous. Raises FileNotFoundError,
        AccessError, StorageError.
        """
        path = self._join(name)
        with _named("read", path):
            self._files().download(path, os.fspath(local_path), timeout_s, stall_s)

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """A file to seek and read in, closed after the block. Raises FileNotFoundError, StorageError on opening."""
        path = self._join(name)
        with _named("read", path):
            file = self._files().open(path)
        with file:
            yield file

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder. Raises StorageError."""
        path = self._join(name)
        return self._try("reach", path, lambda files: files.exists(path))

    def size(self, name: str) -> int:
        """Bytes in a file. Raises FileNotFoundError, StorageError."""
        path = self._join(name)
        return self._try("reach", path, lambda files: files.size(path))

    def names(self, prefix: str = "") -> list[str]:
        """Sorted names of the files and folders in the folder `prefix`, one level down; [] where there is none.

        Raises StorageError.
        """
        return list(self.entries(prefix))

    def entries(self, prefix: str = "") -> dict[str, bool]:
        """Names as `names` gives them, each with True for a folder and False for a file. Raises StorageError."""
        path = self._join(prefix)
        found = self._try("list", path, lambda files: files.entries(path))
        return {name: found[name] for name in sorted(found) if not _UNPUBLISHED.match(name)}

    def remove(self, name: str = "") -> None:
        """Delete a file or a whole folder; a missing one is fine. Raises StorageError.

        The name is taken literally, as everywhere in a store: `*`, `?`, `[` and `]` match nothing but themselves.
        A bucket itself is never deleted.
        """
        path = self._join(name)
        self._try("remove", path, lambda files: files.remove(path))

    def local_path(self, name: str = "") -> Path | None:
        """The file's path where the store is the local disk, else None."""
        path = self._join(name)
        return Path(path) if self._protocol == "file" else None

    def probe(self) -> None:
        """Write, read back and delete a small file. Raises StorageError where the place cannot be used."""
        name, data = f"probe-{uuid.uuid4().hex}", uuid.uuid4().bytes
        try:
            self.write(name, data)
            kept = self.read(name)
            self.remove(name)
        except FileNotFoundError as error:
            raise StorageError(f"cannot write to {self.url}: {_first_line(error)}") from error
        if kept != data:
            raise StorageError(f"cannot write to {self.url}: a file read back differs from what was written")

    def _join(self, name: str) -> str:
        if not name:
            return self._root
        if name.startswith("/") or not set(name.split("/")).isdisjoint(("", ".", "..")):
            raise StorageError(f"{name!r} is not a name inside {self.url}: no absolute, empty, '.' or '..' parts")
        return os.path.join(self._root, name) if self._protocol == "file" else f"{self._root}/{name}"

    def _try(self, action: str, path: str, call: Callable[["_Backend"], Result]) -> Result:
        """What the call returns, after as many attempts as this store's patience has time for."""
        deadline, pause = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            try:
                with _named(action, path):
                    return call(self._files())
            except AccessError:
                raise
            except StorageError:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _files(self) -> "_Backend":
        if self._backend is None or self._backend_pid != os.getpid():
            self._backend = _LocalDisk() if self._protocol == "file" else _Remote(self._protocol)
            self._backend_pid = os.getpid()
        return self._backend


def file_at(url: str) -> tuple[Store, str]:
    """The folder and the name of the file at a path or URL. Raises StorageError as Store does."""
    folder, slash, name = url.rpartition("/")
    return Store(folder or slash or "."), name


class _Backend(Protocol):
    """The few primitive calls that a store needs, on whole paths."""

    def read(self, path: str) -> bytes: ...
    def read_range(self, path: str, start: int, end: int) -> bytes: ...
    def write(self, path: str, data: bytes) -> None: ...
    def upload(self, path: str, local_path: str) -> None: ...
    def download(self, path: str, local_path: str, timeout_s: float | None, stall_s: float | None) -> None: ...
    def open(self, path: str) -> BinaryIO: ...
    def exists(self, path: str) -> bool: ...
    def size(self, path: str) -> int: ...
    def entries(self, path: str) -> dict[str, bool]: ...
    def remove(self, path: str) -> None: ...


class _LocalDisk:
    """The local disk; a write is a synced temporary file in the same folder, renamed."""

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def read_range(self, path: str, start: int, end: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(end - start)

    def write(self, path: str, data: bytes) -> None:
        with _replacing(path) as file:
            file.write(data)

    def upload(self, path: str, local_path: str) -> None:
        with open(local_path, "rb") as source, _replacing(path) as file:
            shutil.copyfileobj(source, file, length=1 << 20)

    def download(self, path: str, local_path: str, timeout_s: float | None, stall_s: float | None) -> None:
        shutil.copyfile(path, local_path)

    def open(self, path: str) -> BinaryIO:
        return open(path, "rb")

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def entries(self, path: str) -> dict[str, bool]:
        if not os.path.isdir(path):
            return {}
        with os.scandir(path) as found:
            return {entry.name: entry.is_dir() for entry in found}

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


class _Remote:
    """A file system of fsspec whose puts are atomic per object."""

    def __init__(self, protocol: str) -> None:
        self._is_s3 = protocol in ("s3", "s3a")
        options: dict[str, Any] = {"config_kwargs": _S3_CONFIG} if self._is_s3 else {}
        client = _s3_client() if self._is_s3 else fsspec.get_filesystem_class(protocol)
        self._fs = client(use_listings_cache=False, **options)
        # Who downloads large files tries again by himself, counts that and has a time limit: no retries below him.
        self._single = self._fs
        if self._is_s3:
            config = {**_S3_CONFIG, "retries": {"total_max_attempts": 1}, "max_pool_connections": 32}
            self._single = client(use_listings_cache=False, config_kwargs=config)
            self._single.retries = 1

    def read(self, path: str) -> bytes:
        whole = {"max_concurrency": 1} if self._is_s3 else {}  # else s3fs asks for the size first
        return bytes(self._fs.cat_file(path, **whole))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return bytes(self._fs.cat_file(path, start=start, end=end))

    def write(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(path, data)

    def upload(self, path: str, local_path: str) -> None:
        self._fs.put_file(local_path, path)

    def download(self, path: str, local_path: str, timeout_s: float | None, stall_s: float | None) -> None:
        if not isinstance(self._single, AsyncFileSystem):
            self._single.get_file(path, local_path)
            return
        progress = _Progress()
        fetch = _fetch_s3 if self._is_s3 else _fetch
        try:
            sync(
                self._single.loop,
                _watched,
                fetch(self._single, path, local_path, progress),
                progress,
                stall_s,
                timeout=timeout_s,
            )
        except FSTimeoutError as error:
            raise TimeoutError(f"not complete after {timeout_s:g} s") from error

    def open(self, path: str) -> BinaryIO:
        return self._fs.open(path, "rb", block_size=_BLOCK_BYTES)

    def exists(self, path: str) -> bool:
        if self._is_s3 and "/" not in str(self._fs._strip_protocol(path)):
            return self._has_bucket(path)
        return bool(self._fs.exists(path))

    def _has_bucket(self, path: str) -> bool:
        """Whether there is such a bucket; a refusal, which s3fs takes for a no, is raised."""
        try:
            self._fs.ls(path, detail=False)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        return int(self._fs.info(path)["size"])

    def entries(self, path: str) -> dict[str, bool]:
        folder = str(self._fs._strip_protocol(path)).rstrip("/") + "/"
        try:
            listed = self._fs.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        found = {str(entry["name"]).rstrip("/"): entry.get("type") == "directory" for entry in listed}
        return {name.removeprefix(folder): kind for name, kind in found.items() if name.startswith(folder)}

    def remove(self, path: str) -> None:
        """List, then delete exactly what was listed: the clients' own `rm` expands patterns in names."""
        if self._is_s3:
            sync(self._fs.loop, _remove_s3, self._fs, path)
            return
        found: dict[str, Any] = {}
        with suppress(FileNotFoundError):
            found = self._fs.find(path, withdirs=True, detail=True)
        files = [name for name, entry in found.items() if entry.get("type") != "directory"]
        for name in files:
            with suppress(FileNotFoundError):
                self._fs.rm_file(name)
        folders = {str(self._fs._strip_protocol(path)).rstrip("/"), *found} - set(files)
        for name in sorted(folders, key=len, reverse=True):
            if "/" in name:  # else it is a bucket
                with suppress(FileNotFoundError, NotImplementedError):  # most object stores have no folders
                    self._fs.rmdir(name)


@cache
def _s3_client() -> Any:
    """s3fs's file system with keys taken literally: its own cuts a key at "?versionId="."""

    class LiteralS3FileSystem(fsspec.get_filesystem_class("s3")):  # type: ignore[misc]
        def split_path(self, path: str) -> tuple[str, str, None]:
            bucket, slash, _ = self._strip_protocol(path).lstrip("/").partition("/")
            if not slash:
                return bucket, "", None
            trail = path[len(path.rstrip("/")) :]
            bucket, key = self._find_bucket_key(self._strip_protocol(path).lstrip("/"))
            return bucket, key + trail, None

    return LiteralS3FileSystem


async def _remove_s3(fs: Any, path: str) -> None:
    """Delete the object at `path` and all below it, by their exact keys."""
    bucket, key, _ = fs.split_path(path)
    keys = await _keys_below(fs, bucket, key)
    if key:
        with suppress(FileNotFoundError):
            await fs._call_s3("head_object", Bucket=bucket, Key=key, **fs.req_kw)
            keys.append(key)
    for start in range(0, len(keys), _DELETED_AT_ONCE):
        objects = [{"Key": each} for each in keys[start : start + _DELETED_AT_ONCE]]
        asked = {"Bucket": bucket, "Delete": {"Objects": objects, "Quiet": True}, **fs.req_kw}
        answer = await fs._call_s3("delete_objects", **asked)
        for failed in answer.get("Errors", ()):
            kind = PermissionError if failed.get("Code") == "AccessDenied" else OSError
            raise kind(f"{failed['Key']} was not deleted: {failed.get('Code', 'no reason was given')}")


async def _keys_below(fs: Any, bucket: str, folder: str) -> list[str]:
    """The keys of all objects in a folder of a bucket and in the folders below it."""
    keys: list[str] = []
    page = {"Bucket": bucket, "Prefix": f"{folder}/" if folder else "", **fs.req_kw}
    while True:
        answer = await fs._call_s3("list_objects_v2", **page)
        keys += [entry["Key"] for entry in answer.get("Contents", ())]
        if not answer.get("IsTruncated"):
            return keys
        page["ContinuationToken"] = answer["NextContinuationToken"]


class _Progress(Callback):
    """When the last byte of a download came."""

    def __init__(self) -> None:
        super().__init__()
        self.last = time.monotonic()

    def relative_update(self, inc: int = 1) -> None:
        self.last = time.monotonic()


async def _watched(fetch: Coroutine[Any, Any, None], progress: _Progress, stall_s: float | None) -> None:
    """A download, given up where no byte has come for so long."""
    task = asyncio.ensure_future(fetch)
    try:
        while not (await asyncio.wait({task}, timeout=stall_s and min(stall_s / 4, 1.0)))[0]:
            if stall_s is not None and time.monotonic() - progress.last > stall_s:
                raise TimeoutError(f"no byte came for {stall_s:g} s")
        task.result()
    finally:
        task.cancel()
        with suppress(BaseException):
            await task


async def _fetch(fs: Any, path: str, local_path: str, progress: _Progress) -> None:
    """Download a file by the client's own means."""
    await fs._get_file(path, local_path, callback=progress)


async def _fetch_s3(fs: Any, path: str, local_path: str, progress: _Progress) -> None:
    """Download an object in one request, from where the local file ends.

    s3fs's own `get_file` begins anew after a fault, and takes twice the processor time above 50 MB.
    """
    bucket, key, _ = fs.split_path(path)
    with open(local_path, "ab") as file:
        begun = {"Range": f"bytes={file.tell()}-"} if file.tell() else {}
        response = await fs._call_s3("get_object", Bucket=bucket, Key=key, **begun, **fs.req_kw)
        progress.relative_update()
        async with response["Body"] as body:
            while chunk := await body.read(_CHUNK_BYTES):
                file.write(chunk)
                progress.relative_update(len(chunk))


def _parse(url: str) -> tuple[str, str]:
    """(protocol, root) of a URL; the root of a local path is absolute."""
    shown = without_credentials(url)
    if shown != url:
        raise StorageError(
            f"{shown} carries a password, token or signature: use the environment, a profile or an instance role "
            "instead"
        )
    if "::" in url and "://" in url:
        raise StorageError(f"{url}: chained URLs are not supported; give the place itself, e.g. {url.split('::')[-1]}")
    match = _PROTOCOL.match(url)
    if match is None:
        return "file", os.path.abspath(os.path.expanduser(url))
    protocol = match[1].lower()
    if protocol in ("file", "local"):
        return "file", os.path.abspath(url[match.end() :])
    if protocol not in fsspec.available_protocols() and protocol not in fsspec.registry:
        raise StorageError(f"{url}: unknown protocol {protocol}://; use a local path, s3://, gs://, az:// or memory://")
    return protocol, f"{protocol}://{url[match.end() :].rstrip('/')}"


@contextmanager
def _named(action: str, path: str) -> Iterator[None]:
    """Turn whatever a file system raises into one line that names the path."""
    try:
        yield
    except FileNotFoundError as error:
        if action == "write":
            raise AccessError(f"cannot write {path}: there is no such bucket or folder") from error
        raise FileNotFoundError(f"cannot {action} {path}: it does not exist") from error
    except PermissionError as error:
        raise AccessError(f"cannot {action} {path}: {_first_line(error)}") from error
    except Exception as error:  # clients raise errors of their own kinds: botocore's and aiohttp's are no OSErrors
        kind = AccessError if type(error).__name__ in _NO_CREDENTIALS else StorageError
        raise kind(f"cannot {action} {path}: {_first_line(error)}") from error


@contextmanager
def _replacing(path: str) -> Iterator[Any]:
    """A binary file that takes the place of `path` once it is complete and synced."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
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


def _first_line(error: BaseException) -> str:
    """The error's message in one line without the credentials of its URLs, or its kind where it has none."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return without_credentials((text.strip().splitlines() or [type(error).__name__])[0])
