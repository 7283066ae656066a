"""What the run of a checkpoint records about it: metrics at that clock, and its training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from imagegen_dist.documents import parse_json
from imagegen_dist.metric_table import EVALUATION
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.records import by_group, last_values
from imagegen_dist.run_folder import CHECKPOINTS, CONFIG, METRICS
from imagegen_dist.storage import PATIENCE_S, StorageError, Store


def run_of(url: str) -> Store | None:
    """The run's directory of the checkpoint at this URL, <run>/checkpoints/<step>/<attempt>; None for other URLs."""
    run, slash, below = url.rpartition(f"/{CHECKPOINTS}/")
    return Store(run, PATIENCE_S) if slash and below.count("/") == 1 else None


def figures_at(run: Store, images: int) -> dict[str, Any]:
    """The run's last metrics up to this many images, by plain name; {} if there are none."""
    try:
        rows = [row for row in read_rows(run, METRICS) if row.get("images", 0) <= images]
    except (ValueError, StorageError):
        return {}
    return by_group(last_values(rows, EVALUATION))


def run_config(run: Store) -> Mapping[str, Any]:
    """The run's config.json; {} if it cannot be read or is not a JSON object."""
    with suppress(FileNotFoundError, ValueError, RecursionError):  # StorageError is a ValueError
        found = parse_json(run.read(CONFIG))
        return found if isinstance(found, dict) else {}
    return {}
