"""Adversarial losses with gradient penalties, unconditional or class-conditional."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu, softplus

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.objectives.adaptive import AdaptiveConfig, AdaptiveProbability
from imagegen_dist.objectives.augment import Augmentation, AugmentConfig, Drawn, Transform
from imagegen_dist.objectives.base import Batch, Draw, Phase, Terms
from imagegen_dist.objectives.interface import (
    Build,
    GANOptimConfig,
    GeneratorSampler,
    ObjectiveConfig,
)
from imagegen_dist.objectives.penalties import (
    at_least_float32,
    finite_difference_penalty,
    interpolate_penalty,
    squared_norms,
    with_gradients,
)
from imagegen_dist.objectives.recognise import recognition_loss
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
    joins_microbatches = True

    loss: Literal["relativistic", "non-saturating", "hinge", "wasserstein"] = "relativistic"
    """The adversarial loss."""
    penalty: Literal["none", "r1", "r2", "r1+r2", "wgan-gp"] = "r1+r2"
    """Where the gradient is penalised: at reals (r1), fakes (r2), both, or their interpolates (wgan-gp)."""
    gamma: Schedule = constant(1.0)
    """Weight of the penalty: gamma / 2 * ||dD/dx||^2, or gamma * (||dD/dx|| - 1)^2 for wgan-gp."""
    penalty_every: int = 1
    """Steps from one penalty to the next, which weighs as much as all of them together (arXiv:1912.04958)."""
    estimator: Literal["exact", "finite-difference"] = "exact"
    """Exact penalty by double backward, or an estimate from forward passes."""
    epsilon: float = 0.01
    """Step of the finite difference, in units of the samples' range [-1, 1]."""
    critic_steps: int = 1
    """Discriminator updates per generator update."""
    augment_p: Schedule = constant(0.0)
    """Probability p of each augmentation of real and generated samples, from 0 to 1."""
    auxiliary_classifier: Schedule = constant(0.0)
    """Weight of a classifier on the discriminator's features, which learns the labels of reals and whose loss on fakes
    the generator lowers too (arXiv:1610.09585); 0 for none. Without labels there is none either."""
    truncation: float = 1.0
    """Factor by which latents are scaled to their mean wherever the trained model samples: in grids and figures, for
    whoever loads it, and in exports (arXiv:1809.11096 draws them truncated). 1 for none; training has none."""
    adaptive_augment: float = 0.0
    """Target of overfitting, between 0 and 1, that p follows from the first augment_p on; 0: p is augment_p."""
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)
    """How quickly p follows."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Multipliers of p for each augmentation."""

    def __post_init__(self) -> None:
        if self.gamma.minimum < 0 or self.gamma.start < 0:
            raise ValueError(f"gamma {self.gamma} is negative; set --objective.gamma to 0 or more")
        if self.critic_steps < 1:
            raise ValueError(f"critic_steps {self.critic_steps} is below 1; set --objective.critic-steps to 1 or more")
        if self.penalty_every < 1:
            raise ValueError(
                f"penalty_every {self.penalty_every} is below 1; set --objective.penalty-every to 1 for every step"
            )
        if self.auxiliary_classifier.minimum < 0:
            raise ValueError(
                f"auxiliary_classifier {self.auxiliary_classifier} is negative; set "
                "--objective.auxiliary-classifier to 0 or more"
            )
        if self.epsilon <= 0:
            raise ValueError(f"epsilon {self.epsilon} is not positive; set --objective.epsilon above 0")
        if not (0 <= self.augment_p.start <= 1 and 0 <= self.augment_p.end <= 1):
            raise ValueError(
                f"augment_p {self.augment_p} leaves [0, 1]; set --objective.augment-p to a schedule within it"
            )
        if not 0 < self.truncation <= 1:
            raise ValueError(f"truncation {self.truncation} is outside (0, 1]; set --objective.truncation 1 for none")
        if not 0 <= self.adaptive_augment < 1:
            raise ValueError(
                f"adaptive_augment {self.adaptive_augment} is not a target of overfitting; set "
                "--objective.adaptive-augment between 0 and 1, or 0 for a probability that augment_p gives"
            )
        if self.penalty == "wgan-gp" and self.estimator != "exact":
            raise ValueError("wgan-gp has no finite-difference estimator; set --objective.estimator exact")

    @property
    def classifies(self) -> bool:
        """Whether there is an auxiliary classifier at any time."""
        return max(self.auxiliary_classifier.start, self.auxiliary_classifier.end) > 0

    @property
    def period(self) -> int:
        """Steps from one penalty to the next."""
        return 1 if self.penalty == "none" else self.penalty_every

    @property
    def held_out_every(self) -> int:
        """Those of the adaptive probability, if there is one."""
        return self.adaptive.every if self.adaptive_augment else 0

    def networks(self, build: Build) -> dict[str, nn.Module]:
        """Both networks, the discriminator with a classifier if there is to be one."""
        if not self.classifies:
            return super().networks(build)
        classifying = build.network("discriminator", classifies=True)
        return {"generator": build.network("generator"), "discriminator": classifying}

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> "GAN":
        """The loss over both networks. Raises ValueError if the augmentation does not fit the samples."""
        Augmentation(self.augment).check(build.shape)
        return GAN(networks["generator"], networks["discriminator"], self, build.compiled, build.conditions)

    def sampler(self, networks: Mapping[str, nn.Module]) -> GeneratorSampler:
        """The generator, its latents scaled by the truncation."""
        return GeneratorSampler(networks["generator"], self.truncation)


Compile = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Takes a function of tensors and returns it, compiled or as it is."""


class Noise(NamedTuple):
    """All random numbers of one loss over B samples, so that the loss is a function of tensors.

    z: latents, [B, Z]. augmentation: of reals and fakes, or None. position: of the interpolates of wgan-gp, [B].
    directions: of finite differences, [B, C, *S] for each penalty.
    """

    z: Tensor
    augmentation: Drawn | None
    position: Tensor | None = None
    directions: Sequence[Tensor] = ()


class GAN:
    """A generator and a discriminator, trained in alternating phases, each with its own real samples.

    generator: z [B, Z] and labels [B] or None -> samples [B, C, *S], with Z as `z_dim`. discriminator: samples and
    labels -> logits [B], or, called with classify=True, these and what it recognises [B, K]. compiled: applied to both
    losses, each of which is one function of tensors. conditions: of samples labelled with named conditions.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        config: GANConfig,
        compiled: Compile = lambda function: function,
        conditions: Conditions | None = None,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self.config = config
        self.conditions = conditions
        self._discriminator_terms = compiled(self._compute_discriminator_terms)
        self._generator_terms = compiled(self._compute_generator_terms)
        self._augmentation = Augmentation(config.augment)
        self._classifies = config.classifies and getattr(discriminator, "classifier", None) is not None
        self._z_dim = cast(int, generator.z_dim)
        self._adaptive: AdaptiveProbability | None = None
        if config.adaptive_augment:
            device, start = next(discriminator.parameters()).device, config.augment_p(0)
            self._adaptive = AdaptiveProbability(config.adaptive, config.adaptive_augment, start, device)

    def phases(self) -> Sequence[Phase]:
        """`critic_steps` phases of the discriminator, then one of the generator."""
        critic = Phase("discriminator", self.discriminator, self.discriminator_loss)
        return [*[critic] * self.config.critic_steps, Phase("generator", self.generator, self.generator_loss)]

    def modules(self) -> Mapping[str, nn.Module]:
        """Both networks, and the state of an adaptive augmentation."""
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        return networks if self._adaptive is None else {**networks, "augmentation": self._adaptive}

    def averaged(self) -> Sequence[str]:
        """The generator."""
        return ["generator"]

    def discriminator_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Adversarial loss and gradient penalty of the discriminator, averaged over the batch."""
        x = batch.sample
        noise, weight = self._noise(x, draw, views=2), None
        if self.config.penalty != "none" and draw.step % self.config.penalty_every == 0:
            if self.config.penalty == "wgan-gp":
                noise = noise._replace(position=draw.uniform(len(x), dtype=x.dtype))
            elif self.config.estimator != "exact":
                directions = tuple(draw.normal(*x.shape, dtype=x.dtype) for _ in self._penalised)
                noise = noise._replace(directions=directions)
            gamma = self.config.gamma(draw.images) * (1.0 if self.config.penalty == "wgan-gp" else 0.5)
            weight = _scalar(gamma * self.config.penalty_every, x)
        return self._discriminator_terms(x, batch.label, noise, weight, self._classifier_weight(x, draw))

    def generator_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Adversarial loss of the generator against new reals, averaged over the batch."""
        noise = self._noise(batch.sample, draw, views=2 if self.config.loss == "relativistic" else 1)
        return self._generator_terms(batch.sample, batch.label, noise, self._classifier_weight(batch.sample, draw))

    @torch.no_grad()
    def measure(self, batch: Batch, held_out: Batch, draw: Draw) -> Tensor:
        """Logits of training, held-out and generated samples, [3, B], augmented as in the losses."""
        noise = self._noise(batch.sample, draw, views=3)
        fake = self.generator(noise.z, batch.label)
        samples = torch.stack([batch.sample, held_out.sample, fake], dim=1)
        transform = self._transform(noise, batch.sample)
        views = transform.apply(samples.flatten(0, 1)).unflatten(0, (-1, 3)).unbind(1)
        labels = (batch.label, held_out.label, batch.label)
        return torch.stack([self.discriminator(view, label) for view, label in zip(views, labels, strict=True)])

    def follow(self, means: Tensor, batch_size: int) -> Terms:
        """Let p follow the mean logits of training, held-out and generated samples, [3]."""
        assert self._adaptive is not None
        return self._adaptive.follow(means, max(batch_size, self.config.adaptive.every))

    @property
    def _penalised(self) -> list[str]:
        """The penalties of the config: r1 at reals, r2 at fakes."""
        return [name for name in ("r1", "r2") if name in self.config.penalty]

    def _noise(self, x: Tensor, draw: Draw, views: int) -> Noise:
        z = draw.normal(len(x), self._z_dim, dtype=x.dtype)
        if self._adaptive is not None:
            return Noise(z, self._augmentation.draw(x, self._adaptive.p, draw, views))
        p = self.config.augment_p(draw.images)
        return Noise(z, self._augmentation.draw(x, p, draw, views) if p > 0 else None)

    def _classifier_weight(self, x: Tensor, draw: Draw) -> Tensor | None:
        return _scalar(self.config.auxiliary_classifier(draw.images), x) if self._classifies else None

    def _transform(self, noise: Noise, x: Tensor) -> Transform:
        return Transform() if noise.augmentation is None else self._augmentation.transform(noise.augmentation, x)

    def _compute_discriminator_terms(
        self,
        real: Tensor,
        label: Tensor | None,
        noise: Noise,
        penalty_weight: Tensor | None,
        classifier_weight: Tensor | None,
    ) -> tuple[Tensor, Terms]:
        """The loss and the terms to log. penalty_weight, classifier_weight: scalars, or None for none."""
        with torch.no_grad():
            fake = self.generator(noise.z, label)
        transform = self._transform(noise, real)
        penalised = self._penalised if self.config.estimator == "exact" and penalty_weight is not None else []
        samples = {"r1": real, "r2": fake}
        if penalised:

            def judged(*xs: Tensor) -> tuple[Tensor, ...]:
                pairs = _pairs(samples | dict(zip(penalised, xs, strict=True)), transform)
                return self._judge_pairs(pairs, label)

            judgement, gradients = with_gradients(judged, [samples[name] for name in penalised], first=2)
            penalties = {
                f"penalty/{name}": squared_norms(gradient) for name, gradient in zip(penalised, gradients, strict=True)
            }
        else:
            pairs = _pairs(samples, transform)
            judgement = self._judge_pairs(pairs, label)
            asked = penalty_weight is not None
            penalties = self._penalties_of_views(pairs, judgement[:2], label, noise) if asked else {}

        real_logits, fake_logits, *recognised = judgement
        adversarial = discriminator_terms(
            self.config.loss, at_least_float32(real_logits), at_least_float32(fake_logits)
        )
        loss = adversarial
        if penalty_weight is not None:
            start = torch.zeros_like(adversarial)
            loss = adversarial + sum((penalty_weight * value for value in penalties.values()), start=start)
        terms = {"loss/discriminator": adversarial, "logits/real": real_logits, "logits/fake": fake_logits}
        if classifier_weight is not None:
            terms["recognition/real"] = recognition = self._recognition(recognised[0], label)
            loss = loss + classifier_weight * recognition
        return loss.mean(), {name: value.detach() for name, value in (terms | penalties).items()}

    def _compute_generator_terms(
        self, real: Tensor, label: Tensor | None, noise: Noise, classifier_weight: Tensor | None
    ) -> tuple[Tensor, Terms]:
        """The loss and the terms to log."""
        transform = self._transform(noise, real)
        real_logits = torch.zeros(len(real), device=real.device)
        if self.config.loss == "relativistic":
            transform_of_reals, transform = transform.views()
            with torch.no_grad():
                real_logits = at_least_float32(self.discriminator(transform_of_reals.apply(real), label))
        fake = transform.apply(self.generator(noise.z, label))
        fake_logits, *recognised = self._judge(fake, label)
        loss = generator_terms(self.config.loss, real_logits, at_least_float32(fake_logits))
        terms = {"loss/generator": loss}
        if classifier_weight is not None:
            terms["recognition/fake"] = recognition = self._recognition(recognised[0], label)
            loss = loss + classifier_weight * recognition
        return loss.mean(), {name: value.detach() for name, value in terms.items()}

    def _judge(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, ...]:
        """Logits [B] and, with an auxiliary classifier, what it recognises [B, K]."""
        if self._classifies:
            return self.discriminator(x, label, classify=True)
        return (self.discriminator(x, label),)

    def _recognition(self, recognised: Tensor, label: Tensor | None) -> Tensor:
        """The auxiliary classifier's loss for each sample: [B, K], [B] or [B, K] -> [B]."""
        assert label is not None
        recognised = at_least_float32(recognised)
        if self.conditions is None:
            return cross_entropy(recognised, label, reduction="none")
        return recognition_loss(recognised, label, self.conditions)

    def _judge_pairs(self, pairs: Tensor, label: Tensor | None) -> tuple[Tensor, ...]:
        """Logits [B] of the reals and of the fakes of pairs [B, 2, C, *S].

        With an auxiliary classifier also what it recognises of the reals, [B, K]. All in one pass if both need the same
        gradients: one over 2 B samples launches half the operators of two. If only one side is penalised, separate
        passes save the other's double backward. Real and fake of a pair are interleaved, so that gradients of
        parameters on which the relativistic loss does not depend (the last bias) cancel to exactly 0.
        """
        if self.config.penalty in ("r1", "r2") or self.config.estimator != "exact":
            real, fake = pairs.unbind(1)
            logits, *recognised = self._judge(real, label)
            return logits, self.discriminator(fake, label), *recognised
        labels = None if label is None else label.repeat_interleave(2, dim=0)
        both, *recognised = self._judge(pairs.flatten(0, 1), labels)
        return (*both.unflatten(0, (-1, 2)).unbind(1), *(found[::2] for found in recognised))

    def _penalties_of_views(
        self, pairs: Tensor, logits: Sequence[Tensor], label: Tensor | None, noise: Noise
    ) -> dict[str, Tensor]:
        """Penalties [B] at interpolates or by finite differences of augmented pairs [B, 2, C, *S], by logged name."""

        def critic(x: Tensor) -> Tensor:
            return self.discriminator(x, label)

        real, fake = pairs.unbind(1)
        if noise.position is not None:
            return {"penalty/interpolates": interpolate_penalty(critic, real, fake, noise.position)}
        sides = {"r1": (real, logits[0]), "r2": (fake, logits[1])}
        return {
            f"penalty/{name}": finite_difference_penalty(critic, *sides[name], direction, self.config.epsilon)
            for name, direction in zip(self._penalised, noise.directions, strict=bool(noise.directions))
        }


def _scalar(value: float, like: Tensor) -> Tensor:
    """A number as a tensor [] in float32 or finer, since a compiled function is compiled again for every new number."""
    return torch.full((), value, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)


def _pairs(samples: Mapping[str, Tensor], transform: Transform) -> Tensor:
    """Reals and fakes side by side, transformed: [B, 2, C, *S]."""
    pairs = torch.stack(list(samples.values()), dim=1)
    return transform.apply(pairs.flatten(0, 1)).unflatten(0, (-1, 2))


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
