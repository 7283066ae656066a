"""Likelihoods p(x|z) from a decoder's raw outputs, by name, in nats summed over a sample's values."""

from collections.abc import Mapping
from math import log, pi
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.penalties import at_least_float32

LikelihoodName = Literal["bernoulli", "gaussian", "logistic", "l1", "mse"]
BinarizeName = Literal["none", "threshold", "dynamic"]

# log(1 / 127.5 / sqrt(12)) = -6.09 is the deviation of rounding to 8 bits: a sharper Gaussian models the rounding.
_LOWEST_LOG_SIGMA = -6.0
# As in PixelCNN++ (arXiv:1701.05517): below it, every scale puts all of the mass on one level. Of 8 bits.
_LOWEST_LOG_SCALE = -7.0
# Above it, every scale is flat over the levels.
_HIGHEST_LOG_SCALE = 7.0
_LEVELS = 256  # of samples of 8 bits


class Likelihood(nn.Module):
    """p(x|z) of samples x [B, C, *S] in [-1, 1], from a decoder's raw outputs [B, outputs * C, *S].

    levels: number of values in which a sample is stored, 256 for 8 bits.
    """

    outputs: int
    """Raw channels per channel of a sample."""
    counts_levels = False
    """True if it assigns a probability to each of the levels in which a sample is stored."""

    def __init__(self, levels: int = _LEVELS) -> None:
        super().__init__()
        self.levels = levels
        self._finer = log((levels - 1) / (_LEVELS - 1))
        """Logarithm of how much narrower a level is than one of 8 bits."""

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over channels and positions: [B], in float32 at least."""
        raise NotImplementedError

    def mean(self, raw: Tensor) -> Tensor:
        """The mean of p(x|z), [B, C, *S] in [-1, 1]."""
        raise NotImplementedError

    def check(self, x: Tensor) -> None:
        """Raise ValueError if the likelihood does not apply to samples like x. Synchronises: not for the hot path."""
        _check_range(x)


class Bernoulli(Likelihood):
    """Each value is white with probability sigmoid(raw), else black.

    Grey values are treated as probabilities, (x + 1) / 2: their term is a cross-entropy, bounded below by their
    entropy, and not a log-likelihood. Binarise the samples to compare log-likelihoods.
    """

    outputs = 1

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        target = (at_least_float32(x) + 1) / 2
        return -binary_cross_entropy_with_logits(at_least_float32(raw), target, reduction="none").flatten(1).sum(1)

    def mean(self, raw: Tensor) -> Tensor:
        return torch.tanh(at_least_float32(raw) / 2)


class GaussianLikelihood(Likelihood):
    """N(raw, sigma^2) with one learned sigma for all values: sigma-VAE (arXiv:2006.13202).

    A density over values in [-1, 1], so that its distortion can be negative. A softplus keeps log sigma above -6, since
    8-bit data would otherwise drive it to minus infinity where values are constant; above -11.5 for 16 bits.
    """

    outputs = 1

    def __init__(self, levels: int = _LEVELS) -> None:
        super().__init__(levels)
        self.raw_log_sigma = nn.Parameter(torch.zeros(()))

    @property
    def log_sigma(self) -> Tensor:
        """The log of the standard deviation, scalar."""
        lowest = _LOWEST_LOG_SIGMA - self._finer
        return lowest + softplus(self.raw_log_sigma - lowest)

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        log_sigma = self.log_sigma
        squares = ((at_least_float32(x) - at_least_float32(raw)) * (-log_sigma).exp()).square()
        return -(0.5 * (squares + log(2 * pi)) + log_sigma).flatten(1).sum(1)

    def mean(self, raw: Tensor) -> Tensor:
        return at_least_float32(raw).clamp(-1, 1)


class DiscretizedLogistic(Likelihood):
    """Probabilities of the levels of 8 or 16 bits: a logistic's mass within half a level of each (arXiv:1606.04934).

    The raw outputs are the location and the log-scale of every value, in units of the range [-1, 1]. The lowest and the
    highest level take the tails, so that the probabilities sum to 1.
    """

    outputs = 2
    counts_levels = True

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        x = at_least_float32(x)
        location, log_scale = at_least_float32(raw).chunk(2, dim=1)
        inverse_scale = (-log_scale.clamp(_LOWEST_LOG_SCALE - self._finer, _HIGHEST_LOG_SCALE)).exp()
        half_level = 1 / (self.levels - 1)
        upper = (x - location + half_level) * inverse_scale
        lower = (x - location - half_level) * inverse_scale
        lowest, highest = x < half_level - 1, x > 1 - half_level
        # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)), without cancellation in the tails.
        within = torch.log(-torch.expm1(-2 * half_level * inverse_scale))
        below = torch.where(highest, 0, logsigmoid(upper))
        above = torch.where(lowest, 0, logsigmoid(-lower))
        return (below + above + torch.where(lowest | highest, 0, within)).flatten(1).sum(1)

    def mean(self, raw: Tensor) -> Tensor:
        """The location: the mode, which the tails do not shift."""
        return at_least_float32(raw).chunk(2, dim=1)[0].clamp(-1, 1)

    def check(self, x: Tensor) -> None:
        super().check(x)
        level = (x.double() + 1) * (self.levels - 1) / 2
        # float32 values near 1 are 6e-8 apart, which is 0.002 of a level of 16 bits.
        if (level - level.round()).abs().max() > max(1e-3, 2e-7 * self.levels):
            raise ValueError(
                f"the logistic likelihood needs {self.levels.bit_length() - 1}-bit samples, which these are not; set "
                "--objective.likelihood to l1"
            )


class L1(Likelihood):
    """Sum of absolute differences: a Laplace density of scale 1 without its constant, log 2 per value."""

    outputs = 1

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        return -(at_least_float32(x) - at_least_float32(raw)).abs().flatten(1).sum(1)

    def mean(self, raw: Tensor) -> Tensor:
        return at_least_float32(raw).clamp(-1, 1)


class SquaredError(Likelihood):
    """Sum of squared differences: a Gaussian density of variance 1/2 without its constant, log(pi) / 2 per value."""

    outputs = 1

    def log_prob(self, x: Tensor, raw: Tensor) -> Tensor:
        return -(at_least_float32(x) - at_least_float32(raw)).square().flatten(1).sum(1)

    def mean(self, raw: Tensor) -> Tensor:
        return at_least_float32(raw).clamp(-1, 1)


LIKELIHOODS: Mapping[LikelihoodName, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "gaussian": GaussianLikelihood,
    "logistic": DiscretizedLogistic,
    "l1": L1,
    "mse": SquaredError,
}
"""The class of each likelihood, by its name in a config."""


def likelihood_for(decoder: nn.Module, name: LikelihoodName) -> Likelihood:
    """A new likelihood of that name for the samples of a decoder, whose `stored_levels` is set if it is not 256."""
    return LIKELIHOODS[name](int(getattr(decoder, "stored_levels", _LEVELS)))


def binarize(x: Tensor, how: BinarizeName, draw: Draw) -> Tensor:
    """Grey samples -> samples of -1 and 1, [B, C, *S] -> [B, C, *S]; "none" returns x itself.

    threshold: 1 above 0. dynamic: 1 with probability (x + 1) / 2, drawn anew each time (as in arXiv:1509.00519).
    """
    match how:
        case "none":
            return x
        case "threshold":
            white = x > 0
        case "dynamic":
            white = draw.uniform(*x.shape, dtype=x.dtype) < (x + 1) / 2
    return white.to(x.dtype) * 2 - 1


def check_name(field: str, name: str, allowed: Any) -> None:
    """Raise ValueError unless a config's field is one of the names of its Literal type."""
    if name not in get_args(allowed):
        flag = f"--objective.{field.replace('_', '-')}"
        raise ValueError(f"{field} {name!r} is not known; set {flag} to one of {', '.join(get_args(allowed))}")


def check_observation(likelihood: LikelihoodName, how: BinarizeName) -> None:
    """Raise ValueError if a name is not known, or if samples are binarised for a likelihood of grey values."""
    check_name("likelihood", likelihood, LikelihoodName)
    check_name("binarize", how, BinarizeName)
    if how != "none" and likelihood != "bernoulli":
        raise ValueError(
            f"binarize {how!r} needs the bernoulli likelihood, not {likelihood!r}; set --objective.likelihood "
            "to bernoulli or --objective.binarize to none"
        )


def is_probability(likelihood: Likelihood, how: BinarizeName) -> bool:
    """True if p(x|z) is a probability of the samples as stored or binarised, so that bits per dimension are defined."""
    return likelihood.counts_levels or (how != "none" and isinstance(likelihood, Bernoulli))


def _check_range(x: Tensor) -> None:
    lowest, highest = x.min().item(), x.max().item()
    if not -1 <= lowest <= highest <= 1:
        raise ValueError(f"samples from {lowest:g} to {highest:g} leave [-1, 1], the range of every likelihood")
