"""The driver of a sweep: Ray Tune with our searchers, schedulers and trial store, a live table and budgets."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.tune

from imagegen_dist import config
from imagegen_dist.errors import DONE, FAILED, UsageError
from imagegen_dist.ray.cluster import connected, machines
from imagegen_dist.ray.event_channel import SEEN, start_channel
from imagegen_dist.ray.placement import free_abandoned
from imagegen_dist.ray.signals import Interruption
from imagegen_dist.ray.tune.schedulers import Population, build_scheduler
from imagegen_dist.ray.tune.searchers import build_searcher
from imagegen_dist.ray.tune.trial import END_S, TrialActor
from imagegen_dist.ray.tune.tune_callback import Stateless, TrialRecorder
from imagegen_dist.storage import Store, temporary_folder
from imagegen_dist.sweep.capacity import Capacity, concurrent_groups, missing_resources
from imagegen_dist.sweep.json_events import JsonEvents
from imagegen_dist.sweep.live_table import LiveTable
from imagegen_dist.sweep.plan import SweepPlan, decode_plan
from imagegen_dist.sweep.results import best
from imagegen_dist.sweep.trial import make_reference, needs_reference
from imagegen_dist.sweep.trial_store import RUNNING, TrialStore
from imagegen_dist.wording import described

_MAX_LOSSES = 3
"""How often a trial whose process is lost is started again."""

_MAX_PENDING = 16
"""Most trials that wait for resources, which are the demand that an autoscaler sees."""

_POLL_S = 0.5

_LOOK_S = 2.0
"""How often the sweep reads the size of the cluster."""


@dataclass(frozen=True)
class Limits:
    """Limits of a sweep: trials at once, seconds, GPU hours; None for no limit."""

    at_once: int | None = None
    seconds: float | None = None
    gpu_hours: float | None = None

    def reached(self, seconds: float, gpu_hours: float) -> str:
        """The budget that is spent after that time and those GPU hours, in words; "" for none."""
        if self.seconds is not None and seconds >= self.seconds:
            return f"--time-budget of {self.seconds:g} s is spent"
        if self.gpu_hours is not None and gpu_hours >= self.gpu_hours:
            return f"--gpu-hours {self.gpu_hours:g} are spent"
        return ""


class SweepDriver:
    """Runs one sweep. `run` raises UsageError for a mistake that only a cluster or a trial can find."""

    def __init__(self, plan: SweepPlan, limits: Limits, view: LiveTable | JsonEvents) -> None:
        self._plan = plan
        self._limits = limits
        self._view = view
        self._store = TrialStore.read(plan.folder)
        self._store.show = view.trial
        self._recorder = TrialRecorder(self._store)
        self._capacity = Capacity(limits.at_once)
        self._searcher = build_searcher(plan, self._store, self._capacity)
        self._scheduler = build_scheduler(plan, self._store, self._capacity)
        if isinstance(self._scheduler, Population):
            self._searcher.is_awaited = self._scheduler.is_unfinished
        self._interruption = Interruption()
        self._channel: Any = None
        self._began_s = self._heard_s = time.monotonic()
        self._looked_s = self._began_s - _LOOK_S
        self._ending_s: float | None = None

    def run(self) -> int:
        """Run all trials to their ends, or to a limit or a signal; the exit code.

        DONE if a trial has metrics, also if a limit has ended the sweep; FAILED if none has.
        """
        self._view.phase("starting Ray")
        # With the help of the dashboard's server, Ray Train frees what the workers of a lost trial had reserved.
        with connected(dashboard=self._plan.demand.is_group) as own, self._interruption.watched():
            self._look_at_cluster(own)
            self._channel = start_channel()
            if needs_reference(self._plan):
                self._view.phase("training the network that metrics are computed with")
                self._make_reference()
                if self._interruption.code is not None:
                    return self._interruption.code
            self._view.phase("starting trials")
            for trial in self._store.trials:
                self._view.trial(trial)
            error = self._fit()
        for trial in self._store.trials:
            if trial.state == RUNNING and self._recorder.ending:
                self._recorder.ended(trial.run)
        self._view.phase("")
        if self._recorder.misused:
            raise UsageError(self._recorder.misused)
        if error is not None:
            self._view.error(f"the sweep has failed: {described(error)}")
            return FAILED
        if self._interruption.code is not None:
            return self._interruption.code
        return DONE if best(self._store.trials, self._plan.goals) else FAILED

    def _look_at_cluster(self, own: bool) -> None:
        """Divide the cluster among trials. Raises UsageError if no trial will ever run, or has the GPUs of a budget.

        own: True if the cluster is this machine, which cannot grow.
        """
        resources = ray.cluster_resources()
        demand = self._plan.demand.of(resources.get("CPU", 1.0), resources.get("GPU", 0.0))
        self._plan = replace(self._plan, demand=demand)
        if lack := missing_resources(demand, machines()):
            if own:
                raise UsageError(f"{lack}; lower --workers, --cpus or --gpus")
            self._view.message(f"waiting for the cluster to grow: {lack}", "yellow")
        if self._limits.gpu_hours is not None and not demand.gpus:
            raise UsageError(f"--gpu-hours {self._limits.gpu_hours:g}: trials get no GPU here; use --time-budget")
        self._follow_cluster()
        if self._plan.searcher != "tpe":  # TPE chooses better the later it is asked: one trial waits
            os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(_MAX_PENDING))

    def _make_reference(self) -> None:
        """Compute what the trials' metrics compare with, as a task on the cluster."""
        resources = self._plan.demand.resources
        task = ray.remote(num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0))(_reference_task)
        made = task.remote(config.encode(self._plan))
        while not self._interruption.asked:
            if ray.wait([made], timeout=_POLL_S)[0]:
                ray.get(made)
                return
        ray.cancel(made, force=True)

    def _fit(self) -> BaseException | None:
        """Run Ray Tune in a thread of its own, so that signals reach this one; the exception that it raised, if any."""
        error: BaseException | None = None

        def fit(folder: str) -> None:
            nonlocal error
            try:
                self._tuner(folder).fit()
            except BaseException as raised:
                error = raised

        with temporary_folder("tune") as folder:
            thread = threading.Thread(target=fit, args=[str(folder)], daemon=True)
            thread.start()
            while thread.is_alive():
                thread.join(_POLL_S)
        return error

    def _tuner(self, folder: str) -> ray.tune.Tuner:
        demand = self._plan.demand
        trainable = ray.tune.with_parameters(TrialActor, plan=config.encode(self._plan), channel=self._channel)
        # Ray Tune does not count the workers of a group, which reserve their own resources.
        resources = {"node:__internal_head__": 0.001} if demand.is_group else demand.resources
        return ray.tune.Tuner(
            ray.tune.with_resources(trainable, resources),
            tune_config=ray.tune.TuneConfig(
                search_alg=self._searcher,
                scheduler=self._scheduler,
                trial_dirname_creator=lambda trial: trial.trial_id,
                num_samples=self._plan.trials + 1,  # the searcher says when there are no more
                reuse_actors=not demand.is_group,  # a process that is kept would keep the workers of its last trial
            ),
            run_config=ray.tune.RunConfig(
                name="tune",
                storage_path=folder,
                stop=_Stopper(self._is_over),
                callbacks=[self._recorder],
                failure_config=ray.tune.FailureConfig(max_failures=_MAX_LOSSES),
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),  # runs keep their own
                verbose=0,
            ),
        )

    def _is_over(self) -> bool:
        """True once Ray Tune should end all trials: after a mistake, or when they have had the time to end."""
        if self._recorder.misused:
            self._recorder.ending = True
            return True
        if self._recorder.active:
            self._view.phase("")
        now = time.monotonic()
        if now - self._heard_s >= _POLL_S:
            self._heard_s = now
            self._hear()
        if now - self._looked_s >= _LOOK_S:
            self._looked_s = now
            self._follow_cluster()
        if self._ending_s is None and (why := self._reason_to_end(now)):
            self._view.message(f"{why}: the trials write a checkpoint", "yellow")
            self._ending_s = now
            self._recorder.ending = self._searcher.closed = True
            if isinstance(self._scheduler, Population):
                self._scheduler.closed = True
        if self._ending_s is None:
            return False
        self._channel.request_stop.remote()  # repeatedly: a channel that was lost has forgotten it
        return not self._recorder.active or now - self._ending_s >= END_S

    def _follow_cluster(self) -> None:
        """Let as many groups of workers run as the cluster can hold now, and free what lost groups had reserved."""
        if self._plan.demand.is_group:
            free_abandoned()
            self._capacity.limit = concurrent_groups(self._plan.demand, machines(), self._limits.at_once)

    def _hear(self) -> None:
        """Take the images seen, which trials send without waiting for Ray Tune."""
        with suppress(ray.exceptions.RayError):  # the channel comes back
            for kind, payload in ray.get(self._channel.take.remote(), timeout=5):
                if kind == SEEN:
                    self._recorder.progressed(*payload)

    def _reason_to_end(self, now: float) -> str:
        """The limit that is reached, or that the user asked for the end; "" for neither."""
        if self._interruption.code is not None:
            return "stopping"
        gpus = (self._plan.demand.gpus or 0.0) * self._plan.demand.workers.high
        return self._limits.reached(now - self._began_s, self._recorder.gpu_seconds(gpus) / 3600)


class _Stopper(Stateless, ray.tune.Stopper):
    """Ends all trials once a condition holds."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._condition()


def _reference_task(plan: dict[str, Any]) -> None:
    make_reference(decode_plan(plan))


def log_path(folder: Store, name: str) -> Path:
    """A local file for what Ray and the trials print."""
    local = folder.local_path()
    return (local or Path.home() / ".cache" / "imagegen_dist" / "logs" / name) / "driver.log"
