"""Which device a job that is one process computes on, and what this machine has for workers, before Ray has started."""

import os

import torch

from imagegen_dist.launch.environment import is_own_ray
from imagegen_dist.launch.flags import UsageError


def pick_device(asked: str) -> str:
    """The device asked for, by default CUDA where there is one. Raises UsageError for one that there is not."""
    if asked not in ("", "cpu", "cuda"):
        raise UsageError(f"--device {asked}: cpu or cuda")
    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise UsageError("--device cuda: this machine has none; leave it out, or take cpu")
    return asked or ("cuda" if has_gpu else "cpu")


def check_demand(gpus: float | None, cpus: int | None, workers: int) -> None:
    """Raise UsageError where this machine, if it is all that the job will have, lacks what `workers` workers ask for.

    gpus, cpus: of one worker; None for its share. Nothing is checked where RAY_ADDRESS names a cluster, which may grow.
    """
    if not is_own_ray():
        return
    if gpus:
        check_room_here("--gpus", gpus, "GPU", torch.cuda.device_count(), workers)
    if cpus:
        check_room_here("--cpus", cpus, "CPU core", os.cpu_count() or 1, workers)


def check_room_here(flag: str, asked: float, name: str, available: int, workers: int) -> None:
    """Raise UsageError where `workers` workers of `asked` GPUs or CPU cores each do not fit into what there is."""
    if asked * workers <= available:
        return
    has = f"{available or 'no'} {name}{'s' if available > 1 else ''}"
    if asked > available:
        most = f", or set it to at most {available}" if available else ""
        raise UsageError(f"{flag} {asked:g}: this machine has {has}; leave {flag} out{most}")
    fit = int(available / asked)
    raise UsageError(
        f"--workers {workers} with {flag} {asked:g}: this machine has {has}; set --workers to at most {fit}"
    )
