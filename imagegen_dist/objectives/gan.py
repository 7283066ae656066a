"""Adversarial losses with gradient penalties, class-conditional or not."""

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
    """The adversarial game.

    With real logits r and fake logits f (arXiv:2501.05441 and RECIPES of the papers named):
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
    """Inputs whose gradients are penalised: reals (r1), fakes (r2), both, or their interpolates (wgan-gp)."""
    gamma: Schedule = constant(1.0)
    """Weight of the penalty: gamma / 2 * ||dD/dx||^2, or gamma * (||dD/dx|| - 1)^2 for wgan-gp."""
    estimator: Literal["exact", "finite-difference"] = "exact"
    """Exact penalty by double backward, or an estimate from forward passes, with which the discriminator can
    compile."""
    epsilon: float = 0.01
    """Step of the finite difference, in units of the samples' range [-1, 1]."""
    critic_steps: int = 1
    """Discriminator turns for each generator turn."""
    augment_p: Schedule = constant(0.0)
    """Probability of each augmentation of real and generated samples, from 0 to 1."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Which augmentations, and how strong they are."""

    def __post_init__(self) -> None:
        if self.gamma.minimum < 0 or self.gamma.start < 0:
            raise ValueError(f"gamma {self.gamma} is negative; set --objective.gamma to 0 or more")
        if self.critic_steps < 1:
            raise ValueError(f"critic_steps {self.critic_steps} is below 1; set --objective.critic-steps")
        if self.epsilon <= 0:
            raise ValueError(f"epsilon {self.epsilon} is not positive; set --objective.epsilon")
        if not (0 <= self.augment_p.start <= 1 and 0 <= self.augment_p.end <= 1):
            raise ValueError(f"augment_p {self.augment_p} leaves [0, 1]; set --objective.augment-p")
        if self.penalty == "wgan-gp" and self.estimator != "exact":
            raise ValueError("wgan-gp has no finite-difference estimator; set --objective.estimator exact")

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> "GAN":
        """The game of the two networks."""
        discriminator = networks["discriminator"]
        return GAN(networks["generator"], discriminator, self, build.compiled(discriminator))

    def sampler(self, networks: Mapping[str, nn.Module]) -> GeneratorSampler:
        """The generator."""
        return GeneratorSampler(networks["generator"])


Discriminator = Callable[[Tensor, Tensor | None], Tensor]
"""Samples [B, C, *S] and labels [B] or None to logits [B]."""


class DiscriminatorPass(NamedTuple):
    """Reals or fakes on their way through the discriminator: samples, their augmented view, its logits [B]."""

    x: Tensor
    view: Tensor
    logits: Tensor


class GAN:
    """A generator and a discriminator that take turns; every turn sees reals of its own.

    generator: z [B, Z] and labels [B] or None to samples [B, C, *S], with Z as `z_dim`. fast_discriminator: the same
    weights for passes without double backward, where a compiled one is at hand.
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
        """`critic_steps` turns of the discriminator, then one of the generator."""
        critic = Phase("discriminator", self.discriminator, self.discriminator_loss)
        return [*[critic] * self.config.critic_steps, Phase("generator", self.generator, self.generator_loss)]

    def modules(self) -> Mapping[str, nn.Module]:
        """Both networks."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def averaged(self) -> Sequence[str]:
        """The generator is what inference needs."""
        return ["generator"]

    def discriminator_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Adversarial loss and penalty of the discriminator, the mean over the microbatch."""
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
        """Adversarial loss of the generator against a fresh microbatch of reals, the mean over it."""
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
        """Logits [B] of the reals' and of the fakes' view, in one pass where both need the same gradients.

        One pass over 2 B samples has half the operators of two. Where one side alone is penalised, its own pass saves
        the other's double backward; a compiled discriminator keeps to one batch size. Pairs lie side by side, so that
        the gradients of what the relativistic loss does not depend on, a last bias, cancel out to exactly 0.
        """
        if self.config.penalty in ("r1", "r2") or self.config.estimator != "exact":
            return [discriminator(view, label) for view in views]
        labels = None if label is None else label.repeat_interleave(2, dim=0)
        pairs = torch.stack(list(views), dim=1)
        return discriminator(pairs.flatten(0, 1), labels).unflatten(0, (-1, 2)).unbind(1)

    def _penalties(self, critic: Critic, sides: Mapping[str, DiscriminatorPass], draw: Draw) -> dict[str, Tensor]:
        """Each penalty that the config names, [B], by the name under which it is logged."""
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
    raise ValueError(f"{loss!r} is no adversarial loss")


def generator_terms(loss: str, real: Tensor, fake: Tensor) -> Tensor:
    """The generator's loss for each pair. real, fake: logits [B] -> [B]; only the relativistic one looks at real."""
    match loss:
        case "relativistic":
            return softplus(real - fake)
        case "non-saturating":
            return softplus(-fake)
        case "hinge" | "wasserstein":
            return -fake
    raise ValueError(f"{loss!r} is no adversarial loss")
