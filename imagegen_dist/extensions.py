"""Modules of a user's own, which register objectives, networks, metrics, data sources and feature networks.

A module registers what it has when it is imported. Importing runs its code, so that it is imported only where the user
names it: as `package.module:name` for a preset, or by `--package`. What a checkpoint names is not imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType

from imagegen_dist.errors import UsageError
from imagegen_dist.wording import described

_REGISTERED: dict[str, None] = {}


def record(module: str) -> None:
    """Remember that a module has registered something, if it is none of this package's."""
    if module.partition(".")[0] != __package__:
        _REGISTERED[module] = None


def recorded() -> tuple[str, ...]:
    """Modules that have registered something in this process, for another process to import."""
    return tuple(name for name in _REGISTERED if name != "__main__")


def import_all(modules: Iterable[str]) -> None:
    """Import modules that another process of this program has recorded. Raises UsageError."""
    for name in modules:
        import_named(name)


def import_named(name: str) -> ModuleType:
    """Import a module that the user names, from the working directory or sys.path. Raises UsageError."""
    if name in sys.modules:
        return sys.modules[name]
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return import_module(name)
    except Exception as error:  # whatever the user's code raises
        raise UsageError(
            f"the module {name} cannot be imported ({described(error)}); it has to be in the working "
            "directory or on PYTHONPATH"
        ) from error


def import_preset(name: str) -> ModuleType | None:
    """Import the module of a preset `package.module:name`; None for the name of a built-in preset."""
    module, colon, _ = name.partition(":")
    return import_named(module) if colon else None
