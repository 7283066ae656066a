"""Folders of this user alone, in places where others write as well, such as the system's temporary folder.

Whoever guesses the name of such a folder can make it first, or lay a symbolic link there, and then chooses what this
user reads and overwrites. A folder that is not private is therefore left alone and another name is taken.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

_MOST_NAMES = 100


def is_private(path: Path) -> bool:
    """True if this is a folder, not a symbolic link to one, that this user owns and nobody else may enter."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077


def numbered(parent: Path, name: str) -> Iterable[Path]:
    """parent/name, parent/name-2, parent/name-3, ..."""
    yield parent / name
    for number in range(2, _MOST_NAMES + 1):
        yield parent / f"{name}-{number}"


def first_usable(paths: Iterable[Path]) -> Path:
    """The first path that is private or does not exist yet: the same for all processes of this user. Raises ValueError.

    It is not made.
    """
    refused = None
    for path in paths:
        if is_private(path) or not os.path.lexists(path):
            return path
        refused = refused or path
    raise ValueError(
        f"{refused} is not a folder of this user alone (mode 0700), and neither are those of the names after it; "
        "choose another place"
    )


def make_private(path: Path) -> None:
    """Make the folder with mode 0700, if it is not there. Raises ValueError where it is not private then, OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    if not is_private(path):
        raise ValueError(
            f"{path} is not a folder of this user alone (mode 0700): another user made it, or its file system keeps no "
            "modes; choose another place"
        )
