"""The Hugging Face Hub: every spelling of a repository and its revision, by huggingface_hub's file system."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import fsspec

from imagegen_dist.storage.errors import local_room
from imagegen_dist.storage.listing import Listing
from imagegen_dist.storage.remote import BLOCK_BYTES, Remote

_ALIAS = re.compile(r"^(hf://(?:\w+/)?[^/@]+/[^/@]+)@~(\w+)(?=/|$)")
_REFUSED = (401, 403)


class Hub(Remote):
    """Files by `hf://[datasets/|spaces/|buckets/]OWNER/NAME[@REVISION]/path`.

    A revision is a branch, a tag, a commit, `refs/convert/parquet` with slashes as they are or as %2F, or that one's
    alias `~parquet`, which the Hub's own pages use. Each thread has a file system of its own, as the library asks for.
    """

    def __init__(self) -> None:
        self._of_thread = threading.local()
        try:
            self._client: Any = fsspec.get_filesystem_class("hf")
        except ImportError as error:
            raise ImportError("hf:// needs the package huggingface_hub: pip install huggingface_hub") from error

    def read(self, path: str) -> bytes:
        with _refusals():
            return super().read(_canonical(path))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        with _refusals():
            return super().read_range(_canonical(path), start, end)

    def write(self, path: str, data: bytes) -> None:
        with _refusals():
            super().write(_canonical(path), data)

    def upload(self, path: str, local_path: str) -> None:
        with _refusals():
            super().upload(_canonical(path), local_path)

    def download(self, path: str, local_path: str, timeout_s: float | None, stall_s: float | None) -> None:
        with _refusals(), local_room(local_path):
            self._fs.get_file(_canonical(path), local_path)

    def open(self, path: str) -> BinaryIO:
        with _refusals():
            return self._fs.open(_canonical(path), "rb", block_size=BLOCK_BYTES)

    def exists(self, path: str) -> bool:
        """The library's own takes a refusal for a no."""
        try:
            self._info(path)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        return int(self._info(path)["size"])

    def list(self, path: str) -> Listing:
        """Names come back below the repository as the library spells it, whichever way it was asked for."""
        try:
            with _refusals():
                folder = self._fs.resolve_path(_canonical(path)).unresolve() + "/"
                listed = self._fs.ls(_canonical(path), detail=True, refresh=True)
        except FileNotFoundError:
            return Listing()
        files = [entry["name"] for entry in listed if entry["type"] != "directory"]
        return Listing.of(folder, files, [f"{entry['name']}/" for entry in listed if entry["type"] == "directory"])

    def remove(self, path: str) -> None:
        with _refusals():
            super().remove(_canonical(path))

    def _info(self, path: str) -> dict[str, Any]:
        with _refusals():
            self._fs.invalidate_cache(_canonical(path))
            return dict(self._fs.info(_canonical(path)))

    @property
    def _fs(self) -> Any:
        if not hasattr(self._of_thread, "fs"):
            self._of_thread.fs = self._client(skip_instance_cache=True)
        return self._of_thread.fs


def _canonical(path: str) -> str:
    return _ALIAS.sub(r"\1@refs/convert/\2", path)


@contextmanager
def _refusals() -> Iterator[None]:
    """A repository that is gated, private or not to be written to is a refusal, and not a place that is missing."""
    try:
        yield
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in _REFUSED:
            said = getattr(error, "server_message", None) or f"the Hub answers {status}"
            raise PermissionError(f"{said} (log in with `hf auth login` or set HF_TOKEN)") from error
        cause = error.__cause__
        if isinstance(error, FileNotFoundError) and type(cause).__name__ == "GatedRepoError":
            said = getattr(cause, "server_message", None) or "the repository is gated"
            raise PermissionError(f"{said} Accept its terms on its page, and log in with `hf auth login`") from error
        raise
