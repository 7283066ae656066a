"""Between the training workers and the driver: rows and messages come one way, a wish to stop goes the other."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from imagegen_dist.training.checkpoint import Checkpoint

SEEN = "seen"
"""Of a sweep's trial: (the name of its run, the images that it has seen)."""

_POLL_S = 1.0
_DECISION_POLL_S = 0.05


class Relay:
    """The actor's state. It never fails a run: workers send without waiting for an answer."""

    def __init__(self) -> None:
        self._events: deque[tuple[str, Any]] = deque(maxlen=10_000)
        self._stop = False
        self._reached = 0
        self._passed = 0

    def send(self, kind: str, payload: Any) -> None:
        """Take a "phase", a "row", a "message" or "ended" from a worker, and SEEN from a trial."""
        self._events.append((kind, payload))

    def take(self) -> list[tuple[str, Any]]:
        """What has come since the last call."""
        events = list(self._events)
        self._events.clear()
        return events

    def request_stop(self) -> None:
        """Ask the workers to end in good order."""
        self._stop = True

    def stop_requested(self) -> bool:
        """Whether they were asked to."""
        return self._stop

    def may_pass(self, number: int) -> bool:
        """Whether the workers may go on from the checkpoint of that number; the driver is told once that they wait."""
        if number > self._reached:
            self._reached = number
            self._events.append(("checkpoint", number))
        return number <= self._passed

    def let_pass(self, number: int) -> None:
        """Let the workers go on from the checkpoint of that number."""
        self._passed = number


def start_relay() -> Any:
    """Start the actor on this node and return its handle. Killed, it comes back, without what it was told."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lasting = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Relay).options(num_cpus=0, scheduling_strategy=here, **lasting).remote()


class Inbox:
    """The driver's end of a relay: what has come, without waiting for a relay that does not answer."""

    def __init__(self, relay: Any) -> None:
        self._relay = relay
        self._asked: Any = None

    def take(self, timeout_s: float) -> list[tuple[str, Any]]:
        """What has come since the last call; nothing where the relay does not answer within so many seconds.

        A question that is still open is waited for again by the next call: what it brings is not lost.
        """
        if self._asked is None:
            self._asked = self._relay.take.remote()
        done, _ = ray.wait([self._asked], timeout=timeout_s)
        if not done:
            return []
        asked, self._asked = self._asked, None
        try:
            events: list[tuple[str, Any]] = ray.get(asked)
        except ray.exceptions.RayError:  # the relay was killed, and comes back
            return []
        return events


def listen(relay: Any, told: Callable[[], None]) -> Callable[[], None]:
    """Call `told` once the relay was asked to stop, from a thread of its own; the function that ends this."""
    over = threading.Event()

    def poll() -> None:
        while not over.is_set():
            with suppress(ray.exceptions.RayError):
                if ray.get(relay.stop_requested.remote(), timeout=10):
                    told()
                    return
            over.wait(_POLL_S)

    threading.Thread(target=poll, name="relay", daemon=True).start()
    return over.set


class RelayedEvents:
    """A worker's end: implements imagegen_dist.run.Events.

    leads: whether this worker speaks for all. Each of them asks for the driver's wish to stop: between two steps one of
    them would be enough, but within an evaluation they work apart.
    leaving: asked on all ranks together whether a machine of theirs is about to be taken away: in how many seconds, or
    None. waits: whether the driver decides at each checkpoint whether the run goes on.
    """

    def __init__(self, relay: Any, leads: bool, leaving: Callable[[], float | None], waits: bool = False) -> None:
        self._relay = relay
        self._leads = leads
        self._leaving = leaving
        self._waits = waits
        self._checkpoints = 0
        self._stop = threading.Event()
        listen(relay, self._stop.set)

    def row(self, row: dict[str, float]) -> None:
        """Send a row of metrics."""
        self._relay.send.remote("row", row)

    def message(self, text: str) -> None:
        """Send something that the user should read."""
        self._relay.send.remote("message", text)

    def phase(self, text: str) -> None:
        """Send what is being done now."""
        self._relay.send.remote("phase", text)

    def ended(self, complete: bool, missing: str = "") -> None:
        """Send how the run ended, as of run.Outcome, and wait until it has arrived: the process may be gone next."""
        ray.get(self._relay.send.remote("ended", (complete, missing)))

    def stop_requested(self) -> bool:
        """Whether the driver has asked the workers to end, or a machine of theirs is about to be taken away."""
        left_s = self._leaving()
        if left_s is not None and self._leads:
            self.message(f"a machine will be taken away in {left_s:.0f} s: checkpoint, and on without it")
        return self._stop.is_set() or left_s is not None

    def interrupted(self) -> bool:
        """Whether the driver has asked the workers to end, as far as this one has heard."""
        return self._stop.is_set()

    def checkpoint(self, published: Callable[[], Checkpoint | None]) -> None:
        """Wait for the checkpoint, and for the driver, where it decides there; else it finds them by itself."""
        if not self._waits:
            return
        published()
        self._checkpoints += 1
        while not ray.get(self._relay.may_pass.remote(self._checkpoints)):
            time.sleep(_DECISION_POLL_S)
        if ray.get(self._relay.stop_requested.remote()):
            self._stop.set()
