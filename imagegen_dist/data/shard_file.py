"""A whole shard that is read in parts: in place on the local disk, and elsewhere from a copy that is fetched first."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import IO

from imagegen_dist.data.tarwalk import ReadAt
from imagegen_dist.storage import AccessError, StorageError, Store, check_temporary_room, temporary_file

_ATTEMPTS = 10
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0
_STALL_S = 15.0


@contextmanager
def opened(store: Store, name: str) -> Iterator[tuple[ReadAt, int]]:
    """(reader, size) of a shard: in place on the local disk, else of a copy that is removed after the block.

    Raises FileNotFoundError, StorageError.
    """
    file: IO[bytes]
    with ExitStack() as stack:
        if store.protocol == "file":
            file = stack.enter_context(store.opened(name))
        else:
            file = stack.enter_context(temporary_file())
            _fetch(store, name, file)
        try:
            yield partial(_read_at, file.fileno()), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise StorageError(f"cannot read {store / name}: {error.strerror or error}") from error


def _fetch(store: Store, name: str, file: IO[bytes]) -> None:
    """Copy a shard into an open file, repeating after transient faults. Raises FileNotFoundError, StorageError."""
    size = store.size(name)
    check_temporary_room(size)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            store.download(name, f"/dev/fd/{file.fileno()}", stall_s=_STALL_S)
            came = os.fstat(file.fileno()).st_size
            if came == size:
                return
            file.seek(0)
            file.truncate()
            raise StorageError(f"cannot read {store / name}: {came:,} of {size:,} bytes arrived")
        except StorageError as error:
            if attempt == _ATTEMPTS or isinstance(error, AccessError):
                raise
            time.sleep(random.uniform(0.5, 1) * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1)))


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    return os.pread(descriptor, length, offset)
