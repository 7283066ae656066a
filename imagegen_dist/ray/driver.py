"""The driver of a training job: start workers, show how it goes, and start them again where one dies."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TextIO

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import LoggingConfig

from imagegen_dist import config, records
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.errors import DONE, FAILED, TERMINATED, UsageError
from imagegen_dist.experiment import Experiment
from imagegen_dist.lease import Lease
from imagegen_dist.metrics.console import Console
from imagegen_dist.ray.cluster import Share, connected, divide, machines, yield_to_training
from imagegen_dist.ray.environment import short_job_stop
from imagegen_dist.ray.event_channel import Inbox, start_relay
from imagegen_dist.ray.failure import Failure, RestartPolicy, diagnose
from imagegen_dist.ray.memory import MEMORY_HELP
from imagegen_dist.ray.placement import Growth, free_abandoned, wait_for_room
from imagegen_dist.ray.preflight import Preflight, fitting_nodes, memory_shortage
from imagegen_dist.ray.signals import Interruption
from imagegen_dist.ray.worker import work
from imagegen_dist.records import RunSettings
from imagegen_dist.redirect_output import output_to
from imagegen_dist.resources import Demand, Workers
from imagegen_dist.storage import PATIENCE_S, StorageError, Store, temporary_folder
from imagegen_dist.training.checkpoint import newest_images
from imagegen_dist.wording import counted

COLLECTIVE_TIMEOUT_S = 120
"""Seconds after which a rank that hangs in a collective fails the group, beyond those that it may wait for a store."""

LOSSES_WITHOUT_PROGRESS = 3
"""How often workers may be lost without a new checkpoint between before the run is given up."""

GROW_AFTER_S = 20.0
"""How long the number of places for more workers must not have changed before the run moves onto them."""

STARTS_WITHOUT_PLACE = 5
"""How often in a row workers may find no place on this machine, which is all there is, before the run is given up."""

SILENCE_S = 20.0
"""After how long without a word from workers that are being started the machines are asked if they lack memory."""

MEMORY_PAUSE_S = 10.0
"""How long workers that were killed for memory are not started again: what took it may be gone then."""

ANSWER_S = 2.0
"""How long the relay is waited for at a time."""

POLL_S = 0.5


class View(Protocol):
    """Who sees a training job: the console, or the sweep that it is a trial of."""

    def row(self, row: dict[str, float]) -> None:
        """A row of metrics."""
        ...

    def message(self, text: str, style: str = "") -> None:
        """Something that the user should read."""
        ...

    def phase(self, text: str) -> None:
        """What is being done now; "" while it trains."""
        ...


class Driver:
    """A training job while it runs: its workers, its console, its signals.

    interruption: the wish to end it; None for signals to this process. at_checkpoint: called at each checkpoint, while
    the workers wait to go on.
    """

    def __init__(
        self,
        experiment: Experiment,
        settings: RunSettings,
        index: DatasetIndex,
        workers: Workers | None = None,
        demand: Demand | None = None,
        *,
        interruption: Interruption | None = None,
        at_checkpoint: Callable[[], None] | None = None,
    ) -> None:
        self._experiment = experiment
        self._settings = settings
        self._index = index
        self._workers = workers
        self._demand = demand or Demand()
        self._interruption = interruption or Interruption()
        self._at_checkpoint = at_checkpoint
        self._lease = Lease(settings.folder)
        self.failure: Failure | None = None
        self._complete = False
        self.missing = ""  # why a complete run has no figures of its trained model
        self._own_ray = False
        self._placeless = 0  # how often in a row workers have found no place
        self._heard = False  # whether this group of workers has said anything
        self._decided = 0  # checkpoints of this group of workers at which it was decided whether they go on
        self._inspected: set[str] = set()

    def run(self, screen: TextIO | None = None) -> int:
        """Train to the end, or to a signal; the exit code. Raises UsageError where it cannot be begun.

        screen: where the progress is shown; by default on what was standard output.
        """
        log = _log_path(self._settings)
        with output_to(log) as standard_output, self._interruption.watched(at_once=True):
            screen = screen or standard_output
            title = f"{self._settings.preset} · {self._settings.name}"
            console = Console(self._experiment.training.total_images, title, screen)
            try:
                self._lease.acquire(lambda text: print(text, file=screen, flush=True))
                with console, self._lease:
                    console.phase("starting Ray")
                    with connected() as own, self._interruption.watched():
                        self._lease.confirm()
                        code = self._train(console, own)
            except SystemExit as stopped:
                console.message("stopped at once; the same command goes on where the run is", "yellow")
                # Ray's own handler, which it has for a moment of its start, exits with the signal's number.
                raise SystemExit(TERMINATED if stopped.code == signal.SIGTERM else stopped.code) from None
            self._close(console, code, log)
        return code

    def _train(self, console: Console, own: bool) -> int:
        """Divide the cluster among the workers, note that in the run's directory, and train; the exit code."""
        self._own_ray = own
        if warning := short_job_stop():
            console.message(warning, "yellow")
        batching = self._experiment.training.batching
        share = divide(machines(), self._workers, self._demand, batching.microbatches, own)
        if share.short_of:
            console.message(f"waiting for the cluster to grow: {share.short_of}", "yellow")
        launch = {"workers": [share.workers.low, share.workers.high], "gpu": share.gpu, "threads": share.cpus}
        records.write_config(self._settings, self._experiment, self._index, launch)
        return self.train(console, share)

    def train(self, console: View, share: Share) -> int:
        """Start workers, and again from the last checkpoint where they die; the exit code.

        On the Ray that this process is connected to. Where the code is FAILED, `failure` says why.
        """
        policy = RestartPolicy(LOSSES_WITHOUT_PROGRESS)
        while True:
            workers = self._room(console, share)
            if workers:
                console.phase(f"starting {share.of(workers)}")
                self.failure = self._fit(console, share, workers)
            if self._complete:
                return FAILED if self.missing else DONE
            if self._lease.lost.is_set():
                self.failure = Failure("another driver trains this run now: this one has ended its workers")
                return FAILED
            if self._interruption.code is not None:
                return self._interruption.code
            self._placeless = 0 if self.failure is None or self.failure.started else self._placeless + 1
            if self._own_ray and self._placeless >= STARTS_WITHOUT_PLACE:
                free = ", ".join(f"{amount:g} {name}" for name, amount in self._free().items())
                why = f"{share.of(workers)} found no place {STARTS_WITHOUT_PLACE} times in a row; free are {free}"
                self.failure = Failure(why, started=False)
                return FAILED
            if self.failure is None:
                console.message("the workers stopped early, with a checkpoint; starting them again", "yellow")
                continue
            if not policy.allows(self.failure, self._newest_images()):
                return FAILED
            console.message(f"{self.failure.cause}; starting again from the last checkpoint", "yellow")
            if self.failure.memory:
                console.phase("waiting for memory")
                self._pause(MEMORY_PAUSE_S)

    def _room(self, console: View, share: Share) -> int:
        """How many workers there is room for, once they are enough and their machines fit; 0 where it was given up.

        Raises UsageError where the machines of the first workers do not fit.
        """
        low, high = share.workers.low, share.workers.high
        free_abandoned()
        if self._own_ray:
            has = ray.cluster_resources()
            return min(high, *(int(has[name] // amount) for name, amount in share.resources.items()))

        def waiting(held: int) -> bool:
            if held < low:
                console.phase(f"waiting for room for {counted(low, 'worker')}; there is for {held}")
            return not self._ends

        workers = wait_for_room(low, high, share.resources, waiting)
        if workers:
            self._inspect(console, share)
        return workers

    def _inspect(self, console: View, share: Share) -> None:
        """Ask machines that are new. What is wrong with a later one is said, and left to show."""
        console.phase("looking at the machines")
        first = not self._inspected
        new = [node for node in fitting_nodes(share.resources) if node not in self._inspected]
        self._inspected |= set(new)
        place = self._index.location(Store(self._settings.data))
        shard = (place.url, self._index.shards[0].name)
        try:
            Preflight(
                self._settings.storage, [shard], lambda: self._ends, lambda text: console.message(text, "yellow")
            ).check(new)
        except (UsageError, StorageError) as error:
            if first:
                raise
            console.message(str(error), "yellow")

    def _fit(self, console: View, share: Share, workers: int) -> Failure | None:
        """One group of workers from its start to its end; what it failed with, if it did."""
        relay, self._decided = start_relay(), 0
        attempt = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
        settings = replace(self._settings, attempt=attempt)
        payload = {
            "experiment": config.encode(self._experiment),
            "settings": config.encode(settings),
            "threads": share.cpus,
            "relay": relay,
            "cluster": not self._own_ray,
            "waits": self._at_checkpoint is not None,
        }
        outcome: list[BaseException | None] = []
        growth = Growth(0 if self._own_ray else share.workers.high - workers, share.resources, GROW_AFTER_S)
        self._heard = False
        with temporary_folder("ray") as folder, closing(growth):
            timeout_s = COLLECTIVE_TIMEOUT_S + max(self._experiment.data.cache.timeout_s, PATIENCE_S)
            name = "-".join(filter(None, (settings.wandb_group, settings.name)))
            trainer = _trainer(payload, share, workers, name, str(folder), timeout_s)
            thread = threading.Thread(target=lambda: outcome.append(_caught(trainer.fit)), daemon=True)
            thread.start()
            if not self._watch(console, share, thread, relay, growth):
                return None
        if outcome[0] is None:
            return None
        failure = diagnose(outcome[0])
        if not self._heard and not failure.memory and (short := memory_shortage(fitting_nodes(share.resources))):
            failure = Failure(f"the workers could not be started: {short}", MEMORY_HELP, died=True, memory=True)
        return failure

    def _watch(self, console: View, share: Share, thread: threading.Thread, relay: Any, growth: Growth) -> bool:
        """Show how a group of workers goes until it has ended, and pass on to it that it is to end.

        False where nobody waits for it any more: another driver has the run, or it is to end and has not begun.
        """
        inbox, told, asked_s, short = Inbox(relay), "", time.monotonic(), ""
        while thread.is_alive():
            thread.join(POLL_S)
            self._show(console, relay, inbox)
            if self._lease.lost.is_set() or (self._interruption.asked and not self._heard):
                return False
            if not self._heard and time.monotonic() - asked_s > SILENCE_S:
                asked_s, before = time.monotonic(), short
                short = memory_shortage(fitting_nodes(share.resources))
                if short and not before:
                    console.message(f"the workers cannot be started: {short}", "yellow")
            why = "stopping: the workers write a checkpoint first" if self._interruption.asked else ""
            if not why and self._heard and growth.has_come():
                why = f"{growth.held} more workers have room: a checkpoint, and on with them"
            if why or told:
                relay.request_stop.remote()  # again and again: a relay that was killed has forgotten it
            if why and not told:
                told = why
                console.message(told, "yellow")
        self._show(console, relay, inbox)
        self._show(console, relay, inbox)  # what came while the last question was open
        return True

    @property
    def _ends(self) -> bool:
        """Whether nothing is to be waited for any more."""
        return self._interruption.asked or self._lease.lost.is_set()

    def _pause(self, seconds: float) -> None:
        """Wait, but not where the job is to end."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._ends:
            time.sleep(POLL_S)

    def _free(self) -> dict[str, float]:
        """What of this machine no one has reserved."""
        free = ray.available_resources()
        return {name: free.get(name, 0.0) for name in ("CPU", "GPU") if name in ray.cluster_resources()}

    def _show(self, console: View, relay: Any, inbox: Inbox) -> None:
        for kind, payload in inbox.take(ANSWER_S):
            self._heard = True
            if kind == "row":
                console.phase("")
                console.row(payload)
            elif kind == "phase":
                console.phase(payload)
                if self._own_ray:
                    yield_to_training()
            elif kind == "ended":
                self._complete, self.missing = payload
            elif kind == "checkpoint" and self._at_checkpoint is not None:
                if payload > self._decided:
                    self._decided = payload
                    self._at_checkpoint()
                if self._interruption.code is not None:
                    relay.request_stop.remote()
                relay.let_pass.remote(payload)
            else:
                console.message(payload)

    def _newest_images(self) -> int:
        """Images of the newest checkpoint, -1 where there is none or the storage does not say."""
        try:
            return newest_images(self._settings.folder)
        except StorageError:
            return -1

    def _close(self, console: Console, code: int, log: Path) -> None:
        """The last lines: what went wrong, or where everything is and how to go on."""
        if self._complete:
            console.summary(records.closing_table(self._settings, str(log)))
            if self.missing:
                console.error(f"the model is trained and saved; {self.missing}; the same command takes them again")
        elif code == FAILED and self.failure:
            console.error(self.failure.cause, self.failure.detail)
            where = [("log", str(log)), ("run", self._settings.folder.url)]
            if self._newest_images() >= 0:
                where.append(("to go on", records.resume_command(self._settings)))
            console.summary([("", where)])
        else:
            again = records.resume_command(self._settings)
            images = self._newest_images()
            how = f"with a checkpoint at {images:,} images; to go on" if images >= 0 else "before the training; again"
            console.message(f"stopped {how}:\n  {again}")


class _Trainer(TorchTrainer):
    """Without Ray Train's own cleaner of placement groups, which the driver replaces (`room.free_abandoned`).

    That one asks the dashboard once a second whether the controller lives. Where there is no dashboard, or a slow one,
    it says so each time and frees nothing; and it outlives the job.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [each for each in callbacks if type(each).__name__ != "PlacementGroupCleanerCallback"]


def _trainer(
    payload: dict[str, Any], share: Share, workers: int, name: str, folder: str, timeout_s: float
) -> TorchTrainer:
    """One group of workers that Ray does not start again by itself: how many there are is looked at each time."""
    return _Trainer(
        work,
        train_loop_config=payload,
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=share.gpu,
            resources_per_worker=share.resources,
        ),
        torch_config=TorchConfig(backend="nccl" if share.gpu else "gloo", timeout_s=int(timeout_s)),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=folder,
            failure_config=ray.train.FailureConfig(
                max_failures=0, controller_failure_limit=0, max_preemption_failures=0
            ),
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
