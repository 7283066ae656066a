"""Which device a job that is one process computes on, and what this machine has for workers, before Ray has started."""

import torch

from imagegen_dist.errors import UsageError


def pick_device(asked: str) -> str:
    """The device asked for, by default CUDA where there is one. Raises UsageError for one that there is not."""
    if asked not in ("", "cpu", "cuda"):
        raise UsageError(f"--device {asked}: cpu or cuda")
    best = best_device().type
    if asked == "cuda" and best != "cuda":
        raise UsageError("--device cuda: this machine has none; leave it out, or take cpu")
    return asked or best


def best_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
