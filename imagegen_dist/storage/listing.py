"""The contents of one folder: names, and objects without a usable name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_NO_NAMES = ("", ".", "..")
_SHOWN = 3


def unusable_line(unusable: Sequence[str]) -> str:
    """A line for the user about objects that have no usable name in a store; "" if there are none."""
    if not unusable:
        return ""
    some = ", ".join(unusable[:_SHOWN]) + (", ..." if len(unusable) > _SHOWN else "")
    objects = "1 object was" if len(unusable) == 1 else f"{len(unusable):,} objects were"
    return f"{objects} left out, because the key has an empty, '.' or '..' part or is that of a folder: {some}"


@dataclass(frozen=True)
class Listing:
    """The contents of one folder, without those of sub-folders.

    entries: names, with True for a folder and False for a file. unusable: whole paths of objects without a usable name:
    keys with an empty, "." or ".." part, and objects with the name of a folder beside them.
    """

    entries: dict[str, bool] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: str, files: Iterable[str], folders: Iterable[str]) -> Listing:
        """Make a listing of the whole paths of files and folders in `folder`; paths of folders end in a slash.

        An object with the path of the folder itself is an empty marker and is ignored.
        """
        below = {path[len(folder) : -1]: path for path in folders if path.startswith(folder) and path != folder}
        inside = {path[len(folder) :]: path for path in files if path.startswith(folder) and path != folder}
        unusable = [path for name, path in below.items() if name in _NO_NAMES]
        unusable += [path for name, path in inside.items() if name in _NO_NAMES or name in below]
        entries = {name: False for name in inside if name not in _NO_NAMES}
        entries |= {name: True for name in below if name not in _NO_NAMES}
        return cls(entries, tuple(sorted(unusable)))
