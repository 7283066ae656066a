"""An autoencoder's loss of one's own: the Wasserstein autoencoder with maximum mean discrepancy (arXiv:1711.01558)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imagegen_dist.objectives.base import Batch, Draw, Terms
from imagegen_dist.objectives.interface import Build, ObjectiveConfig
from imagegen_dist.objectives.likelihoods import binarize
from imagegen_dist.objectives.vae import Autoencoder, make_autoencoder, trained_autoencoder
from imagegen_dist.objectives.variational import ObservedConfig, VariationalObjective


@ObjectiveConfig.register
@dataclass(frozen=True)
class WAEConfig(ObservedConfig):
    """distortion + weight * MMD between the microbatch's latents and as many draws of the prior."""

    weight: float = 100.0
    """Weight of the discrepancy."""

    @property
    def least_microbatch(self) -> int:
        """The discrepancy compares samples of a microbatch."""
        return 2

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> "WAE":
        """The loss over encoder and decoder."""
        return WAE(make_autoencoder(networks["encoder"], networks["decoder"], self.likelihood), self)

    def autoencoder(self, networks: Mapping[str, nn.Module]) -> Autoencoder:
        """What is used after training: encoder and decoder."""
        return trained_autoencoder(networks, self)


class WAE(VariationalObjective[Autoencoder]):
    """One phase, which trains encoder and decoder together."""

    def __init__(self, autoencoder: Autoencoder, config: WAEConfig) -> None:
        super().__init__(autoencoder)
        self.config = config

    def loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        x = binarize(batch.sample, self.config.binarize, draw)
        posterior = self.autoencoder.posterior(x, batch.label)
        z = posterior.sample(draw)
        distortion = self.autoencoder.distortion(x, z, batch.label)
        discrepancy = mmd(z.flatten(1), draw.normal(*z.flatten(1).shape))
        loss = distortion + self.config.weight * discrepancy
        rate = posterior.kl().flatten(1).sum(1)
        terms = {"loss/autoencoder": loss, **self.autoencoder.terms(x, distortion, rate, beta=0.0)}
        return loss.mean(), {name: value.detach() for name, value in terms.items()}


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of samples [N, Z] and [N, Z] with an inverse multiquadratic kernel, a scalar."""
    scale = 2.0 * a.shape[1]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return scale / (scale + torch.cdist(x, y).square())

    others = 1 - torch.eye(len(a), device=a.device)
    within = ((kernel(a, a) + kernel(b, b)) * others).sum() / others.sum()
    return within - 2 * kernel(a, b).mean()
