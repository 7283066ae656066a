"""What one folder holds: names, and what cannot be named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_NO_NAMES = ("", ".", "..")


_SHOWN = 3


def unusable_line(unusable: Sequence[str]) -> str:
    """A line for the user that counts and names objects without a name in a store, "" where there is none."""
    if not unusable:
        return ""
    some = ", ".join(unusable[:_SHOWN]) + (", ..." if len(unusable) > _SHOWN else "")
    objects = "1 object was" if len(unusable) == 1 else f"{len(unusable):,} objects were"
    return f"{objects} left out, for a key with an empty, '.' or '..' part or that of a folder: {some}"


@dataclass(frozen=True)
class Listing:
    """One folder, one level down.

    entries: names, each with True for a folder and False for a file. unusable: whole paths of objects that a store has
    no name for: keys with an empty, "." or ".." part, and objects whose name is that of a folder beside them.
    """

    entries: dict[str, bool] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: str, files: Iterable[str], folders: Iterable[str]) -> Listing:
        """Sort out whole paths of what lies directly in `folder`, which ends in a slash, as those of folders do.

        An object by the folder's own path is a marker, which holds nothing.
        """
        below = {path[len(folder) : -1]: path for path in folders if path.startswith(folder) and path != folder}
        inside = {path[len(folder) :]: path for path in files if path.startswith(folder) and path != folder}
        unusable = [path for name, path in below.items() if name in _NO_NAMES]
        unusable += [path for name, path in inside.items() if name in _NO_NAMES or name in below]
        entries = {name: False for name in inside if name not in _NO_NAMES}
        entries |= {name: True for name in below if name not in _NO_NAMES}
        return cls(entries, tuple(sorted(unusable)))
