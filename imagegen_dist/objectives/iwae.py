"""The importance-weighted autoencoder, and log-likelihoods by importance sampling (arXiv:1509.00519)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Literal

import torch
from torch import Tensor, nn

from imagegen_dist.objectives.base import Batch, Draw, Phase, Terms
from imagegen_dist.objectives.latents import gaussian, standard_normal_log_prob
from imagegen_dist.objectives.likelihoods import (
    LIKELIHOODS,
    BinarizeName,
    Likelihood,
    LikelihoodName,
    binarize,
    check_name,
    check_observation,
)
from imagegen_dist.objectives.vae import make_autoencoder

GradientName = Literal["iwae", "dreg"]


@dataclass(frozen=True)
class IWAEConfig:
    """-log (1/k sum_i w_i) with w = p(x|z) p(z) / q(z|x) (arXiv:1509.00519, Eq. 8); k = 1 is a VAE."""

    # p(x|z).
    likelihood: LikelihoodName = "bernoulli"
    # Whether grey samples become black and white ones: above 0, or with their values as probabilities, anew each time.
    binarize: BinarizeName = "none"
    # Importance samples k of each sample.
    samples: int = 5
    # The encoder's gradient: the bound's own, or the doubly reparameterised one of lower variance (arXiv:1810.04152).
    gradient: GradientName = "iwae"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples {self.samples} is below 1; set --objective.samples")
        check_observation(self.likelihood, self.binarize)
        check_name("gradient", self.gradient, GradientName)

    @property
    def parameters(self) -> int:
        """Raw encoder outputs for each latent."""
        return 2

    @property
    def outputs(self) -> int:
        """Raw decoder channels for each channel of a sample."""
        return LIKELIHOODS[self.likelihood].outputs


class IWAE:
    """One phase: encoder, decoder and the likelihood's own weights."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, config: IWAEConfig) -> None:
        self.autoencoder = make_autoencoder(encoder, decoder, config.likelihood)
        self.config = config

    def phases(self) -> Sequence[Phase]:
        """The autoencoder's only turn."""
        return [Phase("autoencoder", self.autoencoder.trained, self.loss)]

    def modules(self) -> Mapping[str, nn.Module]:
        """Encoder, decoder, and the likelihood where it has weights."""
        return self.autoencoder.modules()

    def averaged(self) -> Sequence[str]:
        """All of them."""
        return list(self.autoencoder.modules())

    def loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """The negative bound in nats, the mean over the microbatch."""
        x, k = binarize(batch.sample, self.config.binarize, draw), self.config.samples
        label = None if batch.label is None else batch.label.repeat_interleave(k, 0)
        posterior = self.autoencoder.posterior(x, batch.label)
        repeated = posterior.repeat(k)
        z = repeated.sample(draw)
        distortion = self.autoencoder.distortion(x.repeat_interleave(k, 0), z, label)
        density = repeated.detach() if self.config.gradient == "dreg" else repeated
        log_weights = (-distortion + standard_normal_log_prob(z) - density.log_prob(z)).unflatten(0, (-1, k))
        bound = log_weights.logsumexp(1) - log(k)
        weights = log_weights.detach().softmax(1)
        if self.config.gradient == "dreg":
            _scale_gradient_(z, weights.flatten())
        rate, mean_distortion = posterior.kl().flatten(1).sum(1), distortion.unflatten(0, (-1, k)).mean(1)
        terms = {
            "loss/autoencoder": -bound,
            **self.autoencoder.terms(x, mean_distortion, rate, beta=1.0),
            "vae/bound": bound,
            "vae/effective_samples": 1 / weights.square().sum(1),
        }
        return -bound.mean(), {name: value.detach() for name, value in terms.items()}


def _scale_gradient_(z: Tensor, factors: Tensor) -> None:
    """Multiply the gradient that goes back through z [B, ...] by constants [B].

    The bound gives sample i the gradient w_i d(log w_i)/dz; the doubly reparameterised one has w_i^2 there, with the
    posterior's density held constant. (arXiv:1810.04152)
    """
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * factors.reshape(-1, *(1 for _ in z.shape[1:])))


@torch.no_grad()
def log_likelihood(
    encoder: nn.Module,
    decoder: nn.Module,
    likelihood: Likelihood,
    x: Tensor,
    draw: Draw,
    k: int,
    chunk: int,
    label: Tensor | None = None,
) -> Tensor:
    """log p(x) in nats by k importance samples, `chunk` of them at a time: [B], float64.

    A lower bound in expectation, which tightens as k grows. x: [B, C, *S]; a pass holds B * chunk samples.
    """
    posterior = gaussian(encoder(x, label))
    total = torch.full((len(x),), -inf, dtype=torch.float64, device=x.device)
    for start in range(0, k, chunk):
        times = min(chunk, k - start)
        repeated = posterior.repeat(times)
        z = repeated.sample(draw)
        labels = None if label is None else label.repeat_interleave(times, 0)
        log_joint = likelihood.log_prob(x.repeat_interleave(times, 0), decoder(z, labels)) + standard_normal_log_prob(z)
        log_weights = (log_joint - repeated.log_prob(z)).double().unflatten(0, (-1, times))
        total = torch.logaddexp(total, log_weights.logsumexp(1))
    return total - log(k)
