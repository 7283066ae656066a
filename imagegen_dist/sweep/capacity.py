"""How many trials may be active at once, and whether the cluster can hold one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imagegen_dist.sweep.plan import TrialDemand
from imagegen_dist.wording import counted


class Capacity:
    """Counts active trials against a limit. A paused trial of a population is not active.

    limit: the most trials that may be active; None for no limit beside the cluster's resources.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._active: set[str] = set()

    def acquire(self, trial_id: str) -> bool:
        """Count the trial as active, and return True, if the limit allows it or it is active already."""
        if trial_id not in self._active and not self.has_room():
            return False
        self._active.add(trial_id)
        return True

    def release(self, trial_id: str) -> None:
        """The trial has ended or is paused."""
        self._active.discard(trial_id)

    def has_room(self) -> bool:
        """True if another trial may become active."""
        return self.limit is None or len(self._active) < self.limit


def concurrent_groups(demand: TrialDemand, nodes: Sequence[Mapping[str, float]], at_once: int | None) -> int:
    """The number of trials of several workers that may run at once: as many as fit, at least one, at most `at_once`.

    Ray Tune does not count the resources of their workers. A single group that does not fit waits for the cluster.
    """
    fit = max(1, places(demand, nodes) // demand.workers.high)
    return min(at_once or fit, fit)


def places(demand: TrialDemand, nodes: Sequence[Mapping[str, float]]) -> int:
    """The number of a trial's workers that the nodes can hold, given the "CPU" and "GPU" of each node."""
    needed = demand.resources
    return sum(min(int(node.get(name, 0) / amount) for name, amount in needed.items()) for node in nodes)


def missing_resources(demand: TrialDemand, nodes: Sequence[Mapping[str, float]]) -> str:
    """What the nodes lack for the smallest number of workers of a trial, in words; "" if nothing."""
    found = places(demand, nodes)
    if found >= demand.workers.low:
        return ""
    has = [f"{counted(int(n.get('CPU', 0)), 'CPU core')} and {counted(int(n.get('GPU', 0)), 'GPU')}" for n in nodes]
    return (
        f"a trial needs {demand}, and the cluster has room for {counted(found, 'such worker')} "
        f"({', '.join(has) or 'no machine'})"
    )
