"""After which steps all ranks check together whether the run is to end.

A check is an exchange between the ranks, so that all of them have to make it after the same step. It is therefore
planned in steps, from the seconds that the steps took until the previous check, averaged over the ranks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from imagegen_dist.distributed import World, sum_over_ranks

LISTEN_S = 2.0
"""Seconds between two checks. A step is never interrupted: where one takes longer, it is followed by a check."""
MOST_STEPS = 20


class Listening:
    """Plans the checks of a run whose `listen_every` is 0; used by all ranks together.

    clock: seconds from any origin.
    """

    def __init__(self, world: World, device: torch.device, clock: Callable[[], float]) -> None:
        self._world = world
        self._device = device
        self._clock = clock
        self._checked_at = clock()
        self._steps, self._next = 0, 1  # the first step tells how long one takes

    def is_due(self) -> bool:
        """Called after each step: true if a check follows it."""
        self._steps += 1
        return self._steps >= self._next

    def check(self, requested: bool) -> bool:
        """True if any rank was asked to stop; plans the next check. requested: whether this rank was asked."""
        now = self._clock()
        mine = torch.tensor([float(requested), now - self._checked_at], dtype=torch.float64, device=self._device)
        asked, taken = sum_over_ranks(mine, self._world).tolist()
        self._next = steps_until_check(taken / self._world.size / max(self._steps, 1))
        self._steps, self._checked_at = 0, now
        return bool(asked)


def steps_until_check(step_s: float) -> int:
    """Steps until the next check, from 1 to MOST_STEPS, if a step takes `step_s` seconds."""
    return MOST_STEPS if step_s * MOST_STEPS <= LISTEN_S else max(1, int(LISTEN_S / step_s))
