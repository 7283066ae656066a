"""Private folders of this user in places where others can write as well, such as the system's temporary folder.

Another user who guesses the name of such a folder can create it or a symbolic link first, and then control what this
user reads and overwrites. A folder that is not private is therefore not used, and another name is taken.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

_MOST_NAMES = 100


def is_private(path: Path) -> bool:
    """True for a folder, not a symbolic link, that this user owns and nobody else may enter."""
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
    """The first path that is private or does not exist yet, which is the same for all processes of this user.

    It is not created. Raises ValueError if there is none.
    """
    refused = None
    for path in paths:
        if is_private(path) or not os.path.lexists(path):
            return path
        refused = refused or path
    raise ValueError(
        f"{refused} is not a private folder of this user (mode 0700), and neither are those with the following names; "
        "choose another place"
    )


def make_private(path: Path) -> None:
    """Create the folder with mode 0700 if it does not exist. Raises ValueError if it is not private, OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    if not is_private(path):
        raise ValueError(
            f"{path} is not a private folder of this user (mode 0700): another user created it, or its file system has "
            "no modes; choose another place"
        )
