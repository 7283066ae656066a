"""Fréchet distance between two Gaussians fitted to features (Heusel et al., arXiv:1706.08500, Eq. 6)."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class Moments:
    """Streaming first and second moments of F-dimensional features: float64 sums on one device.

    Sums are additive, so that the result does not depend on how samples are divided into batches, ranks or files (up to
    the reassociation of float64 sums).
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        if dim < 1:
            raise ValueError(f"features must have at least 1 dimension, not {dim}")
        self.dim = dim
        self.count = 0
        self._sum = torch.zeros(dim, dtype=torch.float64, device=device)
        self._outer = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Add features [B, F], of any floating dtype."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features have shape {tuple(features.shape)}; [B, {self.dim}] is expected")
        rows = features.detach().to(self._sum.device, torch.float64)
        self.count += len(rows)
        self._sum += rows.sum(0)
        self._outer.addmm_(rows.T, rows)

    def merge(self, other: "Moments") -> "Moments":
        """The moments of the union of both sets of samples."""
        if other.dim != self.dim:
            raise ValueError(f"moments of {self.dim} and of {other.dim} dimensions cannot be merged")
        return self._with(
            self.count + other.count,
            self._sum + other._sum.to(self._sum.device),
            self._outer + other._outer.to(self._outer.device),
        )

    def reduce(self, all_reduce: Callable[[Tensor], Tensor]) -> "Moments":
        """The moments over all ranks' samples. all_reduce sums a tensor over the ranks; each rank calls it once."""
        count = torch.tensor([self.count], dtype=torch.float64, device=self._sum.device)
        total = all_reduce(torch.cat([count, self._sum, self._outer.flatten()]))
        return self._with(int(total[0]), total[1 : 1 + self.dim], total[1 + self.dim :].view(self.dim, self.dim))

    @property
    def mean(self) -> Tensor:
        """Sample mean [F], float64."""
        self._require(1)
        return self._sum / self.count

    @property
    def cov(self) -> Tensor:
        """Unbiased sample covariance [F, F], float64."""
        self._require(2)
        return (self._outer - torch.outer(self._sum, self.mean)) / (self.count - 1)

    @property
    def second(self) -> Tensor:
        """Mean outer product of the features with themselves [F, F], float64: not centred."""
        self._require(1)
        return self._outer / self.count

    def mapped(self, matrix: Tensor, origin: Tensor) -> "Moments":
        """The moments of matrix (x - origin), [k, F] and [F], in float64, on the matrix's device."""
        total, outer = self._sum.to(matrix.device), self._outer.to(matrix.device)
        crossed = torch.outer(total, origin)
        outer = outer - crossed - crossed.T + self.count * torch.outer(origin, origin)
        mapped = self._with(self.count, matrix @ (total - self.count * origin), matrix @ outer @ matrix.T)
        mapped.dim = len(matrix)
        return mapped

    def encode(self) -> dict[str, Tensor]:
        """Tensors that `decode` restores exactly, for a cache."""
        return {"count": torch.tensor(self.count), "sum": self._sum.cpu(), "outer": self._outer.cpu()}

    @classmethod
    def decode(cls, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu") -> "Moments":
        """Moments from what `encode` returned."""
        moments = cls(len(tensors["sum"]), device)
        return moments._with(int(tensors["count"]), tensors["sum"].to(device), tensors["outer"].to(device))

    def _with(self, count: int, sum_: Tensor, outer: Tensor) -> "Moments":
        moments = object.__new__(Moments)
        moments.dim, moments.count, moments._sum, moments._outer = self.dim, count, sum_, outer
        return moments

    def _require(self, samples: int) -> None:
        if self.count < samples:
            raise ValueError(f"at least {samples} samples are needed, not {self.count}")


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance ||mu_a - mu_b||^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2).

    nan if a feature was not finite. Covariances may be rank-deficient. Raises ValueError with fewer than 2 samples on a
    side, or unequal dimensions.
    """
    if a.dim != b.dim:
        raise ValueError(f"features of {a.dim} and of {b.dim} dimensions cannot be compared")
    cov_a, cov_b = a.cov.cpu(), b.cov.cpu()
    mean_gap = a.mean.cpu() - b.mean.cpu()
    if not all(bool(torch.isfinite(part).all()) for part in (cov_a, cov_b, mean_gap)):
        return math.nan
    # tr (A^1/2 B A^1/2)^1/2 is the sum of the singular values of A^1/2 B^1/2. Any factors with A = L L^T will do;
    # unlike the eigenvalues of the product, singular values lose no digits to a square root.
    cross = torch.linalg.svdvals(_factor(cov_a).T @ _factor(cov_b)).sum()
    distance = mean_gap.square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(0.0, float(distance))


def _factor(cov: Tensor) -> Tensor:
    """L [F, rank] with L L^T = cov, by a symmetric eigendecomposition; eigenvalues at rounding error are dropped."""
    values, vectors = torch.linalg.eigh((cov + cov.T) / 2)
    kept = values > values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, kept] * values[kept].sqrt()
