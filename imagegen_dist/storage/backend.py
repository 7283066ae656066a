"""The interface of a kind of storage, and the client of each process for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import BinaryIO, Protocol

from imagegen_dist.extras import install_hint
from imagegen_dist.storage.errors import AccessError, first_line
from imagegen_dist.storage.listing import Listing
from imagegen_dist.storage.local import LocalDisk


class Output(Protocol):
    """Takes the bytes of a file in order."""

    def write(self, data: bytes | memoryview, /) -> object: ...


class Backend(Protocol):
    """The primitive operations that a store needs. Paths are complete and taken literally."""

    def read(self, path: str) -> bytes: ...
    def read_range(self, path: str, start: int, end: int) -> bytes: ...
    def write(self, path: str, data: bytes) -> None: ...
    def publish(self, path: str, produce: Callable[[Output], object]) -> None: ...
    def upload(self, path: str, local_path: str) -> None: ...
    def download(self, path: str, local_path: str, timeout_s: float | None, stall_s: float | None) -> None: ...
    def open(self, path: str) -> BinaryIO: ...
    def exists(self, path: str) -> bool: ...
    def size(self, path: str) -> int: ...
    def list(self, path: str) -> Listing: ...
    def sweep(self, path: str) -> None: ...
    def remove(self, path: str) -> None: ...


_clients: dict[tuple[str, int], Backend] = {}
_lock = Lock()


def backend_of(protocol: str) -> Backend:
    """The client of this process for a protocol, created on first use and shared by all stores and threads."""
    if protocol == "file":
        return LocalDisk()
    key = (protocol, os.getpid())
    with _lock:
        if key not in _clients:
            _clients[key] = _connect(protocol)
        return _clients[key]


def forget(backend: Backend | None) -> None:
    """Discard a client, so that the next store creates a new one, unless another thread has replaced it already."""
    with _lock:
        for key in [key for key, client in _clients.items() if client is backend]:
            del _clients[key]


def forget_clients() -> None:
    """Discard all clients, so that new stores read credentials and settings from the environment again."""
    with _lock:
        _clients.clear()


def client_module(protocol: str) -> str:
    """The module of this package with the client of a protocol."""
    known = {"file": "local", "s3": "s3", "s3a": "s3", "hf": "hub"}
    return f"imagegen_dist.storage.{known.get(protocol, 'remote')}"


def _connect(protocol: str) -> Backend:
    """Create the client of a protocol, importing only what it needs: s3fs takes half a second."""
    if protocol in ("s3", "s3a"):
        from imagegen_dist.storage.s3 import S3

        return S3()
    if protocol == "hf":
        from imagegen_dist.storage.hub import Hub

        return Hub()
    from imagegen_dist.storage.remote import Remote

    try:
        return Remote(protocol)
    except ImportError as error:
        hint = f": {install_hint('gcp')}" if protocol in ("gs", "gcs") else ""
        raise AccessError(f"{protocol}:// needs a package that is missing ({first_line(error)}){hint}") from error
