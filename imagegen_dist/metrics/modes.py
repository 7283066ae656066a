"""Mode coverage: which of a dataset's classes a model generates, and how evenly, according to a classifier.

The protocol of StackedMNIST (arXiv:1611.02163, arXiv:1705.07761): a classifier assigns each sample to a mode; a mode is
covered if at least one sample is assigned to it; the modes' frequencies are compared by KL(samples || data).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Coverage(NamedTuple):
    """modes: number of modes covered. kl: KL(samples || data) of the modes' frequencies, in nats."""

    modes: int
    kl: float


def mode_coverage(counts: Tensor, data: Tensor) -> Coverage:
    """Coverage of the modes by samples. counts, data: [K], numbers of samples and of data samples in each mode.

    The KL is infinite if samples show a mode that the data lack. Raises ValueError without samples or data.
    """
    if counts.shape != data.shape or counts.ndim != 1:
        raise ValueError(
            f"counts have shapes {tuple(counts.shape)} and {tuple(data.shape)}; both must have one entry per mode"
        )
    if min(float(counts.sum()), float(data.sum())) <= 0:
        raise ValueError("modes cannot be counted without samples")
    p, q = counts.double() / counts.sum(), data.double() / data.sum()
    kl = torch.where(p > 0, p * (p.log() - q.log()), 0.0).sum()
    return Coverage(int((counts > 0).sum()), max(0.0, float(kl)))


def perfect_kl(modes: int, samples: int) -> float:
    """The expected KL of a perfect sampler, by chance: (K - 1) / 2N nats, for N much larger than K.

    (Twice N times the KL is asymptotically chi-squared with K - 1 degrees of freedom: Wilks' theorem.)
    """
    return (modes - 1) / (2 * samples)
