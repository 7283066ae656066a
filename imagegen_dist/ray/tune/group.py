"""A trial of several workers: its process, which Ray Tune starts, is the driver of a training job."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import ray.tune

from imagegen_dist import records
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.errors import DONE, FAILED, TERMINATED
from imagegen_dist.experiment import Experiment
from imagegen_dist.ray.cluster import Share
from imagegen_dist.ray.driver import Driver
from imagegen_dist.ray.environment import set_ray_environment
from imagegen_dist.ray.event_channel import listen
from imagegen_dist.ray.signals import Interruption
from imagegen_dist.ray.tune.trial import (
    DivergedError,
    MetricError,
    Report,
    Tell,
    TuneEvents,
    WorkersError,
    carry_out,
    last_images,
    teller,
)
from imagegen_dist.records import RunSettings
from imagegen_dist.run import Outcome
from imagegen_dist.storage import PATIENCE_S, Store
from imagegen_dist.sweep.plan import SweepPlan, decode_plan
from imagegen_dist.training.checkpoint import newest_images

END_S = 120.0
"""Seconds that workers have to end in good order."""


class WorkersTrial(ray.tune.Trainable):
    """Trains a trial on a group of workers of Ray Train's.

    It is no function, as a trial of one worker is, because Ray Tune waits for a class's `cleanup`: what the workers
    had reserved is free before another trial wants it. The job goes on between two calls of `step` only as far as its
    next result, at which the workers wait where a scheduler decides.
    """

    def setup(self, tune_config: dict[str, Any], plan: dict[str, Any], share: Share, relay: Any) -> None:
        """plan: the SweepPlan as JSON. share: the workers. relay: says when the sweep is to end."""
        set_ray_environment()  # on a cluster this process has not got the sweep's
        self._results: queue.Queue[dict[str, Any] | BaseException] = queue.Queue()
        self._turn = threading.Semaphore(0)
        self._last: dict[str, Any] = {}
        self._interruption = Interruption()
        self._ended = False
        self._unlisten = listen(relay, self._interrupt)
        sweep = decode_plan(plan)

        def begin(experiment: Experiment, settings: RunSettings, report: Report) -> None:
            tell = teller(relay, settings.name)
            train_on_workers(experiment, settings, sweep, share, report, tell, self._interruption)

        def drive() -> None:
            try:
                carry_out(tune_config, sweep, self._report, begin, lambda: self._interruption.code is not None)
            except BaseException as error:
                self._results.put(error)
            else:
                self._results.put({**self._last, "done": True})

        self._thread = threading.Thread(target=drive, name="trial", daemon=True)

    def step(self) -> dict[str, Any]:
        """The trial's next result. Raises what the trial has failed with."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._turn.release()
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        self._last = result
        return dict(result)

    def cleanup(self) -> None:
        """End the workers in good order, and return when they have."""
        self._unlisten()
        self._ended = True
        self._interrupt()
        self._turn.release()
        if self._thread.ident is not None:
            self._thread.join(END_S)

    def _interrupt(self) -> None:
        self._interruption.code = TERMINATED

    def _report(self, result: dict[str, Any]) -> None:
        """Hand over a result and wait until the trial may go on. Raises SystemExit where it may not."""
        self._results.put(result)
        self._turn.acquire()
        if self._ended:
            raise SystemExit


def train_on_workers(
    experiment: Experiment,
    settings: RunSettings,
    sweep: SweepPlan,
    share: Share,
    report: Report,
    tell: Tell,
    interruption: Interruption,
) -> None:
    """Train a trial by the driver of the training jobs.

    interruption: the wish to end it, with a checkpoint. Raises WorkersError and what the workers could not go on for.
    """
    index = DatasetIndex.load(Store(settings.data, PATIENCE_S), experiment.data.allow_remote_shards)
    launch = {"workers": [share.workers.low, share.workers.high], "gpu": share.gpu, "threads": share.cpus}
    records.write_config(settings, experiment, index, {**launch, "sweep": sweep.settings.name})
    events = TuneEvents(sweep.goals, last_images(experiment), report, tell, lambda: interruption.code is not None)
    view = _TrialView(events, interruption)
    decides = view.checkpoint if sweep.scheduler != "none" else None
    driver = Driver(experiment, settings, index, share.workers, interruption=interruption, at_checkpoint=decides)
    code = driver.train(view, share)
    if view.error is not None:
        raise view.error
    if code == FAILED and driver.failure is not None:
        raise driver.failure.error or WorkersError(driver.failure.cause)
    events.end(
        Outcome(newest_images(settings.folder), complete=code == DONE or bool(driver.missing), missing=driver.missing)
    )


class _TrialView:
    """Passes on to Ray Tune what a driver shows: implements ray.driver.View.

    What ends the trial is kept as `error` and ends the workers in good order.
    """

    def __init__(self, events: TuneEvents, interruption: Interruption) -> None:
        self._events = events
        self._interruption = interruption
        self.error: BaseException | None = None

    def row(self, row: dict[str, float]) -> None:
        """A row of metrics."""
        self._take(lambda: self._events.row(row))

    def checkpoint(self) -> None:
        """A checkpoint was published, at which the workers wait."""
        self._take(lambda: self._events.checkpoint(lambda: None))

    def message(self, text: str, style: str = "") -> None:
        """Into the log."""
        print(text, flush=True)

    def phase(self, text: str) -> None:
        """Nothing: a sweep's table has no place for it."""

    def _take(self, action: Callable[[], None]) -> None:
        if self.error is not None:
            return
        try:
            action()
        except (SystemExit, MetricError, DivergedError) as error:
            self.error = error
            self._interruption.code = TERMINATED
