"""The driver of a training job: starts workers, shows their progress, and restarts them if one is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TextIO

import ray

from imagegen_dist import config, extensions, records
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.errors import DONE, FAILED, TERMINATED, UsageError
from imagegen_dist.experiment import Experiment
from imagegen_dist.metrics.console import Console
from imagegen_dist.ray import local_group
from imagegen_dist.ray.cluster import Share, connected, divide, machines, yield_to_training
from imagegen_dist.ray.early import EarlyRay
from imagegen_dist.ray.environment import short_job_stop
from imagegen_dist.ray.event_channel import Inbox, start_channel
from imagegen_dist.ray.failure import Failure, RestartPolicy, diagnose
from imagegen_dist.ray.memory import MEMORY_HELP
from imagegen_dist.ray.placement import Growth, free_abandoned, wait_for_placement
from imagegen_dist.ray.preflight import Preflight, fitting_nodes, memory_shortage
from imagegen_dist.ray.signals import Interruption
from imagegen_dist.records import RunSettings, new_attempt
from imagegen_dist.redirect_output import output_to
from imagegen_dist.resources import Demand, Workers
from imagegen_dist.storage import PATIENCE_S, StorageError, Store, temporary_folder
from imagegen_dist.storage.lease import Lease
from imagegen_dist.training.checkpoint import newest_images
from imagegen_dist.wording import counted

_COLLECTIVE_TIMEOUT_S = 120
"""Seconds after which a rank that hangs in a collective fails the group, in addition to its patience with storage."""

_LOSSES_WITHOUT_PROGRESS = 3
"""The number of losses of workers without a new checkpoint in between after which the run fails."""

_GROW_AFTER_S = 20.0
"""Seconds for which the number of further workers must be stable before the run restarts with them."""

_STARTS_WITHOUT_PLACE = 5
"""Consecutive starts without a placement on this machine, if it is the whole cluster, after which the run fails."""

_SILENCE_S = 20.0
"""Seconds without a sign from starting workers after which the machines are asked whether they lack memory."""

_MEMORY_PAUSE_S = 10.0
"""Seconds before workers that were killed for memory are restarted: its other user may have ended by then."""

_ANSWER_S = 2.0
"""Seconds to wait for one answer of the event channel."""

_POLL_S = 0.5


class View(Protocol):
    """What shows a training job: the console, or the sweep of which it is a trial."""

    def row(self, row: dict[str, float]) -> None:
        """A row of metrics."""
        ...

    def message(self, text: str, style: str = "") -> None:
        """A message for the user."""
        ...

    def phase(self, text: str) -> None:
        """The current activity; "" while training."""
        ...


class Driver:
    """A running training job: its workers, its console, its signals.

    interruption: requests its end; None for signals to this process. at_checkpoint: called at each checkpoint, while
    the workers wait to continue. early: a local Ray whose start has begun.
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
        early: EarlyRay | None = None,
    ) -> None:
        self._experiment = experiment
        self._settings = settings
        self._index = index
        self._workers = workers
        self._demand = demand or Demand()
        self._interruption = interruption or Interruption()
        self._at_checkpoint = at_checkpoint
        self._early = early
        self._lease = Lease(settings.folder)
        self.failure: Failure | None = None
        self._complete = False
        self.missing = ""  # why a complete run lacks the figures of its trained model
        self._own_ray = False
        self._placeless = 0  # consecutive starts without a placement
        self._heard = False  # whether this group of workers has sent an event
        self._decided = 0  # checkpoints of this group at which its continuation has been decided
        self._inspected: set[str] = set()

    def run(self, screen: TextIO | None = None) -> int:
        """Train to the end or to a signal, and return the exit code. Raises UsageError if training cannot start.

        screen: where the progress is shown; by default on what was standard output.
        """
        log = records.log_path(self._settings)
        with output_to(log) as standard_output, self._interruption.watched(at_once=True):
            screen = screen or standard_output
            title = f"{self._settings.preset} · {self._settings.name}"
            console = Console(self._experiment.training.total_images, title, screen)
            try:
                self._lease.acquire(lambda text: print(text, file=screen, flush=True))
                with console, self._lease:
                    console.phase("starting Ray")
                    with connected(early=self._early) as own, self._interruption.watched():
                        self._lease.confirm()
                        code = self._train(console, own)
            except SystemExit as stopped:
                console.message("stopped at once; the same command continues the run", "yellow")
                # Ray's own handler, which it has for a moment of its start, exits with the signal's number.
                raise SystemExit(TERMINATED if stopped.code == signal.SIGTERM else stopped.code) from None
            self._close(console, code, log)
        return code

    def _train(self, console: Console, own: bool) -> int:
        """Divide the cluster among the workers, write config.json, and train; the exit code."""
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
        """Start workers, and restart them from the last checkpoint if they are lost; the exit code.

        Uses the Ray that this process is connected to. If the code is FAILED, `failure` says why.
        """
        policy = RestartPolicy(_LOSSES_WITHOUT_PROGRESS)
        while True:
            workers = self._wait_for_placement(console, share)
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
            if self._own_ray and self._placeless >= _STARTS_WITHOUT_PLACE:
                free = ", ".join(f"{amount:g} {name}" for name, amount in self._free().items())
                why = f"{share.of(workers)} could not be placed {_STARTS_WITHOUT_PLACE} times in a row; free are {free}"
                self.failure = Failure(why, started=False)
                return FAILED
            if self.failure is None:
                console.message("the workers stopped early, with a checkpoint; restarting them", "yellow")
                continue
            if not policy.allows(self.failure, self._newest_images()):
                return FAILED
            console.message(f"{self.failure.cause}; restarting from the last checkpoint", "yellow")
            if self.failure.memory:
                console.phase("waiting for memory")
                self._pause(_MEMORY_PAUSE_S)

    def _wait_for_placement(self, console: View, share: Share) -> int:
        """Wait for enough resources on suitable machines; return the number of workers, 0 if the job is to end.

        Raises UsageError if the machines of the first workers are not suitable.
        """
        low, high = share.workers.low, share.workers.high
        free_abandoned()
        if self._own_ray:
            has = ray.cluster_resources()
            return min(high, *(int(has[name] // amount) for name, amount in share.resources.items()))

        def waiting(held: int) -> bool:
            if held < low:
                console.phase(f"waiting for resources for {counted(low, 'worker')}; there are for {held}")
            return not self._ends

        workers = wait_for_placement(low, high, share.resources, waiting)
        if workers:
            self._inspect(console, share)
        return workers

    def _inspect(self, console: View, share: Share) -> None:
        """Run the preflight on new machines. A problem of a later one is a warning."""
        console.phase("checking the machines")
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
        """Run one group of workers to its end; return its failure, if any."""
        channel, self._decided = start_channel(), 0
        settings = replace(self._settings, attempt=new_attempt())
        payload = {
            "experiment": config.encode(self._experiment),
            "modules": extensions.recorded(),
            "settings": config.encode(settings),
            "threads": share.cpus,
            "channel": channel,
            "cluster": not self._own_ray,
            "waits": self._at_checkpoint is not None,
        }
        outcome: list[BaseException | None] = []
        growth = Growth(0 if self._own_ray else share.workers.high - workers, share.resources, _GROW_AFTER_S)
        self._heard = False
        with temporary_folder("ray") as folder, closing(growth):
            timeout_s = _COLLECTIVE_TIMEOUT_S + max(self._experiment.data.cache.timeout_s, PATIENCE_S)
            name = "-".join(filter(None, (settings.wandb_group, settings.name)))
            if self._own_ray and not share.gpu:
                ready = self._early.ready(share) if self._early else []
                fit = partial(local_group.fit, payload, share, workers, f"{folder}/meeting", timeout_s, ready)
            else:
                from imagegen_dist.ray import train_group  # Ray Train takes seconds to import

                fit = partial(train_group.fit, payload, share, workers, name, str(folder), timeout_s)
            thread = threading.Thread(target=lambda: outcome.append(_caught(fit)), daemon=True)
            thread.start()
            if not self._watch(console, share, thread, channel, growth):
                return None
        if outcome[0] is None:
            return None
        failure = diagnose(outcome[0])
        if not self._heard and not failure.memory and (short := memory_shortage(fitting_nodes(share.resources))):
            failure = Failure(f"the workers could not be started: {short}", MEMORY_HELP, died=True, memory=True)
        return failure

    def _watch(self, console: View, share: Share, thread: threading.Thread, channel: Any, growth: Growth) -> bool:
        """Show a group's progress until it ends, and pass on requests to stop.

        Returns False if the group is abandoned: another driver has the run, or it is to end before it has started.
        """
        inbox, told, asked_s, short = Inbox(channel), "", time.monotonic(), ""
        while thread.is_alive():
            thread.join(_POLL_S)
            self._show(console, channel, inbox)
            if self._lease.lost.is_set() or (self._interruption.asked and not self._heard):
                return False
            if not self._heard and time.monotonic() - asked_s > _SILENCE_S:
                asked_s, before = time.monotonic(), short
                short = memory_shortage(fitting_nodes(share.resources))
                if short and not before:
                    console.message(f"the workers cannot be started: {short}", "yellow")
            why = "stopping: the workers write a checkpoint first" if self._interruption.asked else ""
            if not why and self._heard and growth.has_come():
                more = counted(growth.held, "more worker")
                why = f"resources for {more}: writing a checkpoint, then continuing with them"
            if why or told:
                channel.request_stop.remote()  # repeatedly: a channel that was killed has forgotten it
            if why and not told:
                told = why
                console.message(told, "yellow")
        self._show(console, channel, inbox)
        self._show(console, channel, inbox)  # what arrived while the last request was pending
        return True

    @property
    def _ends(self) -> bool:
        """True if the job is to end: every wait stops."""
        return self._interruption.asked or self._lease.lost.is_set()

    def _pause(self, seconds: float) -> None:
        """Wait, unless the job is to end."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._ends:
            time.sleep(_POLL_S)

    def _free(self) -> dict[str, float]:
        """The resources of this machine that are not reserved."""
        free = ray.available_resources()
        return {name: free.get(name, 0.0) for name in ("CPU", "GPU") if name in ray.cluster_resources()}

    def _show(self, console: View, channel: Any, inbox: Inbox) -> None:
        for kind, payload in inbox.take(_ANSWER_S):
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
                    channel.request_stop.remote()
                channel.let_pass.remote(payload)
            else:
                console.message(payload)

    def _newest_images(self) -> int:
        """Images of the newest checkpoint; -1 if there is none or the storage does not answer."""
        try:
            return newest_images(self._settings.folder)
        except StorageError:
            return -1

    def _close(self, console: Console, code: int, log: Path) -> None:
        """Print the last lines: the failure, or the results and how to continue."""
        if self._complete:
            closing = records.closing_table(self._settings, str(log))
            console.summary(closing, partial(records.last_picture, self._settings))
            if self.missing:
                console.error(f"the model is trained and saved; {self.missing}; the same command measures them again")
        elif code == FAILED and self.failure:
            console.error(self.failure.cause, self.failure.detail)
            where = [("log", str(log)), ("run", self._settings.folder.url)]
            if self._newest_images() >= 0:
                where.append(("continue", records.resume_command(self._settings)))
            console.summary([("", where)])
        else:
            again = records.resume_command(self._settings)
            images = self._newest_images()
            how = f"with a checkpoint at {images:,} images; continue" if images >= 0 else "before the training; again"
            console.message(f"stopped {how}:\n  {again}")


def _caught(action: Callable[[], Any]) -> BaseException | None:
    try:
        action()
    except BaseException as error:
        return error
    return None
