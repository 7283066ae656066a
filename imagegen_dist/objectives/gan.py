"""Adversarial losses with gradient penalties, unconditional or class-conditional."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from imagegen_dist.objectives.augment import AugmentConfig, augment
from imagegen_dist.objectives.base import Batch, Draw, Phase, Terms
from imagegen_dist.objectives.interface import (
    Build,
    GANOptimConfig,
    GeneratorSampler,
    ObjectiveConfig,
)
from imagegen_dist.objectives.penalties import (
    Critic,
    at_least_float32,
    finite_difference_penalty,
    gradient_penalties,
    interpolate_penalty,
)
from imagegen_dist.schedule import Schedule, constant


@ObjectiveConfig.register
@dataclass(frozen=True)
class GANConfig(ObjectiveConfig):
    """Settings of the adversarial loss.

    With real logits r and fake logits f (arXiv:2501.05441 and the papers that it cites):
    relativistic    D softplus(f - r), G softplus(r - f): each fake is compared with a real of its class
    non-saturating  D softplus(f) + softplus(-r), G softplus(-f)
    hinge           D relu(1 - r) + relu(1 + f), G -f
    wasserstein     D f - r, G -f
    """

    parts = ("generator", "discriminator")
    optimizers = GANOptimConfig
    compiled = ("generator",)

    loss: Literal["relativistic", "non-saturating", "hinge", "wasserstein"] = "relativistic"
    """The adversarial loss."""
    penalty: Literal["none", "r1", "r2", "r1+r2", "wgan-gp"] = "r1+r2"
    """Where the gradient is penalised: at reals (r1), fakes (r2), both, or their interpolates (wgan-gp)."""
    gamma: Schedule = constant(1.0)
    """Weight of the penalty: gamma / 2 * ||dD/dx||^2, or gamma * (||dD/dx|| - 1)^2 for wgan-gp."""
    estimator: Literal["exact", "finite-difference"] = "exact"
    """Exact penalty by double backward, or an estimate from forward passes, which permits compilation."""
    epsilon: float = 0.01
    """Step of the finite difference, in units of the samples' range [-1, 1]."""
    critic_steps: int = 1
    """Discriminator updates per generator update."""
    augment_p: Schedule = constant(0.0)
    """Probability of each augmentation of real and generated samples, from 0 to 1."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Multipliers of p for each augmentation."""

    def __post_init__(self) -> None:
        if self.gamma.minimum < 0 or self.gamma.start < 0:
            raise ValueError(f"gamma {self.gamma} is negative; set --objective.gamma to 0 or more")
        if self.critic_steps < 1:
            raise ValueError(f"critic_steps {self.critic_steps} is below 1; set --objective.critic-steps to 1 or more")
        if self.epsilon <= 0:
            raise ValueError(f"epsilon {self.epsilon} is not positive; set --objective.epsilon above 0")
        if not (0 <= self.augment_p.start <= 1 and 0 <= self.augment_p.end <= 1):
            raise ValueError(
                f"augment_p {self.augment_p} leaves [0, 1]; set --objective.augment-p to a schedule within it"
            )
        if self.penalty == "wgan-gp" and self.estimator != "exact":
            raise ValueError("wgan-gp has no finite-difference estimator; set --objective.estimator exact")

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> "GAN":
        """The loss over both networks."""
        discriminator = networks["discriminator"]
        return GAN(networks["generator"], discriminator, self, build.compiled(discriminator))

    def sampler(self, networks: Mapping[str, nn.Module]) -> GeneratorSampler:
        """The generator."""
        return GeneratorSampler(networks["generator"])


Discriminator = Callable[[Tensor, Tensor | None], Tensor]
"""Samples [B, C, *S] and labels [B] or None -> logits [B]."""


class DiscriminatorPass(NamedTuple):
    """Reals or fakes and their discriminator outputs: samples, their augmented view, its logits [B]."""

    x: Tensor
    view: Tensor
    logits: Tensor


class GAN:
    """A generator and a discriminator, trained in alternating phases, each with its own real samples.

    generator: z [B, Z] and labels [B] or None -> samples [B, C, *S], with Z as `z_dim`. fast_discriminator: the same
    weights for passes without double backward, compiled if possible.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        config: GANConfig,
        fast_discriminator: Discriminator | None = None,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self.config = config
        self._fast = fast_discriminator or discriminator
        self._z_dim = cast(int, generator.z_dim)

    def phases(self) -> Sequence[Phase]:
        """`critic_steps` phases of the discriminator, then one of the generator."""
        critic = Phase("discriminator", self.discriminator, self.discriminator_loss)
        return [*[critic] * self.config.critic_steps, Phase("generator", self.generator, self.generator_loss)]

    def modules(self) -> Mapping[str, nn.Module]:
        """Both networks."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def averaged(self) -> Sequence[str]:
        """The generator."""
        return ["generator"]

    def discriminator_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Adversarial loss and gradient penalty of the discriminator, averaged over the microbatch."""
        penalty = self.config.penalty
        exact = self.config.estimator == "exact"
        discriminator = self.discriminator if exact else self._fast
        with torch.no_grad():
            fake = self._generate(batch, draw)
        samples = {"r1": batch.sample.detach(), "r2": fake}
        for name, x in samples.items():
            x.requires_grad_(exact and name in penalty)
        views = [self._augmented(x, draw) for x in samples.values()]
        logits = self._logits(discriminator, views, batch.label)
        sides = {name: DiscriminatorPass(x, *of) for (name, x), *of in zip(samples.items(), views, logits, strict=True)}

        real_logits, fake_logits = sides["r1"].logits, sides["r2"].logits
        adversarial = discriminator_terms(
            self.config.loss, at_least_float32(real_logits), at_least_float32(fake_logits)
        )
        penalties = self._penalties(lambda x: discriminator(x, batch.label), sides, draw)
        weight = self.config.gamma(draw.images) * (1.0 if penalty == "wgan-gp" else 0.5)
        loss = adversarial + sum((weight * value for value in penalties.values()), start=torch.zeros_like(adversarial))
        terms = {"loss/discriminator": adversarial, "logits/real": real_logits, "logits/fake": fake_logits}
        return loss.mean(), {name: value.detach() for name, value in (terms | penalties).items()}

    def generator_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Adversarial loss of the generator against a new microbatch of reals, averaged over the microbatch."""
        real_logits = torch.zeros(len(batch.sample), device=batch.sample.device)
        if self.config.loss == "relativistic":
            with torch.no_grad():
                real_logits = at_least_float32(self._fast(self._augmented(batch.sample, draw), batch.label))
        fake = self._augmented(self._generate(batch, draw), draw)
        loss = generator_terms(self.config.loss, real_logits, at_least_float32(self._fast(fake, batch.label)))
        return loss.mean(), {"loss/generator": loss.detach()}

    def _generate(self, batch: Batch, draw: Draw) -> Tensor:
        z = draw.normal(len(batch.sample), self._z_dim, dtype=batch.sample.dtype)
        return self.generator(z, batch.label)

    def _augmented(self, x: Tensor, draw: Draw) -> Tensor:
        p = self.config.augment_p(draw.images)
        return augment(x, p, self.config.augment, draw.generator) if p > 0 else x

    def _logits(self, discriminator: Discriminator, views: Sequence[Tensor], label: Tensor | None) -> Sequence[Tensor]:
        """Logits [B] of the real and of the fake views, in a single pass if both need the same gradients.

        One pass over 2 B samples launches half the operators of two. If only one side is penalised, separate passes
        save the other's double backward; a compiled discriminator also needs a fixed batch size. Real and fake of a
        pair are interleaved, so that gradients of parameters on which the relativistic loss does not depend (the last
        bias) cancel to exactly 0.
        """
        if self.config.penalty in ("r1", "r2") or self.config.estimator != "exact":
            return [discriminator(view, label) for view in views]
        labels = None if label is None else label.repeat_interleave(2, dim=0)
        pairs = torch.stack(list(views), dim=1)
        return discriminator(pairs.flatten(0, 1), labels).unflatten(0, (-1, 2)).unbind(1)

    def _penalties(self, critic: Critic, sides: Mapping[str, DiscriminatorPass], draw: Draw) -> dict[str, Tensor]:
        """Each penalty of the config, [B], by its logged name."""
        if self.config.penalty == "wgan-gp":
            real, fake = sides["r1"].view, sides["r2"].view
            position = draw.uniform(len(real), dtype=real.dtype)
            return {"penalty/interpolates": interpolate_penalty(critic, real, fake, position)}
        named = {f"penalty/{name}": side for name, side in sides.items() if name in self.config.penalty}
        if self.config.estimator == "exact":
            values = gradient_penalties([side.x for side in named.values()], [side.logits for side in named.values()])
            return dict(zip(named, values, strict=True))
        return {name: self._finite_difference(critic, side, draw) for name, side in named.items()}

    def _finite_difference(self, critic: Critic, side: DiscriminatorPass, draw: Draw) -> Tensor:
        direction = draw.normal(*side.view.shape, dtype=side.view.dtype)
        return finite_difference_penalty(critic, side.view, side.logits, direction, self.config.epsilon)


def discriminator_terms(loss: str, real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss for each pair. real, fake: logits [B] -> [B]. Formulas: GANConfig."""
    match loss:
        case "relativistic":
            return softplus(fake - real)
        case "non-saturating":
            return softplus(fake) + softplus(-real)
        case "hinge":
            return relu(1 - real) + relu(1 + fake)
        case "wasserstein":
            return fake - real
    raise ValueError(f"{loss!r} is not an adversarial loss")


def generator_terms(loss: str, real: Tensor, fake: Tensor) -> Tensor:
    """The generator's loss for each pair. real, fake: logits [B] -> [B]; only the relativistic loss uses `real`."""
    match loss:
        case "relativistic":
            return softplus(real - fake)
        case "non-saturating":
            return softplus(-fake)
        case "hinge" | "wasserstein":
            return -fake
    raise ValueError(f"{loss!r} is not an adversarial loss")
