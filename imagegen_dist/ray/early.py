"""A Ray of this machine that starts while the command still reads its settings. Loads without Ray."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn

from imagegen_dist.ray.environment import set_ray_environment
from imagegen_dist.resources import Demand, Workers

if TYPE_CHECKING:
    from imagegen_dist.ray.cluster import Share


class EarlyRay:
    """A local Ray that a thread starts, and workers whose processes already import what training needs.

    Only for a command that ends with its process: while the thread starts processes, only `leave` ends them. The thread
    lives as long as this process, since the kernel ends Ray's processes with the thread that has started them.

    workers, demand: what the user gave, from which the workers' number and size are foreseen.
    """

    def __init__(self, workers: Workers | None = None, demand: Demand | None = None) -> None:
        self._workers = workers
        self._demand = demand or Demand()
        self._settled = threading.Event()
        self._error: BaseException | None = None
        self._stack = ExitStack()
        self._ready: list[Any] = []
        self._share: Share | None = None
        self.used = False
        threading.Thread(target=self._run, name="early Ray", daemon=True).start()

    def _run(self) -> None:
        try:
            set_ray_environment()
            from imagegen_dist.ray import cluster, local_group

            self._stack.enter_context(cluster.connected(quiet=True))
            if not any(machine.get("GPU") for machine in cluster.machines()):
                many = self._workers.high if self._workers else sys.maxsize
                self._share = cluster.divide(cluster.machines(), self._workers, self._demand, many, own=True)
                room = sum(int(machine.get("CPU", 0) // self._share.cpus) for machine in cluster.machines())
                self._ready = local_group.create(self._share, min(self._share.workers.high, room))
        except BaseException as error:
            self._error = error
        self._settled.set()
        threading.Event().wait()

    def join(self) -> ExitStack | None:
        """Wait for Ray, and hand it over: closing the stack shuts it down. None if it did not start.

        Ray gives up a start after 30 s. On a machine with much other work, one that has it to itself may succeed.
        """
        self.used = True
        self._settled.wait()
        if not self._error:
            return self._stack
        from imagegen_dist.ray.own_node import kill_children

        traceback.print_exception(self._error, file=sys.stderr)  # to driver.log
        self._stack.close()
        kill_children()
        return None

    def ready(self, share: Share) -> list[Any]:
        """The workers that were created early, once, if their share is this one."""
        ready, self._ready = self._ready, []
        if ready and self._share is not None and self._share.resources == share.resources:
            return ready
        if ready:
            import ray

            for actor in ready:
                ray.kill(actor)
        return []

    def leave(self, code: int) -> NoReturn:
        """End this process with an exit code, and all of Ray that has started, without waiting for it."""
        from imagegen_dist.ray.own_node import kill_children

        sys.stdout.flush()
        sys.stderr.flush()
        kill_children()
        os._exit(code)
