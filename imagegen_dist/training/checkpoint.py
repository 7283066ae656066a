"""Checkpoints that either verify or do not exist: safetensors and JSON, with the manifest written last.

checkpoints/step-<images>/<attempt>/model.safetensors    averaged weights, for inference
                                    state.safetensors    raw weights and optimizer state
                                    state.json           the clock and everything else
                                    manifest.json        names, sizes and sha256 of the above
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from imagegen_dist.config import fingerprint
from imagegen_dist.documents import parse_json
from imagegen_dist.run_folder import (
    CHECKPOINTS,
    MANIFEST,
    CheckpointError,
    attempts,
    check_own,
    identity_of,
    read_manifest,
)
from imagegen_dist.storage import Store
from imagegen_dist.training.tensor_file import Digest, Writable, write_tensors
from imagegen_dist.wording import message

Parsed = TypeVar("Parsed")

FILES = ("model.safetensors", "state.safetensors", "state.json")
_BYTES_A_WEIGHT = 16
INFERENCE_FILES = ("model.safetensors", "state.json")


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment, on the host; training does not change it."""

    images: int
    model: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def check_finite(self) -> None:
        """Raise CheckpointError if a weight is not finite: such a checkpoint is never published."""
        for name, tensor in {**self.model, **self.state}.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise CheckpointError(f"{name} is not finite at {self.images:,} images; no checkpoint was written")


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: its store, its images seen, and the content of its manifest."""

    store: Store
    images: int
    manifest: Mapping[str, Any]

    @property
    def url(self) -> str:
        """Its directory."""
        return self.store.url


@dataclass(frozen=True)
class LoadedCheckpoint(Checkpoint):
    """A published checkpoint with the verified contents of its files."""

    model: Mapping[str, Tensor]
    """The averaged weights."""
    state: Mapping[str, Tensor]
    """Raw weights and optimizer state; empty if not requested."""
    facts: Mapping[str, Any]
    """The clock and everything else that is not a tensor."""

    @property
    def published(self) -> Checkpoint:
        """The checkpoint without its contents."""
        return Checkpoint(self.store, self.images, self.manifest)


def publish(
    run: Store, snapshot: Snapshot, attempt: str, config_hash: str, metric: float | None = None, identity: str = ""
) -> Checkpoint:
    """Write a checkpoint, with its manifest last, to an attempt directory of its own.

    identity: that of the run, so that a copy in the folder of another run is recognised; "" if it has none.
    metric: the run's metric at this moment, if computed, by which the best checkpoint is kept. A non-finite metric
    counts as not computed.
    """
    snapshot.check_finite()
    store = run / CHECKPOINTS / f"step-{snapshot.images:012d}" / attempt
    contents: dict[str, Callable[[Writable], object]] = {
        "model.safetensors": partial(write_tensors, snapshot.model),
        "state.safetensors": partial(write_tensors, snapshot.state),
        "state.json": lambda file: file.write(json.dumps(dict(snapshot.facts), indent=1).encode()),
    }
    files = {name: _publish_file(store, name, contents[name]) for name in FILES}
    manifest: dict[str, Any] = {
        "format": 1,
        "images": snapshot.images,
        "config": config_hash,
        **({"run": identity} if identity else {}),
        "metric": metric if metric is not None and isfinite(metric) else None,
        "files": files,
    }
    manifest["sha256"] = fingerprint(manifest)
    store.write(MANIFEST, json.dumps(manifest, indent=1).encode())
    return Checkpoint(store, snapshot.images, manifest)


def _scored(checkpoint: Checkpoint, metric: float) -> Checkpoint:
    """Add the metric, computed after the checkpoint was published, to its manifest."""
    manifest = {name: value for name, value in checkpoint.manifest.items() if name != "sha256"} | {"metric": metric}
    manifest["sha256"] = fingerprint(manifest)
    checkpoint.store.write(MANIFEST, json.dumps(manifest, indent=1).encode())
    return Checkpoint(checkpoint.store, checkpoint.images, manifest)


def check_room(run: Store, weights: int, keep: int) -> None:
    """Raise ValueError, as one line, if the local disk has too little space for the checkpoints of a run.

    weights: number of trainable parameters; the averaged and raw weights and Adam's two moments take 16 bytes each.
    keep: as for Checkpointer; the best checkpoint and the one being written are stored in addition.
    """
    folder = run.local_path(CHECKPOINTS)
    if folder is None:
        return
    each, count = weights * _BYTES_A_WEIGHT, max(keep, 2) + 2
    present = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free + present < each * count:
        raise ValueError(
            f"{there} has {free >> 20:,} MiB free, but {count} checkpoints of {each >> 20:,} MiB are kept at once: "
            "free some space, or choose another --storage"
        )


def _publish_file(store: Store, name: str, write: Callable[[Writable], object]) -> dict[str, Any]:
    """Write a file to its final place, without an intermediate copy; returns its size and SHA-256."""
    digests: list[Digest] = []

    def produce(file: Writable) -> None:  # called again by each retry, of which the last counts
        digests.append(Digest(file))
        write(digests[-1])

    store.publish(name, produce)
    return {"bytes": digests[-1].size, "sha256": digests[-1].sha256}


def open_checkpoint(store: Store, files: Sequence[str] = FILES, identity: str = "") -> LoadedCheckpoint:
    """The checkpoint in `store` with the contents of these files. Raises CheckpointError.

    identity: that of the run in whose folder it is, if it has to be one of its own checkpoints. Each file is read once
    and verified against the manifest. Peak memory is the contents plus the bytes of one file.
    """
    manifest = read_manifest(store)
    check_own(store, manifest, identity)
    model, state = (
        _parse(store, name, load_tensors, manifest) if name in files else {}
        for name in ("model.safetensors", "state.safetensors")
    )
    facts = _parse(store, "state.json", parse_json, manifest)
    if not isinstance(facts, dict):
        raise CheckpointError(f"{store.url}: state.json does not hold a JSON object")
    return LoadedCheckpoint(store, int(manifest["images"]), manifest, model, state, facts)


def _parse(store: Store, name: str, parse: Callable[[bytes], Parsed], manifest: Mapping[str, Any]) -> Parsed:
    """The parsed contents of a file that has the size and SHA-256 of the manifest. Raises CheckpointError."""
    expected = manifest["files"].get(name)
    if expected is None:
        raise CheckpointError(f"{store.url}: the manifest does not list {name}")
    try:
        data = store.read(name)
    except FileNotFoundError:
        raise CheckpointError(f"{store.url}: {name} is missing") from None
    if len(data) != expected["bytes"]:
        raise CheckpointError(f"{store.url}: {name} has {len(data)} bytes, not {expected['bytes']}")
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise CheckpointError(f"{store.url}: {name} does not have the sha256 of the manifest")
    try:
        return parse(data)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{store.url}: {name} cannot be read ({message(error)})") from error


def newest(run: Store, skipped: Callable[[str], None], files: Sequence[str] = FILES) -> LoadedCheckpoint | None:
    """The newest checkpoint whose files verify, with their contents, or None.

    `skipped` is called with the reason for each newer one that does not verify, or that is another run's.
    """
    identity = identity_of(run)
    for store in attempts(run):
        try:
            return open_checkpoint(store, files, identity)
        except CheckpointError as error:
            skipped(str(error))
    return None


def find_checkpoint(store: Store, files: Sequence[str] = FILES) -> LoadedCheckpoint:
    """The checkpoint in this directory, or the newest complete one of the run. Raises CheckpointError."""
    if store.exists(MANIFEST):
        return open_checkpoint(store, files)
    skipped: list[str] = []
    found = newest(store, skipped.append, files)
    if found is None:
        why = f": {skipped[0]}" if skipped else "; give a run, one of its checkpoints, or an exported folder"
        raise CheckpointError(f"{store.url} holds no complete checkpoint{why}")
    return found


def newest_images(run: Store) -> int:
    """Images of the newest checkpoint that has a manifest, -1 if there is none; reads no other file."""
    for store in attempts(run):
        with suppress(CheckpointError):
            return int(read_manifest(store)["images"])
    return -1


def lowest_metric(run: Store) -> float:
    """The lowest metric of any checkpoint that has a manifest, inf if there is none."""
    lowest = inf
    for store in attempts(run):
        with suppress(CheckpointError):
            metric = read_manifest(store)["metric"]
            lowest = lowest if metric is None else min(lowest, metric)
    return lowest


class Checkpointer:
    """Writes one checkpoint at a time on a background thread, and keeps the newest and the best.

    keep: number of newest checkpoints to keep, at least 2, in addition to the one with the lowest metric. identity: as
    for `publish`.
    """

    def __init__(self, run: Store, config_hash: str, attempt: str, keep: int = 2, identity: str = "") -> None:
        self._identity = identity
        self._run = run
        self._config_hash = config_hash
        self._attempt = attempt
        self._keep = max(keep, 2)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.last: Checkpoint | None = None

    def save(self, snapshot: Snapshot, metric: float | None = None) -> None:
        """Start writing `snapshot`; waits only if the previous one is still being written.

        Raises the exception of the previous write.
        """
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(snapshot, metric), name="checkpoint")
        self._thread.start()

    def score(self, metric: float) -> None:
        """Add the metric to the last published checkpoint, once it is written. Raises as `wait`."""
        last = self.wait()
        if last is not None and isfinite(metric):
            self.last = _scored(last, metric)
            prune(self._run, self.last, self._keep)

    def check(self) -> None:
        """Raise the exception of a write that has failed; does not wait."""
        if self._thread is None or not self._thread.is_alive():
            self.wait()

    def wait(self) -> Checkpoint | None:
        """Wait for the current write and return the newest checkpoint. Raises the exception of the write."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return self.last

    def _write(self, snapshot: Snapshot, metric: float | None) -> None:
        try:
            self.last = publish(self._run, snapshot, self._attempt, self._config_hash, metric, self._identity)
            prune(self._run, self.last, self._keep)
        except BaseException as failure:
            self._failure = failure


def prune(run: Store, last: Checkpoint, keep: int) -> None:
    """Remove all but the newest `keep` published checkpoints and the one with the lowest metric.

    last: the checkpoint just published. Those that sort newer were skipped as damaged when the run resumed, and are
    removed. So are attempts without a manifest, left by a crash. A checkpoint's manifest is removed first, so that an
    interrupted removal leaves no checkpoint that looks complete.
    """
    written = attempts(run)
    passed_over = written[: written.index(last.store)]
    published, leftovers = [], []
    for store in written[len(passed_over) :]:
        try:
            published.append((store, read_manifest(store)))
        except CheckpointError:
            leftovers.append(store)
    scored = [
        (manifest["metric"], index) for index, (_, manifest) in enumerate(published) if manifest["metric"] is not None
    ]
    best = min(scored)[1] if scored else None
    unwanted = [store for index, (store, _) in enumerate(published) if index >= keep and index != best]
    for store in passed_over + leftovers + unwanted:
        store.remove(MANIFEST)
        store.remove("")
    folder = run / CHECKPOINTS
    for step in folder.names():
        if not (folder / step).names():
            folder.remove(step)


def weights_digest(tensors: Mapping[str, Tensor]) -> Tensor:
    """A few int64 numbers on the device that differ, with near certainty, if any bit of any tensor differs.

    Sums of the bit patterns, plain and weighted by position, with wrap-around.
    """
    plain, weighted = [], []
    for tensor in tensors.values():
        bits = tensor.detach().contiguous().reshape(-1).view(_BITS[tensor.element_size()]).long()
        position = torch.arange(1, len(bits) + 1, device=bits.device) * 2_654_435_761
        plain.append(bits.sum())
        weighted.append((bits * position).sum())
    return torch.stack([*plain, *weighted])


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
