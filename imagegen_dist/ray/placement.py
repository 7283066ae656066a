"""Resources for workers on a cluster whose machines join and leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import ray
from ray import PlacementGroupID
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

_POLL_S = 0.5
_SETTLE_S = 5.0
"""Seconds for which the number of placements must be stable before fewer than the maximum are accepted."""


class Places:
    """Reservations of one worker each, as Ray placement groups.

    Ray's scheduler grants them, never on a machine that is lost, draining or used by others. Requests that it cannot
    grant are demand that the cluster's autoscaler sees.
    """

    def __init__(self, count: int, resources: Mapping[str, float]) -> None:
        self._groups = [placement_group([dict(resources)]) for _ in range(count)]

    @property
    def held(self) -> int:
        """The number of reservations that are granted."""
        table = placement_group_table()
        return sum(table.get(group.id.hex(), {}).get("state") == "CREATED" for group in self._groups)

    def release(self) -> None:
        """Release all reservations and requests."""
        for group in self._groups:
            remove_placement_group(group)
        self._groups = []


def free_abandoned() -> int:
    """Release the placement groups of this job's dead actors, and return their number.

    Ray releases an actor's placement group only after the job has ended as well. A killed controller of Ray Train would
    otherwise hold its workers' resources for as long as its driver waits for resources to restart them.
    """
    job = ray.get_runtime_context().get_job_id()
    freed = 0
    for row in state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(row)
        made_by_actor = group.creator_job_id.hex() == job and group.creator_actor_id.strip(b"\xff")
        if made_by_actor and group.creator_actor_dead and group.state != PlacementGroupTableData.REMOVED:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
            freed += 1
    return freed


class Steady:
    """Tells if a number has been constant for some time."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._number = -1
        self._since = 0.0

    def see(self, number: int) -> bool:
        """Take the current value; True if it has been constant for the time."""
        now = self._clock()
        if number != self._number:
            self._number, self._since = number, now
        return now - self._since >= self._seconds


def wait_for_placement(
    low: int,
    high: int,
    resources: Mapping[str, float],
    waiting: Callable[[int], bool],
    settle_s: float = _SETTLE_S,
) -> int:
    """Wait until the cluster can place workers of these resources; return how many: `high`, or fewer once stable.

    waiting: called repeatedly with the current number while it is below `high`; if it returns False, the wait ends and
    the result is 0.
    """
    places, steady = Places(high, resources), Steady(settle_s)
    try:
        while (held := places.held) < high:
            if not waiting(held):
                return 0
            if steady.see(held) and held >= low:
                return held
            time.sleep(_POLL_S)
        return high
    finally:
        places.release()


class Growth:
    """Resources for more workers than are running.

    more: the maximum number of further workers. settle_s: seconds for which their number must be stable if it is less.
    """

    def __init__(self, more: int, resources: Mapping[str, float], settle_s: float) -> None:
        self.held = 0
        self._more = more
        self._resources = resources
        self._steady = Steady(settle_s)
        self._places: Places | None = None

    def has_come(self) -> bool:
        """True if further workers can be placed. The first call requests them: only after the workers have started."""
        if not self._more:
            return False
        if self._places is None:
            self._places = Places(self._more, self._resources)
        self.held = self._places.held
        steady = self._steady.see(self.held)
        return self.held == self._more or (self.held > 0 and steady)

    def close(self) -> None:
        """Release the reservations."""
        if self._places is not None:
            self._places.release()
