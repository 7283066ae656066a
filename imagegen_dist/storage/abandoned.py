"""Distinguish files that a killed process left from those that another process is writing, which it locks."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress

_UNLOCKED_S = 60.0
"""Age up to which a file may not be locked yet by the process that creates it."""


def hold(descriptor: int) -> None:
    """Mark a file or folder as in use until it is closed, at the latest by the end of the process."""
    with suppress(OSError):  # on a file system without locks, nothing counts as abandoned
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_abandoned(path: str) -> bool:
    """True if no process holds the file or folder, and it was not just created."""
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
