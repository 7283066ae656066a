"""The driver of a training job: start workers, show how it goes, and start them again where one dies."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import LoggingConfig

from imagegen_dist import config, records
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.experiment import Experiment
from imagegen_dist.launch.cluster import Share, connected, divide, yield_to_training
from imagegen_dist.launch.failure import Failure, RestartPolicy, diagnose
from imagegen_dist.launch.options import Workers
from imagegen_dist.launch.quiet import output_to
from imagegen_dist.launch.relay import start_relay
from imagegen_dist.launch.signals import Interruption
from imagegen_dist.launch.train import DONE, FAILED
from imagegen_dist.launch.worker import work
from imagegen_dist.metrics.console import Console
from imagegen_dist.records import RunSettings
from imagegen_dist.training.checkpoint import newest_images

COLLECTIVE_TIMEOUT_S = 120
"""Seconds after which a rank that hangs in a collective fails the group, beyond those that it may wait for its data."""

LOSSES_WITHOUT_PROGRESS = 3
"""How often workers may be lost without a new checkpoint between before the run is given up."""

POLL_S = 0.5


class Driver:
    """A training job while it runs: its workers, its console, its signals."""

    def __init__(
        self, experiment: Experiment, settings: RunSettings, index: DatasetIndex, workers: Workers | None
    ) -> None:
        self._experiment = experiment
        self._settings = settings
        self._index = index
        self._workers = workers
        self._interruption = Interruption()
        self._failure: Failure | None = None
        self._complete = False
        self._own_ray = False

    def run(self) -> int:
        """Train to the end, or to a signal; the exit code."""
        log = _log_path(self._settings)
        with output_to(log) as screen:
            title = f"{self._settings.preset} · {self._settings.name}"
            console = Console(self._experiment.training.total_images, title, screen)
            with console:
                console.phase("starting Ray")
                with connected() as own, self._interruption.watched():
                    code = self._train(console, own)
            self._close(console, code, log)
        return code

    def _train(self, console: Console, own: bool) -> int:
        """Start workers, and again from the last checkpoint where they die; the exit code."""
        self._own_ray = own
        batching = self._experiment.training.batching
        share = divide(self._workers, batching.microbatches, own)
        if share.short_of:
            console.message(f"waiting for the cluster to grow: {share.short_of}", "yellow")
        launch = {"workers": [share.workers.low, share.workers.high], "gpu": share.gpu, "threads": share.cpus}
        records.write_config(self._settings, self._experiment, self._index, launch)
        policy = RestartPolicy(LOSSES_WITHOUT_PROGRESS)
        while True:
            console.phase(f"starting {share}")
            self._failure = self._fit(console, share)
            if self._complete:
                return DONE
            if self._interruption.code is not None:
                return self._interruption.code
            if self._failure is None:
                console.message("the workers stopped early, with a checkpoint; starting them again", "yellow")
                continue
            if not policy.allows(self._failure, newest_images(self._settings.folder)):
                return FAILED
            console.message(f"{self._failure.cause}; starting again from the last checkpoint", "yellow")

    def _fit(self, console: Console, share: Share) -> Failure | None:
        """One group of workers from its start to its end; what it failed with, if it did."""
        relay = start_relay()
        attempt = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
        settings = replace(self._settings, attempt=attempt)
        payload = {
            "experiment": config.encode(self._experiment),
            "settings": config.encode(settings),
            "threads": share.cpus,
            "relay": relay,
        }
        outcome: list[BaseException | None] = []
        with tempfile.TemporaryDirectory(prefix="imagegen-ray-") as folder:
            timeout_s = COLLECTIVE_TIMEOUT_S + self._experiment.data.cache.timeout_s
            trainer = _trainer(payload, share, settings.name, folder, timeout_s)
            thread = threading.Thread(target=lambda: outcome.append(_caught(trainer.fit)), daemon=True)
            thread.start()
            told = False
            while thread.is_alive():
                thread.join(POLL_S)
                self._show(console, relay)
                if self._interruption.code is not None and not told:
                    told = True
                    relay.request_stop.remote()
                    console.message("stopping: the workers write a checkpoint first", "yellow")
            self._show(console, relay)
        return None if outcome[0] is None else diagnose(outcome[0])

    def _show(self, console: Console, relay: Any) -> None:
        for kind, payload in ray.get(relay.take.remote()):
            if kind == "row":
                console.phase("")
                console.row(payload)
            elif kind == "phase":
                console.phase(payload)
                if self._own_ray:
                    yield_to_training()
            elif kind == "ended":
                self._complete = payload
            else:
                console.message(payload)

    def _close(self, console: Console, code: int, log: Path) -> None:
        """The last lines: what went wrong, or where everything is and how to go on."""
        if code == FAILED and self._failure:
            console.error(self._failure.cause, self._failure.detail)
            where = [("log", str(log)), ("run", self._settings.folder.url)]
            if newest_images(self._settings.folder) >= 0:
                where.append(("to go on", records.resume_command(self._settings)))
            console.summary([("", where)])
        elif code != DONE:
            again = records.resume_command(self._settings)
            images = newest_images(self._settings.folder)
            console.message(f"stopped with a checkpoint at {images:,} images; to go on:\n  {again}")
        else:
            console.summary(records.closing_table(self._settings, str(log)))


def _trainer(payload: dict[str, Any], share: Share, name: str, folder: str, timeout_s: float) -> TorchTrainer:
    workers = share.workers
    return TorchTrainer(
        work,
        train_loop_config=payload,
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.low if workers.low == workers.high else (workers.low, workers.high),
            use_gpu=share.gpu,
            resources_per_worker={"CPU": share.cpus, **({"GPU": 1} if share.gpu else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if share.gpu else "gloo", timeout_s=int(timeout_s)),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=folder,
            failure_config=ray.train.FailureConfig(max_failures=0),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


def _caught(action: Callable[[], Any]) -> BaseException | None:
    try:
        action()
    except BaseException as error:
        return error
    return None


def _log_path(settings: RunSettings) -> Path:
    """A local file for what Ray and others print."""
    local = settings.folder.local_path()
    folder = local if local else Path.home() / ".cache" / "imagegen_dist" / "logs" / settings.name
    return folder / "driver.log"
