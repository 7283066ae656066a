"""Fréchet distance within and across classes (Benny et al., arXiv:2004.12361: WCFID and BCFID)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class ByClass(NamedTuple):
    """Fréchet distances by class.

    within: the mean over the classes of the distance between a class's generated and its real samples, weighted by the
    frequencies of the real ones. across: the distance between the distributions of the classes' means. classes: their
    number. fewest: samples of the rarest class on either side. The distance of all samples together is no larger than
    the sum of both, for equal frequencies of the classes on both sides and up to the bias of the covariances.
    """

    within: float
    across: float
    classes: int
    fewest: int


class _Gaussian(NamedTuple):
    """mean [F]; factor [F, R], of the covariance, which is the factor times its transpose."""

    mean: Tensor
    factor: Tensor


def frechet_by_class(generated: Tensor, real: Tensor, asked: Tensor, shown: Tensor) -> ByClass | None:
    """Compare features of generated and real samples, [N, F] and [M, F], class by class.

    asked: the class requested for each generated sample, [N]; shown: that of each real one, [M]. Classes with fewer
    than two samples on a side are left out; None if fewer than two remain. nan if a feature is not finite.
    """
    a, b = _counts(asked), _counts(shown)
    classes = sorted(each for each in a.keys() & b.keys() if min(a[each], b[each]) > 1)
    if len(classes) < 2:
        return None
    fewest = min(min(a[each], b[each]) for each in classes)
    if not (torch.isfinite(generated).all() and torch.isfinite(real).all()):
        return ByClass(math.nan, math.nan, len(classes), fewest)
    weights = torch.tensor([b[each] for each in classes], dtype=torch.float64)
    weights /= weights.sum()
    of_generated = [_of_samples(generated[asked == each]) for each in classes]
    of_real = [_of_samples(real[shown == each]) for each in classes]
    distances = [_distance(ours, theirs) for ours, theirs in zip(of_generated, of_real, strict=True)]
    within = float((weights * torch.tensor(distances, dtype=torch.float64)).sum())
    across = _distance(_of_means(of_generated, weights), _of_means(of_real, weights))
    return ByClass(within, across, len(classes), fewest)


def _counts(classes: Tensor) -> dict[int, int]:
    numbers, counts = classes.unique(return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _of_samples(features: Tensor) -> _Gaussian:
    """Mean and unbiased covariance of features [N, F]."""
    rows = features.double()
    mean = rows.mean(0)
    centred = (rows - mean) / math.sqrt(len(rows) - 1)
    return _Gaussian(mean, centred.T if len(rows) <= rows.shape[1] else torch.linalg.qr(centred, mode="r").R.T)


def _of_means(classes: list[_Gaussian], weights: Tensor) -> _Gaussian:
    """Mean and covariance of the classes' means, which occur with these weights."""
    means = torch.stack([each.mean for each in classes])
    mean = weights @ means
    return _Gaussian(mean, ((means - mean) * weights[:, None].sqrt()).T)


def _distance(a: _Gaussian, b: _Gaussian) -> float:
    """The squared Fréchet distance; see `frechet_distance` for the singular values."""
    cross = torch.linalg.svdvals(a.factor.T @ b.factor).sum()
    spread = a.factor.square().sum() + b.factor.square().sum() - 2 * cross
    return max(0.0, float((a.mean - b.mean).square().sum() + spread))
