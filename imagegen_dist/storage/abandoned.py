"""Telling what a killed process left from what another one is writing: whoever writes holds a lock on it."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress

_UNLOCKED_S = 60.0
"""A file is younger than that between its making and its locking."""


def hold(descriptor: int) -> None:
    """Mark a file or folder as in use until it is closed, which the end of the process does."""
    with suppress(OSError):  # a file system without locks, where nothing counts as abandoned
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_abandoned(path: str) -> bool:
    """True if no process holds the file or folder, and it was not made just now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid() or time.time() - status.st_ctime < _UNLOCKED_S:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
