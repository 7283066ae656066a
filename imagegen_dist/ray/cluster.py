"""The Ray cluster that a job runs on: this machine's own, or the one that RAY_ADDRESS names."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import ray

from imagegen_dist.commands import command
from imagegen_dist.errors import TaskError, UsageError
from imagegen_dist.ray.early import EarlyRay
from imagegen_dist.ray.own_node import address_known
from imagegen_dist.ray.token import TOKEN_ADVICE, keep_to_owner, refused
from imagegen_dist.resources import Demand, Workers, check_available, default_workers, is_own_ray, ray_folder
from imagegen_dist.wording import counted, reason


@dataclass(frozen=True)
class Share:
    """The resources of one training worker: GPUs (0 or 1) and CPU cores, which are its threads."""

    workers: Workers
    gpu: bool
    cpus: int
    # What the cluster lacks for the minimum number of workers; empty if it suffices.
    short_of: str = ""

    @property
    def resources(self) -> dict[str, float]:
        """The resources of one worker in Ray's terms."""
        return {"CPU": float(self.cpus), **({"GPU": 1.0} if self.gpu else {})}

    def of(self, workers: int) -> str:
        """A number of workers with these resources, in words."""
        kind = "1 GPU" if self.gpu else counted(self.cpus, "CPU thread")
        number = counted(workers, "worker")
        return f"{number} of {kind} each, {'NCCL' if self.gpu else 'gloo'}"


@contextmanager
def connected(
    show_logs: bool = True, dashboard: bool = False, *, quiet: bool = False, early: EarlyRay | None = None
) -> Iterator[bool]:
    """Connect to Ray for the block: to RAY_ADDRESS if it is set, as in a submitted job, else to a new local Ray.

    show_logs: forward the output of Ray's processes to this process. dashboard: start one with a local Ray. quiet: do
    not log the start. early: a local Ray whose start has begun, in place of a new one if it succeeds. Yields True for a
    local Ray. Raises UsageError if no Ray answers, TaskError if a local one cannot be started.
    """
    if early and (started := early.join()):
        with started:
            yield True
        return
    logging.getLogger("ray.train.v2._internal.execution.context").setLevel(logging.WARNING)
    if quiet:
        logging.getLogger("ray").setLevel(logging.ERROR)
    address, own = os.environ.get("RAY_ADDRESS", ""), is_own_ray()
    keep_to_owner()
    try:
        if own:
            with address_known(lean=not dashboard):
                ray.init(
                    address="local",
                    include_dashboard=dashboard,
                    log_to_driver=show_logs,
                    logging_level=logging.ERROR if quiet else logging.INFO,
                )
        else:
            ray.init(log_to_driver=show_logs)
    except Exception as error:  # where its start takes too long, Ray raises an Exception of no class of its own
        raise _not_connected(own, address, error) from error
    keep_to_owner()  # Ray may just have created it
    try:
        yield own
    finally:
        ray.shutdown()


def _not_connected(own: bool, address: str, error: Exception) -> UsageError | TaskError:
    """The error for a Ray that did not start, if it is this machine's own, or that did not answer at an address."""
    if own:
        return TaskError(
            f"Ray did not start on this machine ({reason(error)}); check that {ray_folder()} can be written, that "
            f"memory and disk have room, and what `{command('clean')}` lists of dead sessions, then run this again"
        )
    if refused(error):
        return UsageError(f"RAY_ADDRESS {address}: {TOKEN_ADVICE}")
    return UsageError(
        f"RAY_ADDRESS {address}: no Ray answers there ({reason(error)}); start one, or unset RAY_ADDRESS. If one runs "
        f"there, {TOKEN_ADVICE}"
    )


_KEEP_PRIORITY = ("TrainWorker", "ray::IDLE", "raylet/raylet", "gcs_server")


def yield_to_training() -> None:
    """Run the auxiliary processes of a local Ray only when training leaves a core idle.

    Two workers that synchronise in every step both wait if an auxiliary process takes a core from one of them. Raylet
    and GCS, on which a cluster waits, keep their priority, as do training workers, their children, and idle workers,
    which may train after a restart. Does nothing on systems without this scheduling class.
    """
    if not hasattr(os, "SCHED_IDLE"):
        return
    children = psutil.Process().children()
    for process in [*children, *(grandchild for child in children for grandchild in child.children())]:
        with suppress(psutil.Error, OSError):
            title = " ".join(process.cmdline())
            if any(name in title for name in _KEEP_PRIORITY):
                continue
            for thread in process.threads():
                os.sched_setscheduler(thread.id, os.SCHED_IDLE | os.SCHED_RESET_ON_FORK, os.sched_param(0))


def machines() -> list[dict[str, float]]:
    """The resources of each machine of the cluster that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def divide(
    machines: Sequence[Mapping[str, float]], asked: Workers | None, demand: Demand, microbatches: int, own: bool
) -> Share:
    """The resources of each worker, and the number of workers if the user gave none.

    own: the cluster is this machine alone and cannot grow. Raises UsageError if it cannot hold the workers.
    """
    gpus, cpus = demand.gpus, demand.cpus
    use_gpu = any(machine.get("GPU", 0) >= 1 for machine in machines) if gpus is None else gpus > 0
    kind, name = ("GPU", "GPU") if use_gpu else ("CPU", "CPU core")
    available = int(sum(machine.get(kind, 0) for machine in machines))
    if asked is None:
        number = default_workers(available, use_gpu, microbatches)
        asked = Workers(number, number)
    cpus = cpus or _cores(machines, kind, asked.high)
    has = f"{available} {name}{'s' if available != 1 else ''}"
    room = available if use_gpu else available // cpus
    if own and demand.gpus:
        check_available("--gpus", demand.gpus, "GPU", available, asked.low)
    if own and demand.cpus:
        cores = int(sum(machine.get("CPU", 0) for machine in machines))
        check_available("--cpus", demand.cpus, "CPU core", cores, asked.low)
    if own and asked.low > room:
        raise UsageError(f"--workers {asked.low}: this machine has {has}; set --workers to at most {room}")
    need = f"1 worker needs a {name}" if asked.low == 1 else f"{asked.low} workers need a {name} each"
    return Share(asked, use_gpu, cpus, f"{need}, and it has {has}" if asked.low > room else "")


def _cores(machines: Sequence[Mapping[str, float]], kind: str, workers: int) -> int:
    """CPU cores of a worker: its share of a machine with GPUs, or else of all machines."""
    fitting = [machine for machine in machines if machine.get(kind, 0) >= 1]
    if kind == "GPU":
        return max(1, min((int(machine.get("CPU", 0) // machine["GPU"]) for machine in fitting), default=1))
    cores = [int(machine["CPU"]) for machine in fitting]
    return max(1, min(sum(cores) // workers, max(cores, default=1)))
