"""One run in its directory: resume, train, observe, publish. Called by every rank alike; it knows nothing of Ray."""

from __future__ import annotations

import json
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from imagegen_dist import config
from imagegen_dist.background import Background
from imagegen_dist.data.counters import COUNTED
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import modality
from imagegen_dist.data.stream import Item, check_cache, prepare_loaders, stream
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.distributed import (
    RankError,
    Stopped,
    World,
    said,
    same_on_all_ranks,
    sum_over_ranks,
    text_from_main,
    together,
)
from imagegen_dist.documents import parse_json
from imagegen_dist.evaluation.checks import remarks
from imagegen_dist.evaluation.evaluator import Evaluator
from imagegen_dist.evaluation.memorisation import PICTURE_OF_COPIES
from imagegen_dist.experiment import Experiment, build_plan, build_trainer
from imagegen_dist.metric_table import EVALUATION, describe
from imagegen_dist.metrics.copying import NOT_COPYING, reading
from imagegen_dist.metrics.sinks import JSONLSink, PictureSink, Sink, read_rows
from imagegen_dist.metrics.stopwatch import Stopwatch
from imagegen_dist.metrics.wandb import WandbSink
from imagegen_dist.records import (
    RunSettings,
    RunStatus,
    Shown,
    by_group,
    config_hash,
    describe_data,
    git_commit,
    last_values,
    latest_picture,
    write_report,
)
from imagegen_dist.run_folder import METRICS, REPORT, RESULT
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
from imagegen_dist.training.loop import Hook, crossed, train
from imagegen_dist.training.state import broadcast_state_, load_state_dict, model_of, on_host, state_dict, weights_of
from imagegen_dist.versions import versions
from imagegen_dist.wording import counted

Found = TypeVar("Found")

_EVALUATING = "evaluating.json"
"""Beside a run's files while it is evaluated: at how many images, and how often that has begun."""

_DEADLY = 2  # deaths within one evaluation, after which it is left out: a driver gives up after three without progress


class RunError(RuntimeError):
    """A run that cannot go on: one line that says why."""


class Events(Protocol):
    """Who started the run, as the run sees it."""

    def row(self, row: dict[str, float]) -> None:
        """A row of metrics; rank 0 only."""
        ...

    def message(self, text: str) -> None:
        """Something that the user should read; from any rank."""
        ...

    def stop_requested(self) -> bool:
        """True if this rank has been asked to end in good order; called on all ranks together."""
        ...

    def interrupted(self) -> bool:
        """True if this rank has been asked to end, as far as it knows; called on any rank by itself, at any time."""
        ...

    def checkpoint(self, published: Callable[[], Checkpoint | None]) -> None:
        """A checkpoint is being written, which `published` waits for; rank 0 only."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    images: its last clock reading. complete: whether it came to its end, else it was stopped early in good order.
    missing: why the figures of the trained model are missing; empty if they are not.
    """

    images: int
    complete: bool
    missing: str = ""


def execute(
    experiment: Experiment,
    settings: RunSettings,
    world: World,
    device: torch.device,
    events: Events,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Train the experiment to its end, or to a requested stop, resuming from the newest whole checkpoint.

    Called on every rank with equal arguments. Raises RunError if it cannot go on, and what storage and data raise.
    """
    return _Session(experiment, settings, world, device, events, clock).run()


class _Session:
    """A rank's part in a run while it goes on."""

    def __init__(
        self,
        experiment: Experiment,
        settings: RunSettings,
        world: World,
        device: torch.device,
        events: Events,
        clock: Callable[[], float],
    ) -> None:
        self.experiment = experiment
        self.settings = settings
        self.world = world
        self.device = device
        self.events = events
        self.folder = settings.folder
        prepare_loaders(Store(settings.data), experiment.data)
        self.training = Dataset.open(settings.data, experiment.data)
        self.trainer = build_trainer(experiment, self.training.index, world, device)
        self.plan = build_plan(experiment, self.training.index, len(self.trainer.objective.phases()))
        self.evaluator = Evaluator(
            self.trainer.averages.modules(),
            experiment,
            self.training,
            Dataset.open(settings.validation, experiment.data) if settings.validation else None,
            settings.shared,
            replace(world, heed=self._heed),
            device,
            events.message,
        )
        node = world.share_of_node(self.plan.microbatches)
        check_cache(self.training.index, self.training.store, self.plan, node, experiment.data.cache)
        self.stopwatch = Stopwatch(clock)
        self.checkpointer = Checkpointer(self.folder, config_hash(experiment), settings.attempt, settings.keep)
        self.data_counters: Counter[str] = Counter()
        self.sinks: list[Sink] = []
        self.reports = Background(self._no_report)
        self.logged_at: dict[str, int] = {}
        self.figure: float | None = None
        self.best = inf
        self.saved_at: int | None = None
        self.announced_at: int | None = None
        self.missing = ""
        self.wandb: WandbSink | None = None

    def run(self) -> Outcome:
        """From the newest checkpoint, or the beginning, to the end."""
        resumed = self._resume()
        steps = self.experiment.training.steps
        if self.world.is_main:
            self._open_sinks(resumed)
        try:
            if not resumed:
                self._sample()
                self.stopwatch.start(0)
            elif self._figures_are_due():
                self._evaluate()
            if self.trainer.step_index < steps or not self._finished():
                train(self.trainer, self._items(steps), self._hooks())
                for hook in self._hooks():
                    hook.run()
            complete = True
        except Stopped:
            complete = False
            self._save()
            self._announce()
            if self.world.is_main:
                self._submit_report("stopped; the same command continues it")
        except ShardError:
            self._keep_progress()
            raise
        finally:
            self._close()
        if self.world.is_main and complete:
            self._write_result()
            self.reports.drain()
        return Outcome(self.trainer.images, complete, self.missing if complete else "")

    def _heed(self) -> None:
        """Raise Stopped on this rank where it was asked to end; between two pieces of an evaluation."""
        if self.events.interrupted():
            raise Stopped

    def _figures_are_due(self) -> bool:
        """True if the run ended at its newest checkpoint within the evaluation that follows it; on all ranks alike."""
        images, due = self.trainer.images, ""
        before = images - self.experiment.training.batching.batch_size
        if self.world.is_main and crossed(self.experiment.evaluation.every, before, images):
            rows = read_rows(self.folder)
            taken = any(row["images"] == images and any(name.startswith(EVALUATION) for name in row) for row in rows)
            due = "due" if rows and not taken else ""
        return text_from_main(due, self.world, self.device) == "due"

    def _finished(self) -> bool:
        """True if an earlier attempt came to the very end with all figures, and not only to the last checkpoint."""
        found = ""
        if self.world.is_main and self.folder.exists(RESULT):
            result = parse_json(self.folder.read(RESULT))
            found = "" if result.get("figures_missing") else str(result.get("images"))
        return text_from_main(found, self.world, self.device) == str(self.trainer.images)

    def _close(self) -> None:
        try:
            self.checkpointer.wait()
        finally:
            self.reports.drain()
            for sink in self.sinks:
                sink.close()

    # What happens on the way

    def _hooks(self) -> list[Hook]:
        """What is done when; a checkpoint comes before figures and pictures, whose failure then costs no progress."""
        training, evaluation = self.experiment.training, self.experiment.evaluation
        return [
            Hook(training.report_every, self._report),
            Hook(training.checkpoint_every, self._save),
            Hook(evaluation.every, self._evaluate),
            Hook(training.sample_every, self._sample),
            Hook(training.checkpoint_every, self._checkpoint),
            Hook(training.listening, self._listen),
        ]

    def _report(self) -> None:
        """A row of what the losses logged, on all ranks together; raises RunError on all of them."""
        images = self.trainer.images
        row = self.trainer.means()
        if not row:
            return
        for name, optimizer in self.trainer.optimizers.items():
            row[f"optim/lr_{name}"] = optimizer.config.lr(images)
        row["train/skipped_steps"] = float(self.trainer.skipped_steps)
        row["data/epoch"] = images * self.plan.draws / self.training.index.samples
        counted = self._data_counters()
        row |= counted | self.stopwatch.lap(images, counted["data/bytes"])
        self._log(row)
        longest = int(self.trainer.longest_bad_run)
        if longest >= self.experiment.training.max_bad_steps:
            raise RunError(
                f"{longest} step{'s' * (longest > 1)} in a row had a non-finite loss or gradient, up to "
                f"{images:,} images; "
                "lower --optim.*.lr (with a GAN, or raise --objective.gamma), and start under a new --run"
            )

    def _listen(self) -> None:
        """Raise Stopped on all ranks together where one was asked to end, or what a checkpoint's write failed with."""
        self.checkpointer.check()
        self.reports.report_failures()
        self._obey()

    def _obey(self) -> None:
        """Raise Stopped on all ranks together where any of them was asked to end, and it is not the end anyway."""
        stop = torch.tensor([float(self.events.stop_requested())], device=self.device)
        requested = bool(sum_over_ranks(stop, self.world).item())
        if requested and self.trainer.step_index < self.experiment.training.steps:
            raise Stopped

    def _evaluate(self) -> None:
        """The evaluator's figures, taken on all ranks together after a checkpoint, in which they are noted.

        Where they cannot be taken, that is said, and the run goes on. Where they are the best so far, the driver hears
        of the checkpoint at once.
        """
        if self.logged_at.get("eval") == self.trainer.images or not self.experiment.evaluation.samples:
            return
        self._save()
        with self.stopwatch.paused():
            began = self.stopwatch.seconds
            try:
                figures = self._taken()
            except Stopped:
                self._end_evaluation()
                raise
            self._end_evaluation()
            if figures:
                named = {f"{EVALUATION}{name}": value for name, value in figures.items()}
                self._log({**named, "system/evaluation_s": self.stopwatch.seconds - began})
            if self.figure is not None and self.world.is_main:
                self.checkpointer.score(self.figure)
        if self.figure is not None and self.figure < self.best:
            self.best = self.figure
            self._checkpoint()

    def _taken(self) -> dict[str, float]:
        """What is measured of the averaged networks now, and at the end of the run also looked for copies."""
        deaths = self._deaths_within()
        figures = self._figures() if deaths < _DEADLY else self._left_out(deaths)
        self.logged_at["eval"] = self.trainer.images
        self.figure = figures.get(self.evaluator.figure)
        if self.figure is not None and describe(EVALUATION + self.evaluator.figure).better == "higher":
            self.figure = -self.figure
        if self.trainer.step_index >= self.experiment.training.steps:
            for line in remarks(figures) if self.world.is_main else ():
                self.events.message(line)
            if deaths < _DEADLY:
                figures |= self._alone("copies could not be looked for", self._look_for_copies) or {}
        return figures

    def _deaths_within(self) -> int:
        """How many processes have died within this evaluation, on all ranks together; counted before it begins.

        The checkpoint before it is whole by then, so that none of them has cost training.
        """
        deaths = 0
        if self.world.is_main:
            self.checkpointer.wait()
            if self.folder.exists(_EVALUATING):
                noted = json.loads(self.folder.read(_EVALUATING))
                deaths = int(noted["begun"]) if noted["images"] == self.trainer.images else 0
            self.folder.write(_EVALUATING, json.dumps({"images": self.trainer.images, "begun": deaths + 1}).encode())
        return int(text_from_main(str(deaths), self.world, self.device))

    def _end_evaluation(self) -> None:
        """Forget that an evaluation has begun, which has come to its end or was stopped in good order."""
        if self.world.is_main:
            self.folder.remove(_EVALUATING)

    def _left_out(self, deaths: int) -> dict[str, float]:
        """No figures: the evaluation has ended so many processes. The run's next start tries it again."""
        died = f"{deaths} processes in a row died within the evaluation"
        self.missing = f"no figures at {self.trainer.images:,} images: {died}"
        if self.world.is_main:
            self.events.message(
                f"{self.missing}, perhaps for want of memory (lower --evaluation.samples or --evaluation.searched); "
                "the run goes on"
            )
        return {}

    def _figures(self) -> dict[str, float]:
        """The evaluator's figures, on all ranks together; none where they cannot be taken, which is said."""
        failures = RankError if self.world.size > 1 else Exception
        try:
            figures = self.evaluator.figures()
        except Stopped:
            raise
        except failures as error:
            self.missing = f"no figures at {self.trainer.images:,} images: {said(error)}"
            traceback.print_exception(error, file=sys.stderr)
            if self.world.is_main:
                self.events.message(f"{self.missing}; a checkpoint was written before, and the run goes on")
            return {}
        self.missing = ""
        return figures

    def _alone(self, said_first: str, action: Callable[[], Found]) -> Found | None:
        """Do on rank 0, while all ranks wait, what adds to the run's records; None elsewhere, and where it fails.

        Raises Stopped on all ranks where rank 0 was asked to end meanwhile.
        """

        def on_main() -> Found | None:
            return self._guarded(said_first, action) if self.world.is_main else None

        return together(on_main, self.world, self.device)

    def _guarded(self, said_first: str, action: Callable[[], Found]) -> Found | None:
        """Do on this rank what adds to the run's records; None if it fails, which is said."""
        try:
            return action()
        except Stopped:
            raise
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            self.events.message(f"{said_first} at {self.trainer.images:,} images: {said(error)}; the run goes on")
            return None

    def _sample(self) -> None:
        """The evaluator's pictures, from rank 0 alone."""
        if self.logged_at.get("samples") == self.trainer.images:
            return
        with self.stopwatch.paused():
            self.logged_at["samples"] = self.trainer.images
            self._alone("no pictures", self._draw_pictures)

    def _draw_pictures(self) -> None:
        form = modality(self.training.index.modality)
        for name, (samples, columns) in self.evaluator.pictures().items():
            data, extension = form.preview(samples, columns)
            for sink in self.sinks:
                sink.picture(name, data, extension, self.trainer.images)

    def _look_for_copies(self) -> dict[str, float]:
        """Whether the trained model repeats its training samples: figures, and a picture; on rank 0."""
        found = self.evaluator.copies()
        if found is None:
            return {}
        form = modality(self.training.index.modality)
        data, extension = form.preview(found.samples, found.columns, captions=found.captions)
        for sink in self.sinks:
            sink.picture(PICTURE_OF_COPIES, data, extension, self.trainer.images)
        if (told := reading(found.figures)) not in ("", NOT_COPYING):
            self.events.message(f"the trained model's samples: {told}; see their neighbours in {REPORT}")
        return found.figures

    def _checkpoint(self) -> None:
        """Publish a checkpoint, on all ranks together, and tell the driver of it.

        Raises Stopped on all of them where the run is to end there.
        """
        self._save()
        self._announce()
        self._obey()

    def _announce(self) -> None:
        """Tell the driver of the checkpoint that was published now, and have the report brought up to date."""
        if self.world.is_main and self.announced_at != self.trainer.images:
            self.announced_at = self.trainer.images
            self._submit_report(
                "in training" if self.trainer.step_index < self.experiment.training.steps else "complete"
            )
            with self.stopwatch.paused():
                self.events.checkpoint(self.checkpointer.wait)

    def _save(self) -> None:
        """Publish a checkpoint from rank 0, once all ranks are seen to hold the same weights."""
        images = self.trainer.images
        if images == self.saved_at:
            return
        with self.stopwatch.paused():
            if not same_on_all_ranks(weights_digest(weights_of(self.trainer)), self.world):
                raise RunError(f"the workers' weights differ at {images:,} images; no checkpoint was written")
            unreported = self.trainer.meter.totals(lambda values: sum_over_ranks(values, self.world))
            if self.world.is_main:
                for sink in self.sinks:
                    sink.flush()
                self.checkpointer.save(self._snapshot(unreported))
        self.saved_at = images

    def _keep_progress(self) -> None:
        """Publish a checkpoint from this rank alone, whose data have ended between two steps.

        The others wait for it in the next step, with the same weights as after every step. Where even that cannot be
        written, the checkpoint before is the newest.
        """
        if self.trainer.images in (0, self.saved_at):
            return
        with suppress(OSError):
            attempt = f"{self.settings.attempt}-rank{self.world.rank}"
            publish(self.folder, self._snapshot(), attempt, config_hash(self.experiment))
            self.events.message(f"kept a checkpoint at {self.trainer.images:,} images")

    def _log(self, values: dict[str, float]) -> None:
        if self.world.is_main:
            row = {"images": float(self.trainer.images), **values}
            for sink in self.sinks:
                sink.log(row)
            self.events.row(row)

    def _items(self, steps: int) -> Iterator[Item]:
        """This rank's items from the clock's present reading on, timed and counted as they are waited for."""
        share = self.world.share(self.plan.microbatches)
        start = self.trainer.step_index
        items = stream(self.training.index, self.training.store, self.plan, share, start, steps, self.experiment.data)
        for item in self.stopwatch.waiting(items):
            self.data_counters.update(item.counters)
            for damage in item.bad:
                self.events.message(f"substituted a damaged sample: {damage}")
            yield item

    def _data_counters(self) -> dict[str, float]:
        """What happened to the data on all ranks since this attempt began."""
        counts = torch.tensor([self.data_counters[name] for name in COUNTED], dtype=torch.int64, device=self.device)
        totals = sum_over_ranks(counts, self.world).tolist()
        return {f"data/{name}": float(total) for name, total in zip(COUNTED, totals, strict=True)}

    # State

    def _snapshot(self, unreported: Mapping[str, tuple[float, float]] | None = None) -> Snapshot:
        index = self.training.index
        facts = {
            "images": self.trainer.images,
            "seconds": self.stopwatch.seconds,
            "skipped_steps": int(self.trainer.skipped_steps),
            "unreported": unreported or {},
            "lanes": self.plan.lanes,
            "data": describe_data(index),
            "preset": self.settings.preset,
            "experiment": config.encode(self.experiment),
            "world_size": self.world.size,
            "versions": versions(),
        }
        return Snapshot(self.trainer.images, on_host(model_of(self.trainer)), on_host(state_dict(self.trainer)), facts)

    def _resume(self) -> bool:
        """Continue from the newest whole checkpoint, or else from the one that the run begins at; False without one.

        Rank 0 chooses it, reads its files once and takes what it has verified; the others take its tensors from rank 0.
        """
        chosen = together(self._load_newest, self.world, self.device)
        facts = json.loads(text_from_main(json.dumps(chosen), self.world, self.device))
        if facts is None:
            return False
        self.trainer.images = int(facts["images"])
        self.trainer.skipped_steps += facts["skipped_steps"]
        broadcast_state_(self.trainer)
        self.trainer.meter.restore(facts["unreported"], self.device, self.world.is_main)
        self.saved_at = self.trainer.images
        self.best = float(facts["best"])
        self.stopwatch.start(self.trainer.images, float(facts["seconds"]))
        return True

    def _load_newest(self) -> dict[str, Any] | None:
        """Load the checkpoint to continue from, on rank 0; what all ranks have to know of it, or None."""
        if not self.world.is_main:
            return None
        self.folder.sweep()
        found = newest(self.folder, lambda why: self.events.message(f"skipped {why}"))
        begins_at = self.settings.start if found is None else ""
        loaded = open_checkpoint(Store(begins_at, PATIENCE_S)) if begins_at else found
        if loaded is None:
            return None
        if found is not None:
            self.checkpointer.last = found.published
        load_state_dict(self.trainer, loaded.model, loaded.state)
        self.events.message(f"resuming at {loaded.facts['images']:,} images from {loaded.url}")
        return {
            **{name: loaded.facts[name] for name in ("images", "seconds", "skipped_steps")},
            "unreported": loaded.facts.get("unreported", {}) if found else {},
            "best": repr(lowest_metric(self.folder)),
        }

    # Records

    def _open_sinks(self, resumed: bool) -> None:
        self.sinks = [
            JSONLSink(self.folder, resume_images=self.trainer.images if resumed else None),
            PictureSink(self.folder),
        ]
        if self.settings.wandb_mode != "disabled":
            group, values = self.settings.wandb_group, self.settings.wandb_values
            kinds = [config.kind(type(part)) for part in (self.experiment.objective, self.experiment.model)]
            captions = {self.evaluator.picture: self.evaluator.picture_note, **self.evaluator.more_pictures}
            self.wandb = WandbSink(
                self.settings.wandb_project,
                self.settings.wandb_id,
                f"{group}/{self.settings.name}" if group else self.settings.name,
                {
                    "preset": self.settings.preset,
                    **({"values": values} if values else {}),
                    **config.encode(self.experiment),
                    "dataset": describe_data(self.training.index),
                    "device": _device_name(self.device),
                    "workers": self.world.size,
                    "git_commit": git_commit(),
                    "versions": versions(),
                },
                Path(self.settings.wandb_directory),
                group=group or None,
                mode=self.settings.wandb_mode or None,
                job_type="train",
                tags=[self.settings.preset, *kinds],
                captions=captions,
                api_key_present=self.settings.wandb_key,
                warn=self.events.message,
            )
            self.sinks.append(self.wandb)

    def _write_result(self) -> None:
        """result.json and the last report.html, from what the run's directory holds."""
        rows = read_rows(self.folder)
        speeds = [row["system/images_per_s"] for row in rows if "system/images_per_s" in row]
        checkpoint = self.checkpointer.last or newest(self.folder, lambda _: None)
        figures = by_group(last_values(rows, EVALUATION)) if not self.missing else {"figures_missing": self.missing}
        result = {
            "run": self.settings.name,
            "preset": self.settings.preset,
            "images": self.trainer.images,
            "seconds": round(self.stopwatch.seconds, 1),
            "images_per_s": round(statistics.median(speeds), 1) if speeds else None,
            **figures,
            "evaluation": {
                "samples": self.experiment.evaluation.samples,
                "features": self.experiment.evaluation.features or "classifier",
                "searched": min(self.experiment.evaluation.searched, self.training.index.samples),
                "classes": self.training.index.classes,
                "label_distribution": self.experiment.evaluation.label_distribution,
            },
            "wandb_sync": self.wandb.sync_command if self.wandb else "",
            "paths": {
                "run": self.folder.url,
                "picture": latest_picture(self.folder, self.evaluator.picture),
                "checkpoint": checkpoint.url if checkpoint else None,
                "metrics": f"{self.folder.url}/{METRICS}",
                "report": f"{self.folder.url}/{REPORT}",
                "wandb": str(self.wandb.directory) if self.wandb and self.wandb.directory else None,
            },
        }
        self.folder.write(RESULT, json.dumps(result, indent=1).encode())
        self._submit_report("without figures" if self.missing else "complete")

    def _submit_report(self, state: str) -> None:
        """Have the report made anew, as of now."""
        on = _device_name(self.device) + (f" × {self.world.size}" if self.world.size > 1 else "")
        status = RunStatus(self.trainer.images, self.stopwatch.seconds, state, on)
        looks = self.evaluator
        shown = Shown(looks.figure, looks.picture, looks.picture_note, looks.more_pictures, looks.column_labels)
        subject = self.settings, self.experiment, self.training.index
        self.reports.submit(partial(write_report, *subject, status, shown))

    def _no_report(self, error: Exception) -> None:
        traceback.print_exception(error, file=sys.stderr)
        self.events.message(f"no {REPORT}: {said(error)}; the run goes on")


def _device_name(device: torch.device) -> str:
    """What one worker computes on, in words."""
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    )
