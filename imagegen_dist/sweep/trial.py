"""One trial: an ordinary run that reports a Trial record whenever it has new metrics, and when it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from imagegen_dist import config, records
from imagegen_dist.config import ConfigError
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.distributed import World
from imagegen_dist.evaluation.named_reference import can_compare, find_reference, is_reference_kept
from imagegen_dist.experiment import Experiment
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.records import RunSettings
from imagegen_dist.run import Outcome, RunError, execute
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.storage import PATIENCE_S, Store
from imagegen_dist.sweep.plan import SweepPlan
from imagegen_dist.sweep.searches import Goal
from imagegen_dist.sweep.trial_store import COMPLETE, CUT, DIVERGED, FAILED, RUNNING, Trial
from imagegen_dist.training.checkpoint import Checkpoint
from imagegen_dist.wording import message

_PROGRESS_S = 2.0
"""Minimum time between two reports of the images seen."""

MISUSED = "misused"
"""State in which a trial reports a mistake in the sweep's command, in its note. It is never stored."""

Report = Callable[[Trial], None]
"""Reports a trial, and returns when it may continue; it raises SystemExit if it may not."""


class MetricError(ValueError):
    """A metric that the trial's run does not log. names: the metrics that it logs."""

    def __init__(self, metric: str, names: Sequence[str]) -> None:
        super().__init__(f"--metric {metric} is never reported; {config.nearest(metric, names)}")


class DivergedError(RuntimeError):
    """A metric that is not finite, in one line."""


class WorkersError(RuntimeError):
    """The workers of a trial failed, in one line."""


class TrialEvents:
    """Turns the events of a run into reports of its trial: implements imagegen_dist.run.Events.

    Metrics are reported once the checkpoint of the same moment is published, or with the next row: a trial that is
    stopped or copied there loses nothing. The metrics of the run's end are reported by `end`, after its result is
    written.
    trial: as it starts. total_images: at the run's end. report: see Report. progress: takes the images seen, and does
    not block. stopping: True if the sweep is being ended. clock: monotonic seconds.
    """

    def __init__(
        self,
        trial: Trial,
        goals: Sequence[Goal],
        total_images: int,
        report: Report,
        progress: Callable[[int], None],
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trial = trial
        self._goals = goals
        self._total_images = total_images
        self._report = report
        self._progress = progress
        self._stopping = stopping
        self._clock = clock
        self._reported_s = -math.inf
        self._pending = False

    def row(self, row: Mapping[str, float]) -> None:
        """Take a row of metrics. Raises MetricError, DivergedError."""
        self._report_pending()
        if figures := self._figures(row):
            self.trial = replace(self.trial, images=int(row["images"]), figures=figures)
            self._pending = True
        elif self._clock() - self._reported_s >= _PROGRESS_S:
            self._reported_s = self._clock()
            self._progress(int(row["images"]))

    def checkpoint(self, published: Callable[[], Checkpoint | None]) -> None:
        """Wait for a checkpoint that is being written, if metrics wait for it."""
        if self._pending:
            published()
            self._report_pending()

    def message(self, text: str) -> None:
        """Print into the log."""
        print(text, flush=True)

    def stop_requested(self) -> bool:
        """True if the sweep is being ended. A trial that is stopped by a scheduler learns it when it reports."""
        return self._stopping()

    def interrupted(self) -> bool:
        """The same, between two parts of an evaluation."""
        return self._stopping()

    def end(self, outcome: Outcome) -> None:
        """Report how the run ended: its last metrics, that they are missing, or the images seen at an early stop."""
        if outcome.missing:
            self._report(replace(self.trial, state=FAILED, note=outcome.missing))
        elif outcome.complete:
            self._report(replace(self.trial, state=COMPLETE))
        else:
            self._report(replace(self.trial, state=CUT, images=max(outcome.images, self.trial.images)))

    def _report_pending(self) -> None:
        """Report metrics that wait, unless they are the last ones."""
        if self._pending and self.trial.images < self._total_images:
            self._pending = False
            self._reported_s = self._clock()
            self._report(self.trial)

    def _figures(self, row: Mapping[str, float]) -> dict[str, float]:
        """The metrics of the goals; empty if this is a row of another kind."""
        missing = [goal.metric for goal in self._goals if goal.metric not in row]
        if missing:
            if any(name.startswith("eval/") for name in row) == missing[0].startswith("eval/"):
                raise MetricError(missing[0], [name for name in row if "/" in name])
            return {}
        for goal in self._goals:
            if not math.isfinite(row[goal.metric]):
                raise DivergedError(f"{goal.metric} is {row[goal.metric]} at {int(row['images']):,} images")
        return {goal.metric: float(row[goal.metric]) for goal in self._goals}


Train = Callable[[Experiment, RunSettings, DatasetIndex, TrialEvents], Outcome]
"""Trains a run to its end, or to an early stop, from its newest checkpoint if there is one."""


def run_trial(
    trial: Trial,
    sweep: SweepPlan,
    report: Report,
    progress: Callable[[int], None] = lambda images: None,
    stopping: Callable[[], bool] = lambda: False,
    replay: bool = False,
    train: Train | None = None,
) -> None:
    """Run a trial to its end, or to an early stop, and report how it goes.

    report, progress, stopping: as TrialEvents takes them. replay: report first what its run logged before, for a
    scheduler that compares trials. train: None to train in this process, as the only worker. Errors that concern this
    trial alone are reported and not raised, so that only trials whose process died are started again.
    """
    settings = sweep.trial_settings(trial.run, trial.start)
    settings = records.identified(settings)
    settings = replace(settings, attempt=f"{time.time_ns():020d}", wandb_values=trial.values)
    running = replace(trial, state=RUNNING, note="")
    if replay:
        for row in replayed(settings.folder, sweep.goals):
            report(replace(running, images=int(row["images"]), figures={g.metric: row[g.metric] for g in sweep.goals}))
    if trial.is_over or stopping():
        return
    reported = (RunError, WorkersError, DivergedError, CheckpointError, ConfigError, MetricError, OSError, ValueError)
    try:
        experiment = sweep.space.apply(sweep.experiment, trial.values)
        total = experiment.training.steps * experiment.training.batch_size  # the last batch is a full one
        events = TrialEvents(running, sweep.goals, total, report, progress, stopping)
        index = DatasetIndex.load(Store(settings.data, PATIENCE_S), experiment.data.allow_remote_shards)
        records.write_config(settings, experiment, index, sweep.launch)
        if train is None:
            outcome = execute(experiment, settings, World(), _device_of(sweep), events)
        else:
            outcome = train(experiment, settings, index, events)
        events.end(outcome)
    except reported as error:
        report(failed(running, error))


def failed(trial: Trial, error: Exception) -> Trial:
    """The trial after that error."""
    line = message(error)
    if isinstance(error, MetricError):
        return replace(trial, state=MISUSED, note=line)
    diverged = isinstance(error, RunError | DivergedError) or "not finite" in line
    return replace(trial, state=DIVERGED if diverged else FAILED, note=line)


def replayed(folder: Store, goals: Sequence[Goal]) -> list[dict[str, float]]:
    """The rows of a run that hold finite metrics of all goals."""
    return [row for row in read_rows(folder) if all(math.isfinite(row.get(goal.metric, math.nan)) for goal in goals)]


def needs_reference(sweep: SweepPlan) -> bool:
    """True if the metrics compare with a reference in a feature network that is not cached yet."""
    evaluation = sweep.experiment.evaluation
    training, held_out = _datasets(sweep)
    if not evaluation.samples or not can_compare(evaluation, training.index):
        return False
    return not is_reference_kept(sweep.trial_settings("").shared, training, held_out, evaluation)


def make_reference(sweep: SweepPlan) -> None:
    """Compute the reference that all trials share, in a process of its own."""
    torch.set_num_threads(sweep.demand.cpus or 1)
    shared = sweep.trial_settings("").shared
    find_reference(shared, *_datasets(sweep), sweep.experiment.evaluation, World(), _device_of(sweep), print)


def _device_of(sweep: SweepPlan) -> torch.device:
    """The device of a trial that trains in its own process."""
    return torch.device("cuda" if sweep.demand.gpus else "cpu")


def _datasets(sweep: SweepPlan) -> tuple[Dataset, Dataset | None]:
    """The training samples of all trials, and the held-out ones."""
    settings, reading = sweep.trial_settings(""), sweep.experiment.data
    training = Dataset.open(settings.data, reading)
    known = training.index.known_conditions
    return training, Dataset.open(settings.validation, reading).told_as(known) if settings.validation else None
