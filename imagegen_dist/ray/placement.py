"""Places for workers on a cluster whose machines come and go."""

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

POLL_S = 0.5
SETTLE_S = 5.0
"""For how long the number of places must not have changed before fewer than the most are taken."""


class Places:
    """Places of one worker each that the cluster is asked for, and keeps for us once it has them.

    Ray's own scheduler gives them: none on a machine that is gone or leaving, or that others use. Those that it does
    not have are a demand that the cluster's autoscaler sees.
    """

    def __init__(self, count: int, resources: Mapping[str, float]) -> None:
        self._groups = [placement_group([dict(resources)]) for _ in range(count)]

    @property
    def held(self) -> int:
        """How many there are."""
        table = placement_group_table()
        return sum(table.get(group.id.hex(), {}).get("state") == "CREATED" for group in self._groups)

    def release(self) -> None:
        """Give all of them back, and ask for none."""
        for group in self._groups:
            remove_placement_group(group)
        self._groups = []


def free_abandoned() -> int:
    """Give back what this job's dead actors have reserved, and say how many placement groups that were.

    Ray gives back an actor's placement group only once the job has ended as well. So a controller of Ray Train's that
    was killed would hold its workers' places for as long as its driver looks for places to start them again.
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
    """Whether a number has been the same for a while."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._number = -1
        self._since = 0.0

    def see(self, number: int) -> bool:
        """Take its present value; whether it has not changed for the time."""
        now = self._clock()
        if number != self._number:
            self._number, self._since = number, now
        return now - self._since >= self._seconds


def wait_for_room(
    low: int,
    high: int,
    resources: Mapping[str, float],
    waiting: Callable[[int], bool],
    settle_s: float = SETTLE_S,
) -> int:
    """How many workers of these resources the cluster has room for: `high`, or fewer once that has settled.

    waiting: called again and again with how many there are while they are fewer than `high`; False gives up, and the
    answer is 0.
    """
    places, steady = Places(high, resources), Steady(settle_s)
    try:
        while (held := places.held) < high:
            if not waiting(held):
                return 0
            if steady.see(held) and held >= low:
                return held
            time.sleep(POLL_S)
        return high
    finally:
        places.release()


class Growth:
    """Room for more workers than run now.

    more: how many more there may be. settle_s: for how long their number must not have changed, where it is not all.
    """

    def __init__(self, more: int, resources: Mapping[str, float], settle_s: float) -> None:
        self.held = 0
        self._more = more
        self._resources = resources
        self._steady = Steady(settle_s)
        self._places: Places | None = None

    def has_come(self) -> bool:
        """Whether there is some now; asked for by the first call, which has to wait until the workers have theirs."""
        if not self._more:
            return False
        if self._places is None:
            self._places = Places(self._more, self._resources)
        self.held = self._places.held
        steady = self._steady.see(self.held)
        return self.held == self._more or (self.held > 0 and steady)

    def close(self) -> None:
        """Give it back."""
        if self._places is not None:
            self._places.release()
