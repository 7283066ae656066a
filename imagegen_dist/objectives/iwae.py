"""The importance-weighted autoencoder (arXiv:1509.00519)."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Literal

from torch import Tensor, nn

from imagegen_dist.objectives.base import Batch, Draw, Terms
from imagegen_dist.objectives.interface import Build, ObjectiveConfig
from imagegen_dist.objectives.latents import standard_normal_log_prob
from imagegen_dist.objectives.likelihoods import binarize, check_name
from imagegen_dist.objectives.vae import Autoencoder, make_autoencoder, trained_autoencoder
from imagegen_dist.objectives.variational import ObservedConfig, VariationalObjective, repeat_label

GradientName = Literal["iwae", "dreg"]


@ObjectiveConfig.register
@dataclass(frozen=True)
class IWAEConfig(ObservedConfig):
    """-log (1/k sum_i w_i) with w = p(x|z) p(z) / q(z|x) (arXiv:1509.00519, Eq. 8); k = 1 is a VAE."""

    joins_microbatches = True

    samples: int = 5
    """Importance samples k per data sample."""
    gradient: GradientName = "iwae"
    """Gradient of the encoder: that of the bound, or the doubly reparameterised one with lower variance
    (arXiv:1810.04152).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise ValueError(f"samples {self.samples} is below 1; set --objective.samples to 1 or more")
        check_name("gradient", self.gradient, GradientName)

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> "IWAE":
        """The loss over encoder and decoder."""
        return IWAE(networks["encoder"], networks["decoder"], self)

    def autoencoder(self, networks: Mapping[str, nn.Module]) -> Autoencoder:
        """The trained networks as an autoencoder."""
        return trained_autoencoder(networks, self)


class IWAE(VariationalObjective[Autoencoder]):
    """One phase: encoder, decoder and the likelihood's own weights."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, config: IWAEConfig) -> None:
        super().__init__(make_autoencoder(encoder, decoder, config.likelihood))
        self.config = config

    def loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """The negative bound in nats, averaged over the microbatch."""
        x, k = binarize(batch.sample, self.config.binarize, draw), self.config.samples
        label = repeat_label(batch.label, k)
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
    """Multiply the gradient that flows back through z [B, ...] by constants [B].

    The gradient of the bound weighs d(log w_i)/dz of sample i by w_i; the doubly reparameterised one by w_i^2, with the
    parameters of the posterior's density held constant. (arXiv:1810.04152)
    """
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * factors.reshape(-1, *(1 for _ in z.shape[1:])))
