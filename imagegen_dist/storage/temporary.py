"""Files of the system's temporary folder: swept where a killed process left them, and named where there is no room."""

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
_FULL_BYTES = 64 << 10  # free, below which whatever fails is put down to the full folder


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A folder of this process, gone after the block; those of the purpose that killed processes left go first.

    Raises StorageError, one line that names the folder, where there is no room for it or for what is written to it.
    """
    prefix = f"imagegen-{purpose}-"
    with _named() as parent:
        _sweep(parent, prefix)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                hold(descriptor)
                with _named():  # here already, while what filled the folder is there
                    yield Path(folder)
            finally:
                os.close(descriptor)


@contextmanager
def temporary_file() -> Iterator[BinaryIO]:
    """A file without a name, which is gone with the process however that ends. Raises StorageError as the folder."""
    with _named() as parent, tempfile.TemporaryFile(dir=parent) as file, _named():
        yield file


def check_temporary_room(needed_bytes: int = _ENOUGH_BYTES) -> None:
    """Raise StorageError, one line, where the temporary folder has less room.

    needed_bytes: by default what a worker, Ray and loader processes keep there in small files.
    """
    parent = _parent()
    free = shutil.disk_usage(parent).free
    if free < needed_bytes:
        needed = -(-needed_bytes >> 20)
        raise StorageError(_full(parent, f"{free >> 20:,} MiB are free and {needed:,} MiB are needed"))


def _parent() -> str:
    """The system's temporary folder, or the one that TMPDIR names. Raises StorageError where it cannot be used."""
    asked = os.environ.get("TMPDIR")
    if asked and not (os.path.isdir(asked) and os.access(asked, os.W_OK | os.X_OK)):
        raise StorageError(f"TMPDIR is {asked}, which is not a folder that can be written to: choose another")
    try:
        return tempfile.gettempdir()
    except OSError as error:  # Python has tried to write a file to each that it knows
        raise StorageError(
            f"there is no temporary folder with room: {first_line(error)}; free some, or set TMPDIR to another folder"
        ) from error


@contextmanager
def _named() -> Iterator[str]:
    """The folder in which temporary files are made, and which an error for want of room names."""
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
        if shutil.disk_usage(parent).free < _FULL_BYTES:  # other programs' errors do not say where they wrote
            raise StorageError(_full(parent, first_line(error))) from error
        raise


def _full(parent: str, why: str) -> str:
    return f"the temporary folder {parent} has too little room: {why}; free some, or set TMPDIR to another folder"


def _sweep(parent: str, prefix: str) -> None:
    with os.scandir(parent) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(prefix)]
    for path in found:
        if is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
