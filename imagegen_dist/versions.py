"""Versions of what decides a run's numbers. It loads at once: a cluster's nodes are asked for theirs."""

import importlib.metadata
import platform

_PACKAGES = ("imagegen_dist", "torch", "numpy", "ray", "webdataset", "wandb", "fsspec", "s3fs")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages, by name."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}
