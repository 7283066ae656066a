"""The driver of a sweep: Ray Tune with our searcher, scheduler and trial store, a live table and limits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.tune
from ray.tune.experiment import Trial as TuneTrial

from imagegen_dist import config
from imagegen_dist.errors import DONE, FAILED, UsageError
from imagegen_dist.evaluation.named_reference import can_compare, is_reference_kept
from imagegen_dist.ray.cluster import Share, connected, machines
from imagegen_dist.ray.event_channel import SEEN, start_relay
from imagegen_dist.ray.placement import free_abandoned
from imagegen_dist.ray.signals import Interruption
from imagegen_dist.ray.tune.schedulers import Population, build_scheduler
from imagegen_dist.ray.tune.searchers import build_searcher
from imagegen_dist.ray.tune.trial import datasets_of, make_reference, run_trial
from imagegen_dist.ray.tune.tune_callback import TrialRecorder
from imagegen_dist.storage import Store, temporary_folder
from imagegen_dist.sweep.crowd import Crowd, lack_of_room
from imagegen_dist.sweep.live_table import JsonEvents, LiveTable
from imagegen_dist.sweep.plan import SweepPlan
from imagegen_dist.sweep.results import best
from imagegen_dist.sweep.trial_store import RUNNING, TrialStore
from imagegen_dist.wording import described

LOSSES = 3
"""How often a trial whose process is lost is started again."""

POLL_S = 0.5

LOOK_S = 2.0
"""How often a sweep looks how large the cluster is."""

END_S = 120.0
"""Seconds that trials have to write a checkpoint, once the sweep is to end."""


@dataclass(frozen=True)
class Limits:
    """What a sweep may take: trials at once, seconds, hours of GPUs; None for as much as there is."""

    at_once: int | None = None
    seconds: float | None = None
    gpu_hours: float | None = None

    def reached(self, seconds: float, gpu_hours: float) -> str:
        """The budget that is spent, in words, after so long and so many hours of GPUs; "" for none."""
        if self.seconds is not None and seconds >= self.seconds:
            return f"--time-budget of {self.seconds:g} s is spent"
        if self.gpu_hours is not None and gpu_hours >= self.gpu_hours:
            return f"--gpu-hours {self.gpu_hours:g} are spent"
        return ""


class SweepDriver:
    """A sweep while it runs. Raises UsageError from `run` for a mistake that only a cluster or a trial can find."""

    def __init__(self, plan: SweepPlan, limits: Limits, view: LiveTable | JsonEvents) -> None:
        self._plan = plan
        self._limits = limits
        self._view = view
        self._trial_store = TrialStore.read(plan.folder)
        self._trial_store.show = view.trial
        self._recorder = TrialRecorder(self._trial_store, plan.goals)
        self._interruption = Interruption()
        self._searcher = build_searcher(plan, self._trial_store)
        self._demand = plan.demand
        self._crowd = Crowd(plan.demand, limits.at_once)
        self._looked_s = 0.0
        self._began = time.monotonic()
        self._ending_s: float | None = None
        self._heard_s = self._began
        self._relay: Any = None
        self._population: Population | None = None
        self._active = 0

    def run(self) -> int:
        """All trials to their ends, or to a limit or a signal; the exit code.

        DONE where a trial has come to figures, also if a limit has ended the sweep; FAILED where none has.
        """
        self._view.phase("starting Ray")
        groups = self._plan.demand.is_group
        # Ray Train frees what a lost trial's workers had reserved with the help of the dashboard's server.
        with connected(dashboard=groups) as own, self._interruption.watched():
            self._look_at_cluster(own)
            if self._limits.gpu_hours is not None and not self._demand.gpus:
                raise UsageError(f"--gpu-hours {self._limits.gpu_hours:g}: trials get no GPU here; use --time-budget")
            self._relay = start_relay()
            if needs_reference(self._plan):
                self._view.phase("training the network that figures are taken with")
                self._as_task(make_reference)
                if self._interruption.code is not None:
                    return self._interruption.code
            self._view.phase("starting trials")
            for trial in self._trial_store.trials:
                self._view.trial(trial)
            error = self._fit()
        for trial in self._trial_store.trials:
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
        return DONE if best(self._trial_store.trials, self._plan.goals) else FAILED

    def _look_at_cluster(self, own: bool) -> None:
        """What a trial gets of the machines, and how many may begin. Raises UsageError where no trial ever will.

        own: whether this machine is all that there will ever be; a cluster that is too small may grow.
        """
        resources, nodes = ray.cluster_resources(), machines()
        self._demand = self._plan.demand.of(resources.get("CPU", 1.0), resources.get("GPU", 0.0))
        if lack := lack_of_room(self._demand, nodes):
            if own:
                raise UsageError(f"{lack}; lower --workers, --cpus or --gpus")
            self._view.message(f"waiting for the cluster to grow: {lack}", "yellow")
        self._crowd = Crowd(self._demand, self._limits.at_once)
        self._crowd.follow(nodes)
        self._searcher.crowd = self._crowd
        if self._plan.searcher != "tpe":  # which chooses better the later it is asked
            # The crowd decides how many wait: Ray Tune would go by the cluster's size at the start.
            os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(self._plan.trials + 1))

    def _fit(self) -> BaseException | None:
        """Ray Tune from start to end, in a thread of its own; what it failed with, if it did."""
        outcome: list[BaseException | None] = []
        with temporary_folder("tune") as folder:
            thread = threading.Thread(target=lambda: outcome.append(self._caught_fit(str(folder))), daemon=True)
            thread.start()
            while thread.is_alive():
                thread.join(POLL_S)
        return outcome[0]

    def _caught_fit(self, folder: str) -> BaseException | None:
        try:
            self._tuner(folder).fit()
        except BaseException as error:
            return error
        return None

    def _tuner(self, folder: str) -> ray.tune.Tuner:
        scheduler = build_scheduler(self._plan, self._trial_store)
        at_once = None if self._demand.is_group else self._limits.at_once  # of groups the crowd knows how many fit
        if isinstance(scheduler, Population):
            # Its members that wait for others take no room, which Ray Tune's own limit does not know.
            scheduler.at_once, at_once = self._crowd.groups if self._demand.is_group else at_once, None
            self._searcher.has_room, self._searcher.is_awaited = scheduler.has_room, scheduler.goes_on
            self._population = scheduler
        return ray.tune.Tuner(
            self._trainable(),
            tune_config=ray.tune.TuneConfig(
                search_alg=self._searcher,
                scheduler=scheduler,
                num_samples=self._plan.trials + 1,  # it is the searcher that says when there are no more
                max_concurrent_trials=at_once,
                reuse_actors=not self._demand.is_group,
            ),
            run_config=ray.tune.RunConfig(
                name="tune",
                storage_path=folder,
                stop=_Ending(self._is_over),
                callbacks=[_Telling(self._recorder, self._count, self._crowd)],
                failure_config=ray.tune.FailureConfig(max_failures=LOSSES),
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),  # runs keep their own
                verbose=0,
            ),
        )

    def _trainable(self) -> Any:
        """What Ray Tune starts for a trial. The workers of a group are not among the resources that it counts."""
        demand, plan = self._demand, config.encode(self._plan)
        cpus, gpus = demand.cpus or 1, demand.gpus or 0.0
        if demand.is_group:
            from imagegen_dist.ray.tune.group import WorkersTrial  # Ray Train takes seconds to import

            share = Share(demand.workers, gpus > 0, cpus)
            trainable = ray.tune.with_parameters(WorkersTrial, plan=plan, share=share, relay=self._relay)
            return ray.tune.with_resources(trainable, {"node:__internal_head__": 0.001})
        trainable = ray.tune.with_parameters(run_trial, plan=plan, threads=cpus, gpu=gpus > 0, relay=self._relay)
        return ray.tune.with_resources(trainable, {"CPU": float(cpus), **({"GPU": gpus} if gpus else {})})

    def _is_over(self) -> bool:
        """Whether Ray Tune is to end all trials: they have ended, or had the time to, or one found a mistake."""
        if self._recorder.misused:
            self._recorder.ending = True
            return True
        now = time.monotonic()
        if now - self._heard_s >= POLL_S:
            self._heard_s = now
            self._hear()
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            self._follow_cluster()
        if self._ending_s is None and (why := self._reason_to_end(now)):
            self._view.message(f"{why}: the trials write a checkpoint", "yellow")
            self._ending_s = now
            self._recorder.ending = self._searcher.closed = True
            if self._population is not None:
                self._population.closed = True
        if self._ending_s is not None:
            self._relay.request_stop.remote()  # again and again: a relay that was lost has forgotten it
        return self._ending_s is not None and (not self._active or now - self._ending_s >= END_S)

    def _follow_cluster(self) -> None:
        """Let more trials begin, or fewer, as the cluster has grown or shrunk; free what lost groups had reserved."""
        self._crowd.follow(machines())
        if self._demand.is_group:
            free_abandoned()
            if self._population is not None:
                self._population.at_once = self._crowd.groups

    def _hear(self) -> None:
        """How far trials are, which they say without waiting for Ray Tune."""
        with suppress(ray.exceptions.RayError):  # the relay comes back
            for kind, payload in ray.get(self._relay.take.remote(), timeout=5):
                if kind == SEEN:
                    run, images = payload
                    self._recorder.reported(run, {"seen": images})

    def _reason_to_end(self, now: float) -> str:
        """Which limit is reached, or that the user has asked for it; "" for neither."""
        if self._interruption.code is not None:
            return "stopping"
        gpus = (self._demand.gpus or 0.0) * self._demand.workers.high
        return self._limits.reached(now - self._began, self._recorder.gpu_seconds(gpus) / 3600)

    def _count(self, trials: Sequence[TuneTrial]) -> None:
        self._active = sum(trial.status == TuneTrial.RUNNING for trial in trials)

    def _as_task(self, function: Any) -> None:
        demand = self._demand
        cpus, gpus = demand.cpus or 1, demand.gpus or 0.0
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus)(function)
        task = remote.remote(config.encode(self._plan), cpus, gpus > 0)
        while not self._interruption.asked:
            if ray.wait([task], timeout=POLL_S)[0]:
                ray.get(task)
                return
        ray.cancel(task, force=True)


class _Stateless:
    """Part of a tuner that is pickled with it, although nothing reads that: a sweep continues from its trial store."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Ending(_Stateless, ray.tune.Stopper):
    """Ends all trials once a condition holds."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._condition()


class _Telling(_Stateless, ray.tune.Callback):
    """Passes on to the recorder what happens to trials, and at each of Ray Tune's steps how they are to `count`."""

    def __init__(self, recorder: TrialRecorder, count: Callable[[Sequence[TuneTrial]], None], crowd: Crowd) -> None:
        self._recorder = recorder
        self._count = count
        self._crowd = crowd

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        self._count(trials)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._crowd.started(trial.trial_id)
        self._recorder.started(trial.config["run"])

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if "run" in result:
            self._recorder.reported(result["run"], result)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._crowd.ended(trial.trial_id)
        self._recorder.ended(trial.config["run"])

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._recorder.lost(trial.config["run"])

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._crowd.ended(trial.trial_id)
        lines = str(trial.get_error() or "its process was lost").strip().splitlines()
        self._recorder.died(trial.config["run"], lines[-1])


def needs_reference(plan: SweepPlan) -> bool:
    """Whether figures are taken in a network's features, and what of real samples they need is not at hand yet."""
    evaluation = plan.experiment.evaluation
    training, held_out = datasets_of(plan)
    if not evaluation.samples or not can_compare(evaluation, training.index):
        return False
    return not is_reference_kept(plan.trial_settings("", "").shared, training, held_out, evaluation)


def log_path(folder: Store, name: str) -> Path:
    """A local file for what Ray and the trials print."""
    local = folder.local_path()
    return (local or Path.home() / ".cache" / "imagegen_dist" / "logs" / name) / "driver.log"
