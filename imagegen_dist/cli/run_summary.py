"""What a run's directory says of it, on any storage. Reading it needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from imagegen_dist.config import flatten
from imagegen_dist.config_docs import value_text
from imagegen_dist.documents import parse_json
from imagegen_dist.metric_table import EVALUATION, place_of
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.run_folder import RESULT, CheckpointError, attempts, read_config, read_manifest
from imagegen_dist.schedule import Schedule
from imagegen_dist.storage import Store
from imagegen_dist.storage.lease import Holder, holder_of

_STARTED = re.compile(r"\d{8}T\d{6}")
_NO_FIGURES = ("images", "seconds", "images_per_s")


@dataclass(frozen=True)
class RunCheckpoint:
    """A published checkpoint, as its manifest describes it."""

    store: Store
    images: int
    attempt: str
    metric: float | None
    size: int


@dataclass(frozen=True)
class Run:
    """What a run's directory says of it."""

    store: Store
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    holder: Holder | None
    checkpoints: Sequence[RunCheckpoint] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.store.url.rpartition("/")[2]

    @property
    def total(self) -> int:
        """Images after which it ends."""
        return int(self.config["experiment"]["training"]["total_images"])

    @property
    def images(self) -> int:
        """Images seen, as far as its files say."""
        return max([int(self.result.get("images", 0)), *(each.images for each in self.checkpoints)])

    @property
    def state(self) -> str:
        """finished, training, stopped (it can be continued), or unknown if another machine may be training it."""
        if self.holder is not None and self.holder.has_ended is None:
            return "unknown"
        if self.holder is not None and not self.holder.has_ended:
            return "training"
        return "finished" if self.result and self.images >= self.total else "stopped"

    @property
    def started(self) -> str:
        """When its newest attempt began, in local time; "" where no checkpoint says so."""
        found = [match[0] for each in self.checkpoints if (match := _STARTED.match(each.attempt))]
        if not found:
            return ""
        return (
            datetime.strptime(max(found), "%Y%m%dT%H%M%S").replace(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        )

    def figures(self) -> dict[str, float]:
        """The figures of its last evaluation by full name; those in its metrics if it has no result."""
        found: dict[str, Any] = {}
        if self.result:
            found = {f"{EVALUATION}{name}": self.result[name] for name in self.result if name not in _NO_FIGURES}
        else:
            for row in read_rows(self.store):
                found |= {name: value for name, value in row.items() if name.startswith(EVALUATION)}
        return {
            name: float(value)
            for name, value in sorted(found.items(), key=lambda each: place_of(each[0]))
            if isinstance(value, int | float) and not isinstance(value, bool) and name.count("/") == 1
        }

    @property
    def best(self) -> RunCheckpoint | None:
        """The checkpoint of the lowest metric."""
        scored = [each for each in self.checkpoints if each.metric is not None]
        return min(scored, key=lambda each: each.metric or 0.0) if scored else None

    @property
    def settings(self) -> dict[str, str]:
        """The settings of its experiment by dotted path, as they would be typed."""
        return typed_settings(self.config["experiment"])


def read_run(store: Store) -> Run:
    """The run in a directory. Raises UsageError for a directory that is no run."""
    config = read_config(store)
    result = {}
    with suppress(FileNotFoundError, ValueError):
        result = parse_json(store.read(RESULT))
    return Run(store, config, result, holder_of(store), tuple(_checkpoints(store)))


def _checkpoints(store: Store) -> Iterator[RunCheckpoint]:
    """The published checkpoints of a run, the newest first."""
    for place in attempts(store):
        with suppress(CheckpointError):
            manifest = read_manifest(place)
            size = sum(file["bytes"] for file in manifest["files"].values())
            yield RunCheckpoint(place, manifest["images"], place.url.rpartition("/")[2], manifest["metric"], size)


def typed_settings(experiment: Mapping[str, Any]) -> dict[str, str]:
    """The settings of an experiment's JSON form by dotted path, as they would be typed."""
    found: dict[str, str] = {}
    for path, value in flatten(experiment):
        group, _, name = path.replace("_", "-").rpartition(".")
        if name != "kind":
            found[f"{group}.{name}"] = value_text(Schedule.from_json(value) if isinstance(value, dict) else value)
        elif group and "." not in group:
            found[group] = value
    return found
