"""Which of a dataset's classes a model makes, and how evenly: mode coverage, to a classifier.

The protocol of StackedMNIST (arXiv:1611.02163, arXiv:1705.07761): a classifier decides what each sample shows; a mode
is hit that one sample or more shows; how far the modes' frequencies are from the data's is KL(samples || data).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Coverage(NamedTuple):
    """modes: how many were hit. kl: KL(samples || data) of the modes' frequencies, in nats."""

    modes: int
    kl: float


def mode_coverage(counts: Tensor, data: Tensor) -> Coverage:
    """The modes that samples hit. counts, data: [K], how many samples and how many of the data show each mode.

    The KL is infinite where samples show a mode that the data do not have. Raises ValueError without samples or data.
    """
    if counts.shape != data.shape or counts.ndim != 1:
        raise ValueError(f"counts of shapes {tuple(counts.shape)} and {tuple(data.shape)}; both are one for each mode")
    if min(float(counts.sum()), float(data.sum())) <= 0:
        raise ValueError("modes cannot be counted without samples")
    p, q = counts.double() / counts.sum(), data.double() / data.sum()
    kl = torch.where(p > 0, p * (p.log() - q.log()), 0.0).sum()
    return Coverage(int((counts > 0).sum()), max(0.0, float(kl)))


def perfect_kl(modes: int, samples: int) -> float:
    """The KL that a perfect sampler is expected to have, by chance alone: (K - 1) / 2N nats, for N well above K.

    (Twice N times the KL is asymptotically chi-squared with K - 1 degrees of freedom: Wilks' theorem.)
    """
    return (modes - 1) / (2 * samples)
