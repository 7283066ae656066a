"""The driver of a sweep: Ray Tune with our searcher, scheduler and ledger, under a live table and within limits."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.tune
from ray.tune.experiment import Trial as TuneTrial

from imagegen_dist import config
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.launch.cluster import connected
from imagegen_dist.launch.flags import UsageError
from imagegen_dist.launch.signals import Interruption
from imagegen_dist.launch.sweep.board import Board, Wire
from imagegen_dist.launch.sweep.ledger import Ledger
from imagegen_dist.launch.sweep.plan import Demand, SweepPlan
from imagegen_dist.launch.sweep.schedulers import build_scheduler
from imagegen_dist.launch.sweep.scribe import Scribe
from imagegen_dist.launch.sweep.searchers import build_searcher
from imagegen_dist.launch.sweep.trial import make_reference, run_trial
from imagegen_dist.launch.train import DONE, FAILED
from imagegen_dist.storage import Store

LOSSES = 3
"""How often a trial whose process is lost is started again."""

POLL_S = 0.5


@dataclass(frozen=True)
class Limits:
    """What a sweep may take: trials at once, seconds, hours of GPUs; None for as much as there is."""

    at_once: int | None = None
    seconds: float | None = None
    gpu_hours: float | None = None


class SweepDriver:
    """A sweep while it runs. Raises UsageError from `run` for a mistake that only a cluster or a trial can find."""

    def __init__(self, plan: SweepPlan, limits: Limits, view: Board | Wire) -> None:
        self._plan = plan
        self._limits = limits
        self._view = view
        self._ledger = Ledger.read(plan.folder)
        self._ledger.show = view.trial
        self._scribe = Scribe(self._ledger, plan.goals)
        self._interruption = Interruption()
        self._demand = plan.demand
        self._began = time.monotonic()

    def run(self) -> int:
        """All trials to their ends, or to a limit or a signal; the exit code."""
        self._view.phase("starting Ray")
        with connected(), self._interruption.watched():
            resources = ray.cluster_resources()
            self._demand = self._plan.demand.of(resources.get("CPU", 1.0), resources.get("GPU", 0.0))
            check_room(self._demand)
            if needs_reference(self._plan):
                self._view.phase("training the network that figures are taken with")
                self._as_task(make_reference)
            self._view.phase("starting trials")
            for trial in self._ledger.trials:
                self._view.trial(trial)
            error = self._fit()
        self._view.phase("")
        if self._scribe.misused:
            raise UsageError(self._scribe.misused)
        if error is not None:
            self._view.error(f"the sweep has failed: {type(error).__name__}: {' '.join(str(error).split())}")
            return FAILED
        if self._interruption.code is not None:
            return self._interruption.code
        return DONE if self._scribe.complete else FAILED

    def _fit(self) -> BaseException | None:
        """Ray Tune from start to end, in a thread of its own; what it failed with, if it did."""
        outcome: list[BaseException | None] = []
        with tempfile.TemporaryDirectory(prefix="imagegen-tune-") as folder:
            thread = threading.Thread(target=lambda: outcome.append(self._caught_fit(folder)), daemon=True)
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
        demand = self._demand
        cpus, gpus = demand.cpus or 1, demand.gpus or 0.0
        trainable = ray.tune.with_parameters(run_trial, plan=config.encode(self._plan), threads=cpus, gpu=gpus > 0)
        return ray.tune.Tuner(
            ray.tune.with_resources(trainable, {"CPU": float(cpus), **({"GPU": gpus} if gpus else {})}),
            tune_config=ray.tune.TuneConfig(
                search_alg=build_searcher(self._plan, self._ledger),
                scheduler=build_scheduler(self._plan, self._ledger),
                num_samples=self._plan.trials,
                max_concurrent_trials=self._limits.at_once,
                reuse_actors=True,
            ),
            run_config=ray.tune.RunConfig(
                name="tune",
                storage_path=folder,
                stop=_Ending(self._is_over),
                callbacks=[_Telling(self._scribe)],
                failure_config=ray.tune.FailureConfig(max_failures=LOSSES),
                verbose=0,
            ),
        )

    def _is_over(self) -> bool:
        """Whether a limit is reached, or the user or a trial's finding has ended the sweep."""
        seconds, hours = self._limits.seconds, self._limits.gpu_hours
        spent = self._scribe.gpu_seconds((self._demand.gpus or 0.0) * self._demand.workers) / 3600
        why = ""
        if seconds is not None and time.monotonic() - self._began >= seconds:
            why = f"--time-budget of {seconds:g} s is spent"
        elif hours is not None and spent >= hours:
            why = f"--gpu-hours {hours:g} are spent"
        elif self._interruption.code is not None:
            why = "stopping"
        elif not self._scribe.misused:
            return False
        if why and not self._scribe.ending:
            self._view.message(why, "yellow")
        self._scribe.ending = True
        return True

    def _as_task(self, function: Any) -> None:
        demand = self._demand
        cpus, gpus = demand.cpus or 1, demand.gpus or 0.0
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus)(function)
        ray.get(remote.remote(config.encode(self._plan), cpus, gpus > 0))


class _Stateless:
    """Part of a tuner that is pickled with it, though nobody reads that: the ledger is what a sweep goes on from."""

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
    """Passes on to the scribe what happens to trials."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._scribe.started(trial.config["run"])

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if "run" in result:
            self._scribe.reported(result["run"], result)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._scribe.ended(trial.config["run"])

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._scribe.lost(trial.config["run"])

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        lines = str(trial.get_error() or "its process was lost").strip().splitlines()
        self._scribe.died(trial.config["run"], lines[-1])


def needs_reference(plan: SweepPlan) -> bool:
    """Whether figures are taken in the features of a network trained on the data's own labels."""
    return bool(plan.experiment.evaluation.samples and DatasetIndex.load(Store(plan.settings.data)).classes)


def check_room(demand: Demand) -> None:
    """Raise UsageError where the machines of the cluster have no room for the workers of one trial."""
    cpus, gpus = demand.cpus or 1, demand.gpus or 0.0
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = 0
    for node in alive:
        by_gpu = int(node.get("GPU", 0) / gpus) if gpus else demand.workers
        room += min(int(node.get("CPU", 0)) // cpus, by_gpu)
    if room < demand.workers:
        has = ", ".join(f"{node.get('CPU', 0):g} CPU cores and {node.get('GPU', 0):g} GPUs" for node in alive)
        raise UsageError(
            f"a trial needs {demand}, and the cluster has room for {room} such worker{'s' if room != 1 else ''} "
            f"({has}); lower --workers, --cpus or --gpus"
        )


def log_path(folder: Store, name: str) -> Path:
    """A local file for what Ray and the trials print."""
    local = folder.local_path()
    return (local or Path.home() / ".cache" / "imagegen_dist" / "logs" / name) / "driver.log"
