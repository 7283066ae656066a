"""The workers of a job and what each of them gets, before Ray has started."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from imagegen_dist.errors import UsageError


def ray_folder() -> Path:
    """Where Ray keeps the folders of its sessions on this machine, those of all users."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"


def is_own_ray() -> bool:
    """True if the job starts a Ray of its own on this machine: RAY_ADDRESS names no cluster."""
    return os.environ.get("RAY_ADDRESS", "") in ("", "local")


@dataclass(frozen=True)
class Workers:
    """The number of training workers: fixed, or between `low` and `high` as machines join and leave."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> Workers:
        """Read N or MIN:MAX. Raises UsageError."""
        match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high:
            raise UsageError(f"--workers {text}: give N or MIN:MAX with 1 <= MIN <= MAX, e.g. 2 or 2:8")
        return cls(low, high)

    def __str__(self) -> str:
        return f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"


_DEFAULT_CPU_WORKERS = 2  # of a job without GPUs, if there are as many cores


@dataclass(frozen=True)
class Demand:
    """What each worker requests, None for its share of the machines: GPUs (0 or 1), CPU cores."""

    gpus: int | None = None
    cpus: int | None = None


def default_workers(available: int, of_gpus: bool, microbatches: int) -> int:
    """The number of workers if the user gives none. available: GPUs, or else CPU cores."""
    return max(1, min(available if of_gpus else min(_DEFAULT_CPU_WORKERS, available), microbatches))


def local_workers(workers: Workers | None, gpus: int, microbatches: int) -> int:
    """The number of workers that a job has on this machine alone. gpus: of this machine."""
    return workers.low if workers else default_workers(gpus or os.cpu_count() or 1, gpus > 0, microbatches)


def local_threads(cpus: int | None, workers: int) -> int:
    """CPU threads of each of these workers on this machine alone. cpus: what the user gave, None for an equal share."""
    return cpus or max(1, (os.cpu_count() or 1) // workers)


def check_demand(gpus: float | None, cpus: int | None, workers: int) -> None:
    """Raise UsageError if this machine, when it is all that the job will have, lacks what `workers` workers request.

    gpus, cpus: of one worker; None for its share. Nothing is checked if RAY_ADDRESS names a cluster, which may grow.
    """
    if not is_own_ray():
        return
    if gpus:
        import torch  # takes a second

        check_available("--gpus", gpus, "GPU", torch.cuda.device_count(), workers)
    if cpus:
        check_available("--cpus", cpus, "CPU core", os.cpu_count() or 1, workers)


def check_available(flag: str, requested: float, name: str, available: int, workers: int) -> None:
    """Raise UsageError if `workers` workers with `requested` GPUs or CPU cores each exceed what is available."""
    if requested * workers <= available:
        return
    has = f"{available or 'no'} {name}{'s' if available > 1 else ''}"
    if requested > available:
        most = f", or set it to at most {available}" if available else ""
        raise UsageError(f"{flag} {requested:g}: this machine has {has}; leave {flag} out{most}")
    fit = int(available / requested)
    raise UsageError(
        f"--workers {workers} with {flag} {requested:g}: this machine has {has}; set --workers to at most {fit}"
    )
