"""The Ray cluster that a job runs on: this machine's own, or the one that RAY_ADDRESS names."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import ray

from imagegen_dist.launch.flags import UsageError
from imagegen_dist.launch.options import Workers

DEFAULT_CPU_WORKERS = 2


@dataclass(frozen=True)
class Share:
    """What one training worker gets: GPUs (0 or 1) and CPU cores, which are its threads."""

    workers: Workers
    gpu: bool
    cpus: int
    # What the cluster lacks now for the fewest workers asked for; empty where it has room.
    short_of: str = ""

    def __str__(self) -> str:
        number = self.workers
        plural = "worker" if number.high == 1 else "workers"
        kind = "1 GPU" if self.gpu else f"{self.cpus} CPU thread{'s' if self.cpus > 1 else ''}"
        return f"{number} {plural} of {kind} each, {'NCCL' if self.gpu else 'gloo'}"


@contextmanager
def connected(show_logs: bool = True) -> Iterator[bool]:
    """A connection to Ray for the block: RAY_ADDRESS where it is set, as in a submitted job, else a Ray of our own.

    show_logs: whether what Ray's processes print comes to this process's output. Yields whether it is our own. Raises
    UsageError where no Ray answers.
    """
    logging.getLogger("ray.train.v2._internal.execution.context").setLevel(logging.WARNING)
    address = os.environ.get("RAY_ADDRESS", "")
    own = address in ("", "local")
    try:
        if own:
            ray.init(address="local", include_dashboard=False, log_to_driver=show_logs)
        else:
            ray.init(log_to_driver=show_logs)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise UsageError(
            f"RAY_ADDRESS {address}: no Ray answers there ({line}); start one, or unset RAY_ADDRESS"
        ) from error
    try:
        yield own
    finally:
        ray.shutdown()


_KEEP_PRIORITY = ("RayTrainWorker", "ray::IDLE", "raylet/raylet", "gcs_server")


def yield_to_training() -> None:
    """Let a Ray of our own run its helpers where training leaves a core idle.

    Two workers that meet in every step both wait where a helper takes a core from one of them. Raylet and GCS, whose
    answers a cluster waits for, keep their priority, as do the training workers, what those start, and idle workers,
    which may train after a restart. Does nothing where the system has no such scheduling class.
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


def divide(asked: Workers | None, microbatches: int, own: bool) -> Share:
    """What each worker gets of the cluster, and how many there are where the user did not say.

    Raises UsageError where this machine cannot hold them; a shared cluster may still grow.
    """
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    available = gpus or cpus
    if asked is None:
        number = min(gpus or min(DEFAULT_CPU_WORKERS, cpus), microbatches)
        asked = Workers(number, number)
    kind = "GPU" if gpus else "CPU core"
    has = f"{available} {kind}{'s' if available != 1 else ''}"
    if own and asked.low > available:
        raise UsageError(f"--workers {asked.low}: this machine has {has}; set --workers to at most {available}")
    short_of = f"{asked.low} workers need a {kind} each, and it has {has}" if asked.low > available else ""
    return Share(asked, gpus > 0, max(1, cpus // asked.high), short_of)
