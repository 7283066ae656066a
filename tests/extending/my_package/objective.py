"""A loss of one's own: the least-squares GAN (arXiv:1611.04076, Eq. 9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imagegen_dist.objectives.base import Batch, Draw, Phase, Terms
from imagegen_dist.objectives.interface import Build, GANOptimConfig, GeneratorSampler, ObjectiveConfig


@ObjectiveConfig.register
@dataclass(frozen=True)
class LeastSquaresConfig(ObjectiveConfig):
    """D minimises (D(x) - real)^2 + D(G(z))^2, and G minimises (D(G(z)) - real)^2."""

    parts = ("generator", "discriminator")
    optimizers = GANOptimConfig

    real: float = 1.0
    """What the discriminator is to say of a real sample."""

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> "LeastSquares":
        """The loss over the two networks."""
        return LeastSquares(networks["generator"], networks["discriminator"], self.real)

    def sampler(self, networks: Mapping[str, nn.Module]) -> GeneratorSampler:
        """What is used after training: the generator."""
        return GeneratorSampler(networks["generator"])


class LeastSquares:
    """Two phases that take turns."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module, real: float) -> None:
        self.generator, self.discriminator, self.real = generator, discriminator, real

    def phases(self) -> Sequence[Phase]:
        return [
            Phase("discriminator", self.discriminator, self.discriminator_loss),
            Phase("generator", self.generator, self.generator_loss),
        ]

    def modules(self) -> Mapping[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def averaged(self) -> Sequence[str]:
        return ["generator"]

    def discriminator_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        with torch.no_grad():
            fake = self._generate(batch, draw)
        real_logits, fake_logits = (self.discriminator(x, batch.label) for x in (batch.sample, fake))
        loss = (real_logits - self.real).square() + fake_logits.square()
        return loss.mean(), {"loss/discriminator": loss.detach()}

    def generator_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        loss = (self.discriminator(self._generate(batch, draw), batch.label) - self.real).square()
        return loss.mean(), {"loss/generator": loss.detach()}

    def _generate(self, batch: Batch, draw: Draw) -> Tensor:
        z = draw.normal(len(batch.sample), self.generator.z_dim)
        return self.generator(z, batch.label)
