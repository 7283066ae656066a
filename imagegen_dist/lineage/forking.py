"""Go on from another run's checkpoint with other settings: which checkpoint, and which settings may differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch._subclasses import FakeTensorMode

from imagegen_dist import config
from imagegen_dist.config_docs import value_text
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.errors import UsageError
from imagegen_dist.experiment import Experiment, build_networks
from imagegen_dist.lineage.record import FORK, Lineage
from imagegen_dist.objectives.interface import Generates
from imagegen_dist.run_folder import CheckpointError, attempts, read_manifest
from imagegen_dist.schedule import Schedule
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import LoadedCheckpoint, newest, open_checkpoint

_FILES = ("state.json",)
_KINDS = ("model", "objective", "optim")
_PLACES = ("data.url", "data.validation")


def choose(run: Store, images: int | None) -> LoadedCheckpoint:
    """A run's checkpoint at `images`, or its newest complete one, with its facts alone. Raises UsageError."""
    if images is None:
        skipped: list[str] = []
        found = newest(run, skipped.append, _FILES)
        if found is None:
            raise UsageError(f"--{FORK} {run} has no complete checkpoint{''.join(f': {why}' for why in skipped[:1])}")
        return found
    known = []
    for store in attempts(run):
        try:
            manifest = read_manifest(store)
            if manifest["images"] == images:
                return open_checkpoint(store, _FILES)
            known.append(f"{manifest['images']:,}")
        except CheckpointError:
            continue
    has = f"there are checkpoints at {', '.join(known[::-1])} images" if known else "the run has no complete checkpoint"
    raise UsageError(f"--at {images}: {has}")


def plan(given: str, checkpoint: LoadedCheckpoint, experiment: Experiment, index: DatasetIndex) -> Lineage:
    """A fork of a checkpoint's run with these settings.

    Raises UsageError for other data and for a setting that cannot change, CheckpointError for a checkpoint that does
    not say how it was trained.
    """
    try:
        before = config.decode(Experiment, checkpoint.facts["experiment"])
        fingerprint = checkpoint.facts["data"]["fingerprint"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.url}: its experiment cannot be read ({error})") from error
    if fingerprint != index.fingerprint:
        raise UsageError(
            f"--{FORK} {given} goes on with the samples that its run was trained on, and these are others: begin on "
            "them with --init-from"
        )
    if checkpoint.images >= (total := experiment.training.total_images):
        raise UsageError(
            f"--{FORK} {given}: the checkpoint has {checkpoint.images:,} images, and the fork would end at {total:,}; "
            "raise --training.total-images, or name an earlier checkpoint by --at"
        )
    changes = _changes(before, experiment)
    if refused := _refused(before, experiment, index, changes):
        was, now = changes[refused]
        raise UsageError(
            f"--{FORK} {given}: {_typed(refused)} cannot change from {was} to {now}, since the weights or the "
            "optimizers would not fit; --init-from takes over what fits"
        )
    changed = tuple(f"{_typed(path)} {one} -> {other}" for path, (one, other) in changes.items())
    manifest = config.fingerprint(checkpoint.manifest["files"])
    return Lineage(FORK, given, checkpoint.url, manifest, checkpoint.images, changed=changed)


def _typed(path: str) -> str:
    return f"--{path.replace('_', '-')}"


def _changes(before: Experiment, now: Experiment) -> dict[str, tuple[str, str]]:
    """The settings that differ, by dotted path, as they would be typed."""
    was, is_ = (dict(config.flatten(config.encode(each))) for each in (before, now))
    return {
        path.removesuffix(".kind"): (_text(was.get(path)), _text(is_.get(path)))
        for path in [*was, *(path for path in is_ if path not in was)]
        if was.get(path) != is_.get(path) and path not in _PLACES
    }


def _text(value: Any) -> str:
    is_schedule = isinstance(value, float | dict)
    return value_text(Schedule.from_json(value) if is_schedule else value)


def _refused(before: Experiment, now: Experiment, index: DatasetIndex, changes: Mapping[str, tuple[str, str]]) -> str:
    """The first setting whose change leaves tensors of the checkpoint without a place; "" if there is none."""
    if found := [path for path in changes if path in _KINDS]:
        return found[0]
    if now.training.freeze_d < before.training.freeze_d:
        return "training.freeze_d"
    wanted = _state_of(before, index)
    if _state_of(now, index) == wanted:
        return ""
    values = dict(config.flatten(config.encode(now)))
    for path in changes:
        try:
            alone = config.override(before, path, values[path])
            if _state_of(alone, index) != wanted:
                return path
        except ValueError:  # the setting fits only together with others
            return path
    return next(iter(changes))


def _state_of(experiment: Experiment, index: DatasetIndex) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights of a checkpoint, by "network/name", without building networks in memory."""
    with FakeTensorMode():
        networks = build_networks(experiment, index.shape, index.labels)
        objective = experiment.objective
        more = objective.sampler(networks).modules() if isinstance(objective, Generates) else {}
        return {
            f"{name}/{key}": tuple(tensor.shape)
            for name, network in {**networks, **more}.items()
            for key, tensor in network.state_dict().items()
        }
