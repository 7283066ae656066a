"""The Hugging Face Hub, by the file system of huggingface_hub, with all spellings of repositories and revisions."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import fsspec

from imagegen_dist.storage.errors import local_disk_errors
from imagegen_dist.storage.listing import Listing
from imagegen_dist.storage.remote import BLOCK_BYTES, Remote

_ALIAS = re.compile(r"^(hf://(?:\w+/)?[^/@]+/[^/@]+)@~(\w+)(?=/|$)")
_REFUSED = (401, 403)


class Hub(Remote):
    """Files by `hf://[datasets/|spaces/|buckets/]OWNER/NAME[@REVISION]/path`.

    A revision is a branch, a tag, a commit, `refs/convert/parquet` with slashes or %2F, or its alias `~parquet`, which
    the pages of the Hub use. Each thread has its own file system, as the library requires.
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
        with _refusals(), local_disk_errors(local_path):
            self._fs.get_file(_canonical(path), local_path)

    def open(self, path: str) -> BinaryIO:
        with _refusals():
            return self._fs.open(_canonical(path), "rb", block_size=BLOCK_BYTES)

    def exists(self, path: str) -> bool:
        """The method of the library treats a refusal as False."""
        try:
            self._info(path)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        return int(self._info(path)["size"])

    def list(self, path: str) -> Listing:
        """The library returns names below its own spelling of the repository, whichever spelling was requested."""
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
    """Raise PermissionError for a gated, private or read-only repository, which is not a missing one."""
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
