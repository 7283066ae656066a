"""How many trials of a sweep wait or run at once: as many as the cluster, as large as it is now, has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imagegen_dist.sweep.plan import TrialDemand
from imagegen_dist.wording import counted


class Crowd:
    """The trials that have begun and not ended. A cluster that grows gets more of them, without another start.

    Ray Tune starts trials of one worker where there is room, and those that wait are the demand that an autoscaler
    sees: as many may wait as the cluster has room for, and one where it has none, so that it doubles until all have
    room. Workers of a group are not among the resources that Ray Tune counts: as many groups run as fit, and one where
    none fits, which waits for the cluster itself.
    demand: of a trial. at_once: the most groups that may run; None for as many as fit.
    """

    def __init__(self, demand: TrialDemand, at_once: int | None = None) -> None:
        self._demand = demand
        self._at_once = at_once
        self._waiting: set[str] = set()
        self._running: set[str] = set()
        self.room = 0
        """For how many workers there is room."""

    def follow(self, nodes: Sequence[Mapping[str, float]]) -> None:
        """Take the machines that there are now: the resources of each."""
        self.room = room_for(self._demand, nodes)

    @property
    def groups(self) -> int:
        """How many groups of workers may run at once."""
        fit = max(1, self.room // self._demand.workers.high)
        return min(self._at_once or fit, fit)

    def has_room(self) -> bool:
        """Whether another trial may begin."""
        if self._demand.is_group:
            return len(self._waiting) + len(self._running) < self.groups
        return len(self._waiting) < max(1, self.room)

    def began(self, trial: str) -> None:
        """A trial waits for its process."""
        self._waiting.add(trial)

    def started(self, trial: str) -> None:
        """A trial has its process."""
        self._waiting.discard(trial)
        self._running.add(trial)

    def ended(self, trial: str) -> None:
        """A trial is over."""
        self._waiting.discard(trial)
        self._running.discard(trial)


def room_for(demand: TrialDemand, nodes: Sequence[Mapping[str, float]]) -> int:
    """For how many workers such as a trial's the machines have room. nodes: of each its "CPU" and "GPU"."""
    cpus, gpus = demand.cpus or 1, demand.gpus or 0.0
    room = 0
    for node in nodes:
        by_cpu = int(node.get("CPU", 0)) // cpus
        room += min(by_cpu, int(node.get("GPU", 0) / gpus)) if gpus else by_cpu
    return room


def lack_of_room(demand: TrialDemand, nodes: Sequence[Mapping[str, float]]) -> str:
    """What the machines lack for a trial's fewest workers, in words; "" where they have room for them."""
    room = room_for(demand, nodes)
    if room >= demand.workers.low:
        return ""
    has = ", ".join(
        f"{counted(int(node.get('CPU', 0)), 'CPU core')} and {counted(int(node.get('GPU', 0)), 'GPU')}"
        for node in nodes
    )
    return (
        f"a trial needs {demand}, and the cluster has room for {counted(room, 'such worker')} ({has or 'no machine'})"
    )
