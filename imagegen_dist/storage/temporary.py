"""Temporary files and folders, which are removed if a killed process left them; errors name a full folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from imagegen_dist.storage.abandoned import hold, is_abandoned
from imagegen_dist.storage.errors import NO_ROOM, StorageError, first_line

_ENOUGH_BYTES = 32 << 20
_FULL_BYTES = 64 << 10  # free bytes below which any error is attributed to the full folder


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A folder for the block. Folders for the same purpose that killed processes left are removed first.

    Raises StorageError, one line that names the folder, if there is no space for it or for what is written to it.
    """
    prefix = f"imagegen-{purpose}-"
    with _named() as parent:
        _sweep(parent, prefix)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                hold(descriptor)
                with _named():  # before the files that filled the folder are removed
                    yield Path(folder)
            finally:
                os.close(descriptor)


@contextmanager
def temporary_file() -> Iterator[BinaryIO]:
    """A file without a name, which does not outlive the process. Raises StorageError as `temporary_folder`."""
    with _named() as parent, tempfile.TemporaryFile(dir=parent) as file, _named():
        yield file


def check_temporary_room(needed_bytes: int = _ENOUGH_BYTES) -> None:
    """Raise StorageError if the temporary folder has less free space.

    needed_bytes: by default the space of the small files of a worker, Ray and loader processes.
    """
    parent = _parent()
    free = shutil.disk_usage(parent).free
    if free < needed_bytes:
        needed = -(-needed_bytes >> 20)
        raise StorageError(_full(parent, f"{free >> 20:,} MiB are free and {needed:,} MiB are needed"))


def _parent() -> str:
    """The temporary folder of the system, or the one in TMPDIR. Raises StorageError if it cannot be used."""
    asked = os.environ.get("TMPDIR")
    if asked and not (os.path.isdir(asked) and os.access(asked, os.W_OK | os.X_OK)):
        raise StorageError(f"TMPDIR is {asked}, which is not a folder that can be written to: choose another")
    try:
        return tempfile.gettempdir()
    except OSError as error:  # Python has tried to write a file to all folders that it knows
        raise StorageError(
            f"no temporary folder has free space: {first_line(error)}; free some, or set TMPDIR to another folder"
        ) from error


@contextmanager
def _named() -> Iterator[str]:
    """The parent folder of temporary files, which is named by errors about missing space."""
    parent = _parent()
    try:
        yield parent
    except StorageError:
        raise
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageError(_full(parent, first_line(error))) from error
        raise
    except Exception as error:
        if shutil.disk_usage(parent).free < _FULL_BYTES:  # errors of other programs do not say where they wrote
            raise StorageError(_full(parent, first_line(error))) from error
        raise


def _full(parent: str, why: str) -> str:
    return f"the temporary folder {parent} has too little space: {why}; free some, or set TMPDIR to another folder"


def _sweep(parent: str, prefix: str) -> None:
    with os.scandir(parent) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(prefix)]
    for path in found:
        if is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
