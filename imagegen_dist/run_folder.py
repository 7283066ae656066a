"""The files in the directory of a run, by name, and what they say of it without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagegen_dist.config import fingerprint
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError
from imagegen_dist.storage import Store

CONFIG = "config.json"
"""The resolved experiment, its data, the launch and the versions."""
RESULT = "result.json"
"""Figures, images, seconds and paths of a run that has ended."""
REPORT = "report.html"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints, CHECKPOINTS/step-<images>/<attempt>."""
MANIFEST = "manifest.json"
"""The file of a checkpoint that is written last: the names, sizes and SHA-256 of its others."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: one line that says which and why."""


def read_config(run: Store) -> dict[str, Any]:
    """What config.json holds. Raises UsageError where there is none, or where it is not as a run writes it."""
    try:
        found: dict[str, Any] = parse_json(run.read(CONFIG))
        _ = found["experiment"]["training"]["total_images"], found["data"]["url"], found["job"], found["preset"]
    except FileNotFoundError:
        raise UsageError(f"{run.url} is no run: it has no {CONFIG}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise unreadable_config(run, error) from error
    return found


def identity_of(run: Store) -> str:
    """The identity of the run in a folder, which its checkpoints carry; "" for a run of an earlier version, or none."""
    try:
        found = parse_json(run.read(CONFIG))
        return str(found.get("id", ""))
    except (FileNotFoundError, ValueError, AttributeError):
        return ""


def unreadable_config(run: Store, error: Exception) -> UsageError:
    """The error for a config.json that cannot be read or decoded."""
    return UsageError(f"{run.url}/{CONFIG} cannot be read ({type(error).__name__}); restore it, or choose another run")


def attempts(run: Store) -> list[Store]:
    """The directory of every checkpoint, also of those that were not published: newest images first, then attempts."""
    folder = run / CHECKPOINTS
    steps = sorted((name for name in folder.names() if name.startswith("step-")), reverse=True)
    return [folder / step / attempt for step in steps for attempt in sorted((folder / step).names(), reverse=True)]


def read_manifest(checkpoint: Store) -> dict[str, Any]:
    """The manifest of a published checkpoint, which verifies. Raises CheckpointError."""
    try:
        manifest: dict[str, Any] = parse_json(checkpoint.read(MANIFEST))
        if manifest["format"] != 1:
            raise CheckpointError(f"{checkpoint.url}: format {manifest['format']} is not known to this version")
        if manifest.pop("sha256") != fingerprint(manifest):
            raise CheckpointError(f"{checkpoint.url}: {MANIFEST} does not have the sha256 that it names")
        known = isinstance(manifest["images"], int) and isinstance(manifest["metric"], int | float | None)
        if not known or not all(isinstance(file["bytes"], int) for file in manifest["files"].values()):
            raise ValueError("a field is of another type")
    except FileNotFoundError:
        raise CheckpointError(f"{checkpoint.url}: no {MANIFEST}, its writing was interrupted") from None
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint.url}: {MANIFEST} cannot be read ({type(error).__name__})") from None
    return manifest


def check_own(checkpoint: Store, manifest: Mapping[str, Any], identity: str) -> None:
    """Raise CheckpointError if a manifest is that of another run's checkpoint; those of earlier versions do not say."""
    owner = manifest.get("run", "")
    if owner and identity and owner != identity:
        raise CheckpointError(
            f"{checkpoint.url} was copied here from another run: remove it from this one; --fork-from RUN goes on with "
            "a run under a new name, and --init-from CHECKPOINT begins with its weights"
        )


def check_own_checkpoints(run: Store, identity: str) -> None:
    """Raise CheckpointError if the folder of a run holds a checkpoint of another run."""
    for store in attempts(run):
        try:
            manifest = read_manifest(store)
        except CheckpointError:  # it is skipped as damaged
            continue
        check_own(store, manifest, identity)
