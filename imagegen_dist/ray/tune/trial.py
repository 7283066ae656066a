"""One trial, as Ray Tune starts it: an ordinary run, whose figures are reported once a checkpoint holds them."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray.tune
import torch

from imagegen_dist import config, records
from imagegen_dist.config import ConfigError
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.distributed import World
from imagegen_dist.evaluation import Dataset
from imagegen_dist.evaluation.named_reference import find_reference
from imagegen_dist.experiment import Experiment
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.presets.searches import Goal
from imagegen_dist.ray.event_channel import SEEN, listen
from imagegen_dist.records import RunSettings
from imagegen_dist.run import Outcome, RunError, execute
from imagegen_dist.storage import PATIENCE_S, Store
from imagegen_dist.sweep.plan import SweepPlan, decode_plan
from imagegen_dist.sweep.trial_store import COMPLETE, CUT, DIVERGED, FAILED
from imagegen_dist.training.checkpoint import Checkpoint, CheckpointError

TELL_S = 2.0
"""Least time between two reports of how far a trial is, without figures."""

Report = Callable[[dict[str, Any]], None]
"""Gives a result to Ray Tune, and returns when the trial may go on; it ends the thread where it may not."""

Tell = Callable[[int], None]
"""Says how many images a trial has seen, and does not wait."""


class MetricError(ValueError):
    """A figure that the trial's run does not log. names: those that it logs."""

    def __init__(self, metric: str, names: Sequence[str]) -> None:
        super().__init__(f"--metric {metric} is never reported; {config.nearest(metric, names)}")


class DivergedError(RuntimeError):
    """A figure that is not finite: one line."""


class WorkersError(RuntimeError):
    """Workers of a trial that could not go on: one line."""


class TuneEvents:
    """What Ray Tune is told of a run: implements imagegen_dist.run.Events.

    A row with the figures is reported when the checkpoint of its moment is published, else with the next row: a trial
    that is ended or copied there has lost nothing. The last one waits for `end`, after the run has written its result.
    report, tell: see Report, Tell. asked: whether the sweep is to end. clock: seconds, monotonic.
    """

    def __init__(
        self,
        goals: Sequence[Goal],
        total_images: int,
        report: Report,
        tell: Tell,
        asked: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._goals = goals
        self._total_images = total_images
        self._report = report
        self._tell = tell
        self._asked = asked
        self._clock = clock
        self._told_s = -math.inf
        self._held: dict[str, Any] | None = None
        self._last: dict[str, Any] = {}

    def row(self, row: Mapping[str, float]) -> None:
        """Take a row of metrics. Raises MetricError, DivergedError."""
        self._let_go()
        figures = self._figures(row)
        if figures:
            self._last = self._held = {"images": int(row["images"]), **figures}
        elif self._clock() - self._told_s >= TELL_S:
            self._told_s = self._clock()
            self._tell(int(row["images"]))

    def checkpoint(self, published: Callable[[], Checkpoint | None]) -> None:
        """Wait for a checkpoint that is being written where figures wait for it."""
        if self._held is not None:
            published()
            self._let_go()

    def message(self, text: str) -> None:
        """Into the log."""
        print(text, flush=True)

    def stop_requested(self) -> bool:
        """Whether the sweep is to end. A trial that is to end alone learns of it when it reports."""
        return self._asked()

    def interrupted(self) -> bool:
        """The same, between two pieces of an evaluation."""
        return self._asked()

    def end(self, outcome: Outcome) -> None:
        """The run is over: report its last figures, that they are missing, or how far it was when the sweep ended."""
        if outcome.missing:
            self._report({"state": FAILED, "note": outcome.missing})
        elif outcome.complete:
            self._report({**self._last, "state": COMPLETE})
        else:
            self._report({"seen": outcome.images, "state": CUT})

    def _let_go(self) -> None:
        """Report the figures that wait, unless they are the last ones."""
        if self._held is not None and self._held["images"] < self._total_images:
            held, self._held = self._held, None
            self._told_s = self._clock()
            self._report(held)

    def _figures(self, row: Mapping[str, float]) -> dict[str, float]:
        """Those of the goals, empty where this is a row of another kind."""
        missing = [goal.metric for goal in self._goals if goal.metric not in row]
        if not missing:
            found = {goal.metric: float(row[goal.metric]) for goal in self._goals}
            for name, value in found.items():
                if not math.isfinite(value):
                    raise DivergedError(f"{name} is {value} at {int(row['images']):,} images")
            return found
        if any(name.startswith("eval/") for name in row) == missing[0].startswith("eval/"):
            raise MetricError(missing[0], [name for name in row if "/" in name])
        return {}


def run_trial(tune_config: dict[str, Any], plan: dict[str, Any], threads: int, gpu: bool, relay: Any) -> None:
    """Train a trial of one worker to its end, in this process; called by Ray Tune.

    tune_config: see searchers.tune_config. plan: the SweepPlan as JSON. relay: says when the sweep is to end, and is
    told how far the trial is.
    """
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "120")  # how long the next trial waits for this one's end
    torch.set_num_threads(threads)
    sweep = decode_plan(plan)
    device = torch.device("cuda" if gpu else "cpu")
    asked = threading.Event()
    close = listen(relay, asked.set)

    def begin(experiment: Experiment, settings: RunSettings, report: Report) -> None:
        train(experiment, settings, sweep, device, report, teller(relay, settings.name), asked.is_set)

    try:
        carry_out(tune_config, sweep, ray.tune.report, begin, asked.is_set)
    finally:
        close()


def carry_out(
    tune_config: dict[str, Any],
    sweep: SweepPlan,
    report: Report,
    begin: Callable[[Experiment, RunSettings, Report], None],
    asked: Callable[[], bool],
) -> None:
    """Report what a trial's run has logged already, where that is wanted, and train it where it is not over.

    begin: trains, from the run's newest checkpoint where there is one. asked: whether the sweep is to end. What ends
    only this trial is reported, not raised, so that Tune starts again those alone that were killed.
    """
    settings = sweep.trial_settings(tune_config["run"], tune_config["start"])
    settings = replace(settings, attempt=f"{time.time_ns():020d}", wandb_values=tune_config["values"])

    def tell(result: dict[str, Any]) -> None:
        report({"run": settings.name, **result})

    if tune_config["replay"]:
        for result in replayed(settings.folder, sweep.goals):
            tell(result)
    if tune_config["over"] or asked():
        return
    reported = (RunError, WorkersError, DivergedError, CheckpointError, ConfigError, MetricError, OSError, ValueError)
    try:
        begin(sweep.space.apply(sweep.experiment, tune_config["values"]), settings, tell)
    except reported as error:
        tell(failure(error))


def train(
    experiment: Experiment,
    settings: RunSettings,
    sweep: SweepPlan,
    device: torch.device,
    report: Report,
    tell: Tell = lambda images: None,
    asked: Callable[[], bool] = lambda: False,
) -> None:
    """Train a trial in this process. asked: whether the sweep is to end, which the trial does with a checkpoint."""
    index = DatasetIndex.load(Store(settings.data, PATIENCE_S), experiment.data.allow_remote_shards)
    records.write_config(settings, experiment, index, {"workers": [1, 1], "sweep": sweep.settings.name})
    events = TuneEvents(sweep.goals, last_images(experiment), report, tell, asked)
    events.end(execute(experiment, settings, World(), device, events))


def teller(relay: Any, run: str) -> Tell:
    """Says by the relay how far a run is."""

    def tell(images: int) -> None:
        relay.send.remote(SEEN, (run, images))

    return tell


def make_reference(plan: dict[str, Any], threads: int, gpu: bool) -> None:
    """Compute what the trials' figures are taken against once, before they start; a Ray task."""
    torch.set_num_threads(threads)
    sweep = decode_plan(plan)
    training, held_out = datasets_of(sweep)
    device = torch.device("cuda" if gpu else "cpu")
    shared = sweep.trial_settings("", "").shared
    find_reference(shared, training, held_out, sweep.experiment.evaluation, World(), device, print)


def datasets_of(sweep: SweepPlan) -> tuple[Dataset, Dataset | None]:
    """What all trials train on, and what is held out."""
    settings, reading = sweep.trial_settings("", ""), sweep.experiment.data
    held_out = Dataset.open(settings.validation, reading) if settings.validation else None
    return Dataset.open(settings.data, reading), held_out


def last_images(experiment: Experiment) -> int:
    """Images seen at a run's end: its last batch is a full one."""
    return experiment.training.steps * experiment.training.batch_size


def failure(error: Exception) -> dict[str, Any]:
    """The result of a trial that cannot go on."""
    line = " ".join(str(error).split())
    if isinstance(error, MetricError):
        return {"misused": line}
    diverged = isinstance(error, RunError | DivergedError) or "not finite" in line
    return {"state": DIVERGED if diverged else FAILED, "note": line}


def replayed(folder: Store, goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """The results that a run's rows were, as a scheduler wants to see them again."""
    rows = [row for row in read_rows(folder) if all(math.isfinite(row.get(goal.metric, math.nan)) for goal in goals)]
    return [{"images": int(row["images"]), **{goal.metric: row[goal.metric] for goal in goals}} for row in rows]
