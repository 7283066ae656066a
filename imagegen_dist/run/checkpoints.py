"""The checkpoints of a run: what they hold, when one is published, and how a run resumes from one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from typing import Any

from imagegen_dist import config
from imagegen_dist.decoding.decoder import FACT, ROLE
from imagegen_dist.distributed import same_on_all_ranks, sum_over_ranks, text_from_main, together
from imagegen_dist.lineage.beginning import begin_
from imagegen_dist.lineage.record import INIT
from imagegen_dist.records import config_hash, describe_data
from imagegen_dist.run.context import Context, RunError
from imagegen_dist.run.latents import check_decoder
from imagegen_dist.run.outputs import Outputs
from imagegen_dist.run_folder import CheckpointError, check_own_checkpoints
from imagegen_dist.storage import PATIENCE_S, Store
from imagegen_dist.training.checkpoint import (
    Checkpoint,
    Checkpointer,
    LoadedCheckpoint,
    Snapshot,
    lowest_metric,
    newest,
    open_checkpoint,
    publish,
    weights_digest,
)
from imagegen_dist.training.state import (
    broadcast_state_,
    flatten,
    load_state_dict,
    model_of,
    on_host,
    state_dict,
    weights_of,
)
from imagegen_dist.versions import versions
from imagegen_dist.wording import message


class Checkpoints:
    """Publishes a run's state from rank 0 and restores it on all ranks.

    best: the lowest metric of any checkpoint when the run resumed; inf for a new run. begun: True if the run has taken
    over weights of another one, and has no checkpoint with them yet.
    """

    def __init__(self, run: Context, outputs: Outputs) -> None:
        self._run = run
        self._outputs = outputs
        self._writer = Checkpointer(
            run.folder, config_hash(run.experiment), run.settings.attempt, run.settings.keep, run.settings.id
        )
        self._saved_at: int | None = None
        self._announced_at: int | None = None
        self.best = inf
        self.begun = False

    def resume(self) -> bool:
        """Continue from the newest complete checkpoint, or else begin where the run's settings say.

        Returns False for a run that is at its first step, whether its weights are new or those of another run.
        Rank 0 selects the checkpoint and reads and verifies its files once; the other ranks receive its tensors from
        rank 0.
        """
        run = self._run
        loaded = together(self._load, run.world, run.device)
        facts = json.loads(text_from_main(json.dumps(loaded), run.world, run.device))
        if facts is None:
            return False
        self.begun = facts["begun"]
        run.trainer.images = int(facts["images"])
        run.trainer.skipped_steps += facts["skipped_steps"]
        broadcast_state_(run.trainer)
        run.trainer.meter.restore(facts["unreported"], run.device, run.world.is_main)
        self._saved_at = None if self.begun else run.trainer.images
        self.best = float(facts["best"])
        run.stopwatch.start(run.trainer.images, float(facts["seconds"]))
        return not facts["is_new"]

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
            publish(run.folder, self._snapshot(), attempt, config_hash(run.experiment), identity=run.settings.id)
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
        model = model_of(run.trainer)
        if run.decoder is not None:
            facts[FACT] = run.decoder.facts
            model |= flatten({ROLE: run.decoder.state_dict()})
        return Snapshot(run.trainer.images, on_host(model), on_host(state_dict(run.trainer)), facts)

    def _load(self) -> dict[str, Any] | None:
        """Load the checkpoint to continue from, on rank 0; returns what all ranks need to know, or None."""
        run = self._run
        if not run.world.is_main:
            return None
        run.folder.sweep()
        check_own_checkpoints(run.folder, run.settings.id)
        found = newest(run.folder, lambda why: run.events.message(f"skipped {why}"))
        if found is None:
            return self._begin()
        self._writer.last = found.published
        self._restore(found)
        run.events.message(f"resuming at {found.facts['images']:,} images from {found.url}")
        known = {name: found.facts[name] for name in ("images", "seconds", "skipped_steps")}
        unreported = found.facts.get("unreported", {})
        best = repr(lowest_metric(run.folder))
        return {**known, "unreported": unreported, "best": best, "begun": False, "is_new": False}

    def _begin(self) -> dict[str, Any] | None:
        """Begin where the run's settings say, as `_load` does; None for new weights."""
        run, lineage = self._run, self._run.settings.lineage
        rest = {"unreported": {}, "best": repr(inf), "begun": lineage is not None}
        if lineage is not None:
            for line in lineage.lines():
                run.events.message(line)
        if lineage is not None and lineage.how == INIT:
            begin_(run.trainer, lineage, run.training.index)
            return {"images": 0, "seconds": 0.0, "skipped_steps": 0, "is_new": True, **rest}
        begins_at = lineage.source if lineage is not None else run.settings.start
        if not begins_at:
            return None
        loaded = open_checkpoint(Store(begins_at, PATIENCE_S))
        self._restore(loaded)
        if lineage is None:
            run.events.message(f"resuming at {loaded.facts['images']:,} images from {loaded.url}")
        known = {name: loaded.facts[name] for name in ("images", "seconds", "skipped_steps")}
        return {**known, "is_new": False, **rest}

    def _restore(self, checkpoint: LoadedCheckpoint) -> None:
        """Load a checkpoint's tensors. Raises CheckpointError if they do not fit."""
        check_decoder(self._run.decoder, checkpoint.facts, checkpoint.url)
        try:
            load_state_dict(self._run.trainer, checkpoint.model, checkpoint.state)
        except (RuntimeError, KeyError) as error:
            line = message(error)[:200]
            raise CheckpointError(f"{checkpoint.url} does not fit the networks of this run ({line})") from error
