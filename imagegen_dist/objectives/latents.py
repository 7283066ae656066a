"""Interpretation of an encoder's raw outputs: a diagonal Gaussian, or the codes of finite scalar quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi, prod, tan

import torch
from torch import Tensor

from imagegen_dist.objectives.base import Draw, Randomness
from imagegen_dist.objectives.penalties import at_least_float32

# Standard deviations from 3e-7 to 22,000: outside this range a latent is unused, or training has diverged.
_LOG_VARIANCE_BOUNDS = (-30.0, 20.0)
# Keeps tanh away from its limits, where rounding would give one level too many (arXiv:2309.15505, appendix).
_FSQ_MARGIN = 1e-3


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian over each sample's latents, q(z|x). mean, log_variance: [B, Z, *s]."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, draw: Draw) -> Tensor:
        """mean + deviation * noise, [B, Z, *s]; differentiable in both parameters."""
        return self.at(draw.normal(*self.mean.shape, dtype=self.mean.dtype))

    def at(self, noise: Tensor) -> Tensor:
        """mean + deviation * noise, [B, Z, *s]."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl(self, prior: Gaussian | None = None) -> Tensor:
        """KL(q || prior) of every latent in nats, [B, Z, *s]; the default prior is N(0, I).

        (arXiv:1312.6114, appendix B)
        """
        if prior is None:
            return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)
        ratio = self.log_variance - prior.log_variance
        distance = (self.mean - prior.mean).square() * (-prior.log_variance).exp()
        return 0.5 * (distance + ratio.exp() - 1 - ratio)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, summed over the latents. z: [B, Z, *s] -> [B]."""
        return log_density(z, self.mean, self.log_variance).flatten(1).sum(1)

    def repeat(self, times: int) -> Gaussian:
        """Each sample's Gaussian repeated `times` times consecutively, [B * times, Z, *s]."""
        return Gaussian(self.mean.repeat_interleave(times, 0), self.log_variance.repeat_interleave(times, 0))

    def detach(self) -> Gaussian:
        """The same Gaussian without gradients."""
        return Gaussian(self.mean.detach(), self.log_variance.detach())


def gaussian(parameters: Tensor) -> Gaussian:
    """The Gaussian of an encoder's raw outputs [B, 2 * Z, *s]: means, then log-variances, in float32 or better.

    Log-variances are clamped to [-30, 20].
    """
    mean, log_variance = at_least_float32(parameters).chunk(2, dim=1)
    return Gaussian(mean, log_variance.clamp(*_LOG_VARIANCE_BOUNDS))


def standard_gaussian(like: Tensor) -> Gaussian:
    """N(0, I) with the shape, dtype and device of `like`."""
    return Gaussian(torch.zeros_like(like), torch.zeros_like(like))


def product(first: Gaussian, second: Gaussian) -> Gaussian:
    """The Gaussian proportional to the product of two densities: precisions add, and the means are weighted by them.

    (arXiv:1602.02282, the posterior of a ladder's level)
    """
    weight = torch.sigmoid(second.log_variance - first.log_variance)  # the first Gaussian's fraction of the precision
    mean = weight * first.mean + (1 - weight) * second.mean
    return Gaussian(mean, -torch.logaddexp(-first.log_variance, -second.log_variance))


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats. z: [B, Z, *s] -> [B]."""
    return -0.5 * (z.square() + log(2 * pi)).flatten(1).sum(1)


def log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(z; mean, exp(log_variance)) of every value; the arguments broadcast."""
    return -0.5 * ((z - mean).square() * (-log_variance).exp() + log_variance + log(2 * pi))


def free_bits_rate(kl: Tensor, nats: float) -> Tensor:
    """A microbatch's mean rate, without a reward for less than `nats` per latent. kl: [B, Z, *s] -> scalar.

    sum_j max(nats, mean KL_j), with the mean over the microbatch (arXiv:1606.04934). The positions of a latent channel
    share their parameters and form one group, with `nats` per position on average.
    """
    positions = prod(kl.shape[2:])
    of_channel = kl.transpose(0, 1).flatten(1).mean(1)
    return of_channel.clamp_min(nats).sum() * positions


@dataclass(frozen=True)
class FSQ:
    """Finite scalar quantisation: each latent channel is rounded to one of a few levels (arXiv:2309.15505).

    levels: number of levels of each latent channel, 2 or more. Raises ValueError otherwise.
    """

    levels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2:
            raise ValueError(
                f"levels {self.levels}: give 2 or more for each latent channel, as --objective.levels 8,6,5"
            )

    @property
    def codebook_size(self) -> int:
        """Number of distinct codes, the product of the levels."""
        return prod(self.levels)

    @property
    def rate(self) -> float:
        """log(codebook size), nats per position: the cost of a code under the uniform prior, and its capacity."""
        return log(self.codebook_size)

    def nats(self, codes: Tensor) -> Tensor:
        """log(levels), the cost of each latent of codes [B, Z, *s] under the uniform prior: [B, Z, *s]."""
        return self._per_channel([log(levels) for levels in self.levels], codes).expand_as(codes)

    def quantize(self, parameters: Tensor) -> Tensor:
        """An encoder's raw outputs -> codes in [-1, 1], [B, Z, *s] -> [B, Z, *s], with a straight-through gradient."""
        bounded = self._bound(at_least_float32(parameters))
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / self._half_widths(bounded)

    def indices(self, codes: Tensor) -> Tensor:
        """The index of each position's code in [0, codebook_size). codes: [B, Z, *s] -> int64 [B, *s].

        Raises ValueError if the codebook is too large for int64 indices.
        """
        half = self._half_widths(codes)
        digits = (codes * half + half).round().to(torch.int64)
        return (digits * self._bases(digits)).sum(1)

    def codes(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The codes at these indices. indices: int64 [B, *s] -> [B, Z, *s]; the inverse of `indices`."""
        numbers = indices.unsqueeze(1)
        digits = numbers // self._bases(numbers) % self._per_channel(self.levels, numbers)
        return self._from_digits(digits.to(dtype))

    def sample(self, draw: Randomness, *size: int) -> Tensor:
        """Codes drawn from the uniform prior. size: B, *s -> [B, Z, *s]."""
        batch, *positions = size
        uniform = draw.uniform(batch, len(self.levels), *positions)
        levels = self._per_channel(self.levels, uniform)
        return self._from_digits((uniform * levels).floor().minimum(levels - 1))

    def _bound(self, z: Tensor) -> Tensor:
        """z within half a level of the integers from -(L // 2) to (L - 1) // 2 (arXiv:2309.15505, appendix)."""
        half = [(levels - 1) * (1 - _FSQ_MARGIN) / 2 for levels in self.levels]
        offset = [0.0 if levels % 2 else 0.5 for levels in self.levels]
        shift = [tan(o / h) for o, h in zip(offset, half, strict=True)]
        squeezed = torch.tanh(z + self._per_channel(shift, z)) * self._per_channel(half, z)
        return squeezed - self._per_channel(offset, z)

    def _half_widths(self, like: Tensor) -> Tensor:
        return self._per_channel([levels // 2 for levels in self.levels], like)

    def _from_digits(self, digits: Tensor) -> Tensor:
        half = self._half_widths(digits)
        return (digits - half) / half

    def _bases(self, like: Tensor) -> Tensor:
        if self.codebook_size > 2**63:
            raise ValueError(
                f"levels {self.levels} give more codes than int64 can index; set --objective.levels to fewer codes"
            )
        return self._per_channel([prod(self.levels[:channel]) for channel in range(len(self.levels))], like)

    def _per_channel(self, values: list[float] | list[int] | tuple[int, ...], like: Tensor) -> Tensor:
        """[1, Z, 1, ...] with as many axes as `like`, on its device and with its dtype."""
        # Filled on the device: copying a list there would stall the host.
        found = torch.stack([like.new_full((), value) for value in values])
        return found.reshape(1, -1, *(1 for _ in like.shape[2:]))
