"""The channel between training workers and driver: rows and messages one way, a request to stop the other way."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from imagegen_dist.training.checkpoint import Checkpoint

SEEN = "seen"
"""Event of a sweep's trial: (name of its run, images seen)."""

_POLL_S = 1.0
_DECISION_POLL_S = 0.05


class _EventChannel:
    """The actor. It never fails a run: workers send without waiting for an answer."""

    def __init__(self) -> None:
        self._events: deque[tuple[str, Any]] = deque(maxlen=10_000)
        self._stop = False
        self._reached = 0
        self._passed = 0

    def send(self, kind: str, payload: Any) -> None:
        """Take a "phase", "row", "message" or "ended" of a worker, or SEEN of a trial."""
        self._events.append((kind, payload))

    def take(self) -> list[tuple[str, Any]]:
        """The events since the last call."""
        events = list(self._events)
        self._events.clear()
        return events

    def request_stop(self) -> None:
        """Request an orderly end of the workers."""
        self._stop = True

    def stop_requested(self) -> bool:
        """True if the end was requested."""
        return self._stop

    def may_pass(self, number: int) -> bool:
        """True if the workers may continue from the checkpoint of that number; tells the driver once that they wait."""
        if number > self._reached:
            self._reached = number
            self._events.append(("checkpoint", number))
        return number <= self._passed

    def let_pass(self, number: int) -> None:
        """Let the workers continue from the checkpoint of that number."""
        self._passed = number


def start_channel() -> Any:
    """Start the actor on this node and return its handle. If it is killed, Ray restarts it with empty state."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lasting = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(_EventChannel).options(num_cpus=0, scheduling_strategy=here, **lasting).remote()


class Inbox:
    """The driver's end of the channel, which never waits long for an answer."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._asked: Any = None

    def take(self, timeout_s: float) -> list[tuple[str, Any]]:
        """The events since the last call; none if the channel does not answer in time.

        A pending request is waited for again by the next call, so that its events are not lost.
        """
        if self._asked is None:
            self._asked = self._channel.take.remote()
        done, _ = ray.wait([self._asked], timeout=timeout_s)
        if not done:
            return []
        asked, self._asked = self._asked, None
        try:
            events: list[tuple[str, Any]] = ray.get(asked)
        except ray.exceptions.RayError:  # the actor was killed, and Ray restarts it
            return []
        return events


def listen(channel: Any, told: Callable[[], None]) -> Callable[[], None]:
    """Call `told` from a thread once a stop is requested; returns a function that ends the thread."""
    over = threading.Event()

    def poll() -> None:
        while not over.is_set():
            with suppress(ray.exceptions.RayError):
                if ray.get(channel.stop_requested.remote(), timeout=10):
                    told()
                    return
            over.wait(_POLL_S)

    threading.Thread(target=poll, name="channel", daemon=True).start()
    return over.set


class Outbox:
    """A worker's end of the channel; implements imagegen_dist.run.Events.

    leads: True for rank 0, which sends on behalf of all. Every rank polls for the request to stop: between steps one of
    them would suffice, but during an evaluation the ranks work independently.
    leaving: called on all ranks together; seconds until a machine is preempted, or None. waits: whether the driver
    decides at each checkpoint if the run continues.
    """

    def __init__(self, channel: Any, leads: bool, leaving: Callable[[], float | None], waits: bool = False) -> None:
        self._channel = channel
        self._leads = leads
        self._leaving = leaving
        self._waits = waits
        self._checkpoints = 0
        self._stop = threading.Event()
        listen(channel, self._stop.set)

    def row(self, row: dict[str, float]) -> None:
        """Send a row of metrics."""
        self._channel.send.remote("row", row)

    def message(self, text: str) -> None:
        """Send a message for the user."""
        self._channel.send.remote("message", text)

    def phase(self, text: str) -> None:
        """Send the current activity."""
        self._channel.send.remote("phase", text)

    def ended(self, complete: bool, missing: str = "") -> None:
        """Send the run's outcome (run.Outcome) and wait for its arrival: the process may end next."""
        ray.get(self._channel.send.remote("ended", (complete, missing)))

    def stop_requested(self) -> bool:
        """True if the driver has requested the end, or a machine is about to be preempted."""
        left_s = self._leaving()
        if left_s is not None and self._leads:
            self.message(
                f"a machine will be preempted in {left_s:.0f} s: writing a checkpoint, then continuing without it"
            )
        return self._stop.is_set() or left_s is not None

    def interrupted(self) -> bool:
        """True if this worker has received the request to end."""
        return self._stop.is_set()

    def checkpoint(self, published: Callable[[], Checkpoint | None]) -> None:
        """If the driver decides at checkpoints, wait for this one and for the decision."""
        if not self._waits:
            return
        published()
        self._checkpoints += 1
        while not ray.get(self._channel.may_pass.remote(self._checkpoints)):
            time.sleep(_DECISION_POLL_S)
        if ray.get(self._channel.stop_requested.remote()):
            self._stop.set()
