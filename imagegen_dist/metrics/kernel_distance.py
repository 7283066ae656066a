"""Kernel distances: squared maximum mean discrepancies of two sets of features (arXiv:1801.01401, 2410.05203)."""

import math

import torch
from torch import Tensor

from imagegen_dist.metrics.frechet import Moments
from imagegen_dist.noise import check_seed, keyed_generator

SUBSETS, SUBSET_SIZE = 100, 1000
"""Number of random subsets, and number of samples per side in each."""


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> tuple[float, float]:
    """(mean, standard deviation) over random subsets of the unbiased estimate, which can be negative.

    a: [N, F]; b: [M, F]. Each subset has `subset_size` samples per side, drawn without replacement by the seed. nan if
    a feature was not finite. Raises ValueError if a side has fewer samples.
    """
    fewest = min(len(a), len(b))
    if not 2 <= subset_size <= fewest:
        raise ValueError(
            f"kid compares subsets of {subset_size:,} samples, and one side has {fewest:,}; set --kid-subset-size to 2 "
            f"to {fewest:,}, or give more samples"
        )
    a, b = a.double(), b.double()
    if not (a.isfinite().all() and b.isfinite().all()):
        return math.nan, math.nan
    generator = keyed_generator(check_seed(seed))
    estimates = torch.stack(
        [
            mmd2(a[_draw(len(a), subset_size, generator)], b[_draw(len(b), subset_size, generator)])
            for _ in range(subsets)
        ]
    )
    return float(estimates.mean()), float(estimates.std(correction=0))


def mmd2(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy under (x·y / F + 1)^3: [N, F], [M, F] -> []. (Eq. 4)"""
    return _mean_of_pairs(_kernel(a, a)) + _mean_of_pairs(_kernel(b, b)) - 2 * _kernel(a, b).mean()


def jedi(a: Moments, b: Moments) -> float:
    """100 times the squared maximum mean discrepancy under (x·y / F)^2, over all pairs; JEDi in V-JEPA's features.

    Under this kernel it is the squared distance of the mean outer products, so that sums over the samples give it
    exactly. Never negative; of two sets from one distribution, it falls as 1/N. nan if a feature was not finite. Raises
    ValueError if dimensions differ or a side has no samples. (arXiv:2410.05203)
    """
    if a.dim != b.dim:
        raise ValueError(f"features of {a.dim} and of {b.dim} dimensions cannot be compared")
    return 100 * float((a.second.cpu() - b.second.cpu()).square().sum()) / a.dim**2


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1).pow(3)


def _mean_of_pairs(kernel: Tensor) -> Tensor:
    """The mean without the diagonal, over pairs of different samples."""
    return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))


def _draw(count: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)[:size]
