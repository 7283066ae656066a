"""Which device a job that is one process computes on, and what this machine has for workers, before Ray has started."""

import torch

from imagegen_dist.errors import UsageError


def pick_device(asked: str) -> str:
    """The device asked for, by default CUDA where there is one. Raises UsageError for one that there is not."""
    if asked not in ("", "cpu", "cuda"):
        raise UsageError(f"--device {asked}: cpu or cuda")
    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise UsageError("--device cuda: this machine has none; leave it out, or take cpu")
    return asked or ("cuda" if has_gpu else "cpu")
