"""The process in which Ray Tune runs trials, one after another: it trains a trial itself, or drives its workers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import ray.tune
import torch

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.errors import DONE, FAILED, TERMINATED
from imagegen_dist.experiment import Experiment
from imagegen_dist.ray.cluster import Share
from imagegen_dist.ray.environment import set_ray_environment
from imagegen_dist.ray.event_channel import SEEN, listen
from imagegen_dist.ray.signals import Interruption
from imagegen_dist.records import RunSettings
from imagegen_dist.run import Outcome
from imagegen_dist.sweep.plan import decode_plan
from imagegen_dist.sweep.trial import DivergedError, MetricError, TrialEvents, WorkersError, run_trial
from imagegen_dist.sweep.trial_store import COMPLETE, RUNNING, Trial, decode_trial, encode_trial
from imagegen_dist.training.checkpoint import newest_images

END_S = 120.0
"""Seconds that a trial has to end in good order."""

CLOCK = "images"
"""The time by which schedulers compare trials: images seen."""


def tune_config(trial: Trial, replay: bool = False) -> dict[str, Any]:
    """Ray Tune's configuration of a trial. replay: report first what its run logged before."""
    return {"trial": encode_trial(trial), "replay": replay}


def tune_result(trial: Trial) -> dict[str, Any]:
    """A report as Ray Tune's result: schedulers and searchers see metrics of trials that run or are complete alone."""
    figures = {CLOCK: trial.images, **trial.figures} if trial.state in (RUNNING, COMPLETE) and trial.figures else {}
    return {**figures, "trial": encode_trial(trial), "done": trial.state != RUNNING}


class TrialActor(ray.tune.Trainable):
    """Runs a trial in a thread, which waits at each report until Ray Tune asks for the next result.

    A class rather than a function, because Ray Tune waits for its `cleanup`: what the workers of a trial have reserved
    is free before another trial needs it.
    """

    def setup(self, request: dict[str, Any], plan: dict[str, Any], channel: Any) -> None:
        """request: see tune_config. plan: the SweepPlan as JSON data. channel: says when the sweep is being ended, and
        receives the images seen.
        """
        set_ray_environment()  # on another machine this process does not inherit the driver's
        self._sweep = decode_plan(plan)
        self._channel = channel
        self._prepare(request)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Continue with another trial, once the last one has ended."""
        self.cleanup()
        if self._thread.is_alive():
            return False
        self._prepare(new_config)
        return True

    def _prepare(self, request: dict[str, Any]) -> None:
        self._trial, self._replay = decode_trial(request["trial"]), request["replay"]
        self._results: queue.Queue[dict[str, Any] | BaseException] = queue.Queue()
        self._turn = threading.Semaphore(0)
        self._stopped = False
        self._interruption = Interruption()
        self._unlisten = listen(self._channel, self._interrupt)
        self._thread = threading.Thread(target=self._run, name="trial", daemon=True)

    def step(self) -> dict[str, Any]:
        """The trial's next result. Raises the exception that has ended the trial."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._turn.release()
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def cleanup(self) -> None:
        """End the trial in good order, and return when it has ended."""
        self._unlisten()
        self._stopped = True
        self._interrupt()
        self._turn.release()
        if self._thread.ident is not None:
            self._thread.join(END_S)

    def _interrupt(self) -> None:
        self._interruption.code = TERMINATED

    def _run(self) -> None:
        torch.set_num_threads(self._sweep.demand.cpus or 1)
        train = self._train_on_workers if self._sweep.demand.is_group else None
        stopping, progress = lambda: self._interruption.asked, self._send_progress
        try:
            run_trial(self._trial, self._sweep, self._report, progress, stopping, self._replay, train)
            self._results.put({"done": True})
        except BaseException as error:
            self._results.put(error)

    def _report(self, trial: Trial) -> None:
        """Hand over a result, and wait until the trial may continue. Raises SystemExit if it may not."""
        self._results.put(tune_result(trial))
        self._turn.acquire()
        if self._stopped:
            raise SystemExit

    def _send_progress(self, images: int) -> None:
        self._channel.send.remote(SEEN, (self._trial.run, images))

    def _train_on_workers(
        self, experiment: Experiment, settings: RunSettings, index: DatasetIndex, events: TrialEvents
    ) -> Outcome:
        """Train by the driver of the training jobs. Raises WorkersError, and what has ended the trial."""
        from imagegen_dist.ray.driver import Driver  # Ray Train takes seconds to import

        demand, view = self._sweep.demand, _TrialView(events, self._interruption)
        share = Share(demand.workers, bool(demand.gpus), demand.cpus or 1)
        decides = view.checkpoint if self._sweep.scheduler != "none" else None
        driver = Driver(
            experiment, settings, index, share.workers, interruption=self._interruption, at_checkpoint=decides
        )
        code = driver.train(view, share)
        if view.error is not None:
            raise view.error
        if code == FAILED and driver.failure is not None:
            raise driver.failure.error or WorkersError(driver.failure.cause)
        complete = code == DONE or bool(driver.missing)
        return Outcome(newest_images(settings.folder), complete, missing=driver.missing)


class _TrialView:
    """Passes what a driver shows to the trial's events: implements ray.driver.View.

    An exception that ends the trial is kept as `error`, and ends the workers in good order.
    """

    def __init__(self, events: TrialEvents, interruption: Interruption) -> None:
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
        """Print into the log."""
        self._events.message(text)

    def phase(self, text: str) -> None:
        """Nothing: the table of a sweep has no column for it."""

    def _take(self, action: Callable[[], None]) -> None:
        if self.error is not None:
            return
        try:
            action()
        except (SystemExit, MetricError, DivergedError) as error:
            self.error = error
            self._interruption.code = TERMINATED
