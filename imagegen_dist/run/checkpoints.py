"""The checkpoints of a run: what they hold, when one is published, and how a run resumes from one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from typing import Any

from imagegen_dist import config
from imagegen_dist.distributed import same_on_all_ranks, sum_over_ranks, text_from_main, together
from imagegen_dist.records import config_hash, describe_data
from imagegen_dist.run.context import Context, RunError
from imagegen_dist.run.outputs import Outputs
from imagegen_dist.storage import PATIENCE_S, Store
from imagegen_dist.training.checkpoint import (
    Checkpoint,
    Checkpointer,
    Snapshot,
    lowest_metric,
    newest,
    open_checkpoint,
    publish,
    weights_digest,
)
from imagegen_dist.training.state import broadcast_state_, load_state_dict, model_of, on_host, state_dict, weights_of
from imagegen_dist.versions import versions


class Checkpoints:
    """Publishes a run's state from rank 0 and restores it on all ranks.

    best: the lowest metric of any checkpoint when the run resumed; inf for a new run.
    """

    def __init__(self, run: Context, outputs: Outputs) -> None:
        self._run = run
        self._outputs = outputs
        self._writer = Checkpointer(run.folder, config_hash(run.experiment), run.settings.attempt, run.settings.keep)
        self._saved_at: int | None = None
        self._announced_at: int | None = None
        self.best = inf

    def resume(self) -> bool:
        """Continue from the newest complete checkpoint, or else from the run's starting checkpoint; False without one.

        Rank 0 selects the checkpoint and reads and verifies its files once; the other ranks receive its tensors from
        rank 0.
        """
        run = self._run
        loaded = together(self._load, run.world, run.device)
        facts = json.loads(text_from_main(json.dumps(loaded), run.world, run.device))
        if facts is None:
            return False
        run.trainer.images = int(facts["images"])
        run.trainer.skipped_steps += facts["skipped_steps"]
        broadcast_state_(run.trainer)
        run.trainer.meter.restore(facts["unreported"], run.device, run.world.is_main)
        self._saved_at = run.trainer.images
        self.best = float(facts["best"])
        run.stopwatch.start(run.trainer.images, float(facts["seconds"]))
        return True

    def save(self) -> None:
        """Publish a checkpoint from rank 0, after verifying that all ranks hold the same weights.

        Raises RunError if they do not.
        """
        run = self._run
        images = run.trainer.images
        if images == self._saved_at:
            return
        with run.stopwatch.paused():
            if not same_on_all_ranks(weights_digest(weights_of(run.trainer)), run.world):
                raise RunError(f"the workers' weights differ at {images:,} images; no checkpoint was written")
            unreported = run.trainer.meter.totals(lambda values: sum_over_ranks(values, run.world))
            if run.world.is_main:
                self._outputs.flush()
                self._writer.save(self._snapshot(unreported))
        self._saved_at = images

    def save_alone(self) -> None:
        """Publish a checkpoint from this rank, whose data ended between two steps.

        The other ranks wait for it in the next step, with the same weights as after every step. If it cannot be
        written, the previous checkpoint remains the newest.
        """
        run = self._run
        if run.trainer.images in (0, self._saved_at):
            return
        with suppress(OSError):
            attempt = f"{run.settings.attempt}-rank{run.world.rank}"
            publish(run.folder, self._snapshot(), attempt, config_hash(run.experiment))
            run.events.message(f"kept a checkpoint at {run.trainer.images:,} images")

    def announce(self) -> None:
        """Notify the driver of the checkpoint at the present clock, and update the report."""
        run = self._run
        if run.world.is_main and self._announced_at != run.trainer.images:
            self._announced_at = run.trainer.images
            self._outputs.submit_report("complete" if run.ended else "in training")
            with run.stopwatch.paused():
                run.events.checkpoint(self._writer.wait)

    def score(self, metric: float) -> None:
        """Add a metric to the last published checkpoint, on rank 0."""
        if self._run.world.is_main:
            self._writer.score(metric)

    def check(self) -> None:
        """Raise the exception of a write that has failed; does not wait."""
        self._writer.check()

    def wait(self) -> None:
        """Wait for the current write. Raises its exception."""
        self._writer.wait()

    def last(self) -> Checkpoint | None:
        """The newest published checkpoint."""
        return self._writer.last or newest(self._run.folder, lambda _: None)

    def _snapshot(self, unreported: Mapping[str, tuple[float, float]] | None = None) -> Snapshot:
        run = self._run
        facts = {
            "images": run.trainer.images,
            "seconds": run.stopwatch.seconds,
            "skipped_steps": int(run.trainer.skipped_steps),
            "unreported": unreported or {},
            "lanes": run.plan.lanes,
            "data": describe_data(run.training.index, rows=True),
            "preset": run.settings.preset,
            "experiment": config.encode(run.experiment),
            "world_size": run.world.size,
            "versions": versions(),
        }
        return Snapshot(run.trainer.images, on_host(model_of(run.trainer)), on_host(state_dict(run.trainer)), facts)

    def _load(self) -> dict[str, Any] | None:
        """Load the checkpoint to continue from, on rank 0; returns what all ranks need to know, or None."""
        run = self._run
        if not run.world.is_main:
            return None
        run.folder.sweep()
        found = newest(run.folder, lambda why: run.events.message(f"skipped {why}"))
        begins_at = run.settings.start if found is None else ""
        loaded = open_checkpoint(Store(begins_at, PATIENCE_S)) if begins_at else found
        if loaded is None:
            return None
        if found is not None:
            self._writer.last = found.published
        load_state_dict(run.trainer, loaded.model, loaded.state)
        run.events.message(f"resuming at {loaded.facts['images']:,} images from {loaded.url}")
        return {
            **{name: loaded.facts[name] for name in ("images", "seconds", "skipped_steps")},
            "unreported": loaded.facts.get("unreported", {}) if found else {},
            "best": repr(lowest_metric(run.folder)),
        }
