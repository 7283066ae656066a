"""FactorVAE: a discriminator estimates the total correlation, which the autoencoder minimises (arXiv:1802.05983)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from imagegen_dist.nn.blocks import LEAKY_GAIN, LEAKY_SLOPE
from imagegen_dist.nn.conv import Linear
from imagegen_dist.nn.mlp import mlp
from imagegen_dist.objectives.base import Batch, Draw, Phase, Terms
from imagegen_dist.objectives.interface import AdamConfig, Build, ObjectiveConfig, OptimConfig, VAEOptimConfig
from imagegen_dist.objectives.likelihoods import binarize
from imagegen_dist.objectives.penalties import at_least_float32
from imagegen_dist.objectives.vae import Autoencoder, make_autoencoder, trained_autoencoder
from imagegen_dist.objectives.variational import ObservedConfig, VariationalObjective
from imagegen_dist.schedule import Schedule, constant


@OptimConfig.register
@dataclass(frozen=True)
class FactorVAEOptimConfig(VAEOptimConfig):
    """One optimizer for the autoencoder, one for the discriminator of its latents."""

    tc_discriminator: AdamConfig = field(
        default_factory=lambda: AdamConfig(lr=constant(1e-4), beta1=0.5, beta2=constant(0.9))
    )
    """Optimizer of the discriminator that estimates the total correlation."""


@ObjectiveConfig.register
@dataclass(frozen=True)
class FactorVAEConfig(ObservedConfig):
    """distortion + rate + gamma * total correlation, in nats (arXiv:1802.05983, Eq. 2)."""

    joins_microbatches = True

    optimizers = FactorVAEOptimConfig

    gamma: Schedule = constant(10.0)
    """Weight of the total correlation."""
    discriminator_hidden: tuple[int, ...] = (1000,) * 6
    """Units of the discriminator's hidden layers (appendix A)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.discriminator_hidden, default=1) < 1:
            raise ValueError(
                f"discriminator_hidden {self.discriminator_hidden}: give positive widths, as "
                "--objective.discriminator-hidden 1000,1000"
            )
        if self.gamma.minimum < 0:
            raise ValueError(f"gamma {self.gamma} is negative; set --objective.gamma to 0 or more")

    @property
    def least_microbatch(self) -> int:
        """2: the discriminator permutes the samples of a microbatch."""
        return 2

    def networks(self, build: Build) -> dict[str, nn.Module]:
        """Encoder, decoder, and an MLP z [B, Z] -> logits [B, 2]."""
        networks, random = super().networks(build), build.random("tc_discriminator")
        latent_dims = cast(tuple[int, ...], networks["encoder"].latent_dims)
        widths = prod(latent_dims), *self.discriminator_hidden
        hidden = mlp(widths, partial(nn.LeakyReLU, LEAKY_SLOPE), LEAKY_GAIN, generator=random)
        output = Linear(widths[-1], 2, bias=True, generator=random)
        return {**networks, "tc_discriminator": nn.Sequential(hidden, output)}

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> "FactorVAE":
        """The loss over the three networks."""
        return FactorVAE(networks["encoder"], networks["decoder"], networks["tc_discriminator"], self)

    def autoencoder(self, networks: Mapping[str, nn.Module]) -> Autoencoder:
        """The trained networks as an autoencoder."""
        return trained_autoencoder(networks, self)


class FactorVAE(VariationalObjective[Autoencoder]):
    """An autoencoder and a discriminator of its latents, trained in alternating phases, each with its own real samples.

    tc_discriminator: z [B, Z] -> logits [B, 2], of "drawn from q(z)" and of "drawn from prod_j q(z_j)".
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, tc_discriminator: nn.Module, config: FactorVAEConfig
    ) -> None:
        super().__init__(make_autoencoder(encoder, decoder, config.likelihood))
        self.tc_discriminator = tc_discriminator
        self.config = config

    def phases(self) -> Sequence[Phase]:
        """The autoencoder's phase, then the discriminator's."""
        return [
            *super().phases(),
            Phase("tc_discriminator", self.tc_discriminator, self.tc_discriminator_loss),
        ]

    def modules(self) -> Mapping[str, nn.Module]:
        """The autoencoder's networks and the discriminator."""
        return {**self.autoencoder.modules(), "tc_discriminator": self.tc_discriminator}

    def loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Distortion, rate and estimated total correlation in nats, averaged over the microbatch."""
        x = binarize(batch.sample, self.config.binarize, draw)
        posterior = self.autoencoder.posterior(x, batch.label)
        z, rate = posterior.sample(draw), posterior.kl().flatten(1).sum(1)
        distortion = self.autoencoder.distortion(x, z, batch.label)
        total_correlation = self._log_ratio(z.flatten(1))
        loss = distortion + rate + self.config.gamma(draw.images) * total_correlation
        terms = {
            "loss/autoencoder": loss,
            **self.autoencoder.terms(x, distortion, rate, beta=1.0),
            "vae/total_correlation": total_correlation,
        }
        return loss.mean(), {name: value.detach() for name, value in terms.items()}

    def tc_discriminator_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Cross-entropy in nats of telling q(z) from the product of its marginals, averaged over the microbatch.

        Each side encodes the whole microbatch, with its own noise. Raises ValueError for a microbatch of one sample.
        """
        if len(batch.sample) < 2 * len(draw.generators):
            raise ValueError("a single sample cannot be permuted; set --training.microbatch-size to 2 or more")
        with torch.no_grad():
            x = binarize(batch.sample, self.config.binarize, draw)
            posterior = self.autoencoder.posterior(x, batch.label)
            joint = posterior.sample(draw).flatten(1)
            permuted = permute_dims(posterior.sample(draw).flatten(1), draw)
        joint_ratio, permuted_ratio = self._log_ratio(joint), self._log_ratio(permuted)
        loss = 0.5 * (softplus(-joint_ratio) + softplus(permuted_ratio))
        right = 0.5 * ((joint_ratio > 0).to(loss.dtype) + (permuted_ratio < 0).to(loss.dtype))
        terms = {"loss/tc_discriminator": loss, "tc_discriminator/accuracy": right}
        return loss.mean(), {name: value.detach() for name, value in terms.items()}

    def _log_ratio(self, z: Tensor) -> Tensor:
        """log D(z) - log(1 - D(z)), an estimate of log q(z) - log prod_j q(z_j). z: [B, Z] -> [B]. (Eq. 3)"""
        logits = at_least_float32(self.tc_discriminator(z))
        return logits[:, 0] - logits[:, 1]


def permute_dims(z: Tensor, draw: Draw) -> Tensor:
    """Each latent permuted over its microbatch independently: prod_j q(z_j). z: [B, Z] -> [B, Z]. (Algorithm 1)"""
    return draw.each(lambda part, keys: part.gather(0, keys.argsort(0)), z, draw.uniform(*z.shape))
