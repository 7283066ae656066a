"""What a run's directory says of it, on any storage. Reading it needs no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError
from imagegen_dist.metric_table import EVALUATION, place_of
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.storage import Store
from imagegen_dist.storage.lease import Holder, holder_of

CONFIG, REPORT, MANIFEST = "config.json", "report.html", "manifest.json"
_RESULT, _CHECKPOINTS = "result.json", "checkpoints"
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
        return flat(self.config["experiment"])


def read_run(store: Store) -> Run:
    """The run in a directory. Raises UsageError for a directory that is no run."""
    try:
        config = parse_json(store.read(CONFIG))
        _ = config["experiment"]["training"]["total_images"], config["data"], config["job"], config["preset"]
    except FileNotFoundError:
        raise UsageError(f"{store} is no run: it has no {CONFIG}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{store}/{CONFIG} cannot be read ({type(error).__name__})") from error
    result = {}
    with suppress(FileNotFoundError, ValueError):
        result = parse_json(store.read(_RESULT))
    return Run(store, config, result, holder_of(store), tuple(_checkpoints(store)))


def _checkpoints(store: Store) -> Iterator[RunCheckpoint]:
    """The published checkpoints of a run, the newest first."""
    for step in sorted((store / _CHECKPOINTS).names(), reverse=True):
        for attempt in sorted((store / _CHECKPOINTS / step).names(), reverse=True):
            place = store / _CHECKPOINTS / step / attempt
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
                manifest = parse_json(place.read(MANIFEST))
                size = sum(int(file["bytes"]) for file in manifest["files"].values())
                yield RunCheckpoint(place, int(manifest["images"]), attempt, manifest["metric"], size)


def flat(experiment: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The settings of an experiment's JSON form by dotted path, as they would be typed."""
    found: dict[str, str] = {}
    for name, value in experiment.items():
        path = prefix + name.replace("_", "-")
        if isinstance(value, dict) and {"start", "end", "images"} <= value.keys():
            found[path] = f"{value['start']:g}:{value['end']:g}:{value['images']}"
        elif isinstance(value, dict):
            found |= flat(value, f"{path}.")
        elif name == "kind":
            if prefix.count(".") == 1:
                found[prefix.rstrip(".")] = str(value)
        else:
            found[path] = value if isinstance(value, str) else json.dumps(value)
    return found
