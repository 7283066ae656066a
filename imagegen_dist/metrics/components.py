"""Principal components of standardised features, in which distances depend neither on scale nor on redundancy.

Features that hardly vary beside the others are the exception: they are left out.

Random features have arbitrary scales and repeat one another: their raw Fréchet distance is that of the few largest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from imagegen_dist.metrics.frechet import Moments

COMPONENTS = 32
"""Number of components in which distances are taken, fewer if there are fewer features."""

_LEAST_DEVIATION = 0.01
"""Of a feature that counts, in medians of all that vary. One unit of a random network may be above its ReLU's threshold
for a single real sample: divided by its deviation, it would decide the whole distance."""


@dataclass(frozen=True)
class Components:
    """The coordinates of features along the largest principal components of real samples' standardised features.

    origin: the real samples' mean [F]; matrix: [k, F]. Features that do not vary over the real samples, or only a
    hundredth as much as the median one, are left out.
    """

    origin: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, real: Moments, count: int = COMPONENTS) -> "Components":
        """Those of real samples. Raises ValueError for fewer than 2 samples."""
        cov = real.cov.cpu()
        deviation = cov.diagonal().clamp(min=0).sqrt()
        varying = deviation[deviation > 1e-6]
        least = max(1e-6, _LEAST_DEVIATION * float(varying.median())) if len(varying) else 1e-6
        scale = torch.where(deviation > least, 1 / deviation.clamp(min=least), 0)
        _, vectors = torch.linalg.eigh(scale[:, None] * cov * scale)
        return cls(real.mean.cpu(), vectors[:, -count:].T * scale)

    def apply(self, moments: Moments) -> Moments:
        """The moments of these coordinates, from those of the features."""
        return moments.mapped(self.matrix, self.origin)

    def rows(self, features: Tensor) -> Tensor:
        """The coordinates of features [N, F]: [N, k] float64 on the CPU."""
        return (features.double().cpu() - self.origin) @ self.matrix.T
