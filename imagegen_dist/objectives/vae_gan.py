"""The autoencoder of latent diffusion: reconstruction, perceptual and patch-adversarial terms (arXiv:2112.10752)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from imagegen_dist.objectives.base import Batch, Draw, Phase, Terms
from imagegen_dist.objectives.interface import AdamConfig, Build, ObjectiveConfig, OptimConfig
from imagegen_dist.objectives.likelihoods import check_name
from imagegen_dist.objectives.penalties import at_least_float32
from imagegen_dist.objectives.perceptual import PerceptualDistance
from imagegen_dist.objectives.vae import Autoencoder, make_autoencoder
from imagegen_dist.objectives.variational import AutoencodingConfig
from imagegen_dist.schedule import Schedule, constant

DistanceName = Literal["l1", "mse"]
PerceptualName = Literal["none", "random", "lpips"]

# The adaptive weight's epsilon, added to the denominator, and its upper limit.
_NORM_FLOOR = 1e-4
_LARGEST_WEIGHT = 1e4


@OptimConfig.register
@dataclass(frozen=True)
class VAEGANOptimConfig(OptimConfig):
    """One optimizer for encoder and decoder, one for the discriminator (arXiv:2012.09841)."""

    autoencoder: AdamConfig = field(default_factory=lambda: AdamConfig(beta1=0.5, beta2=constant(0.9)))
    """Optimizer of encoder and decoder."""
    discriminator: AdamConfig = field(default_factory=lambda: AdamConfig(beta1=0.5, beta2=constant(0.9)))
    """Optimizer of the discriminator."""


@ObjectiveConfig.register
@dataclass(frozen=True)
class VAEGANConfig(AutoencodingConfig):
    """distortion + perceptual_weight * N * perceptual distance + beta * rate + adversarial term, for each sample.

    distortion is -log p(x|z) without its constant, summed over a sample's N values. The rate is in nats, summed over
    the latents. The perceptual distance is an average over positions, and is therefore multiplied by N. The adversarial
    term is adversarial_weight * adaptive weight * -D(reconstruction), averaged over patches. (arXiv:2112.10752,
    appendix G, with the sums of its code)
    """

    joins_microbatches = True

    optimizers = VAEGANOptimConfig
    compiled = ("encoder",)  # the decoder has a double backward, which torch.compile does not support
    best = (
        "frechet_reconstruction",
        "distortion",
    )  # the rate's weight is negligible, so that the bound is uninformative
    files = ("lpips_weights",)

    likelihood: DistanceName = "l1"
    """Sum of absolute or of squared differences."""
    perceptual: PerceptualName = "none"
    """Feature network of the perceptual distance: none, a fixed one with random weights, or LPIPS's, from a file."""
    perceptual_weight: float = 1.0
    """Weight of the perceptual distance."""
    lpips_weights: str = ""
    """Path or URL of LPIPS's weights, a safetensors file (docs/vae.md)."""
    lpips_sha256: str = ""
    """Expected SHA-256 of that file; empty: not checked."""
    beta: Schedule = constant(1e-6)
    """Weight of the rate."""
    adversarial_weight: float = 0.5
    """Weight of the adversarial term, multiplied by the adaptive weight."""
    adversarial_from_images: int = 0
    """Images seen before the adversarial term starts and the discriminator is trained."""
    discriminator_channels: int = 64
    """Channels of the discriminator's first layer."""
    discriminator_layers: int = 3
    """Layers of stride 2 of the discriminator: a patch is 16, 34, 70, ... pixels wide."""

    def __post_init__(self) -> None:
        check_name("likelihood", self.likelihood, DistanceName)
        check_name("perceptual", self.perceptual, PerceptualName)
        if self.beta.minimum < 0:
            raise ValueError(f"beta {self.beta} is negative; set --objective.beta to 0 or more")
        for name in ("perceptual_weight", "adversarial_weight", "adversarial_from_images"):
            if getattr(self, name) < 0:
                flag = f"--objective.{name.replace('_', '-')}"
                raise ValueError(f"{name} {getattr(self, name)} is negative; set {flag} to 0 or more")
        for name in ("discriminator_channels", "discriminator_layers"):
            if getattr(self, name) < 1:
                flag = f"--objective.{name.replace('_', '-')}"
                raise ValueError(f"{name} {getattr(self, name)} is below 1; set {flag} to 1 or more")
        for name in ("lpips_weights", "lpips_sha256"):
            if getattr(self, name) and self.perceptual != "lpips":
                flag = f"--objective.{name.replace('_', '-')}"
                raise ValueError(
                    f"{flag} has no effect with perceptual {self.perceptual}; set --objective.perceptual lpips"
                )

    def networks(self, build: Build) -> dict[str, nn.Module]:
        """Encoder, decoder and patch discriminator."""
        discriminator = build.auxiliary(
            "patch_discriminator",
            build.shape,
            channels=self.discriminator_channels,
            layers=self.discriminator_layers,
            generator=build.random("discriminator"),
        )
        return {**super().networks(build), "discriminator": discriminator}

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> "VAEGAN":
        """The loss over the three networks.

        Raises ValueError if the perceptual distance does not support such samples, or if its weights are missing.
        """
        encoder, decoder, discriminator = (networks[role] for role in ("encoder", "decoder", "discriminator"))
        last_layer = cast(nn.Parameter, decoder.last_layer)
        perceptual = self._perceptual_distance(build)
        if perceptual is not None:
            perceptual.to(next(encoder.parameters()).device)
        return VAEGAN(encoder, decoder, discriminator, self, last_layer=last_layer, perceptual=perceptual)

    def _perceptual_distance(self, build: Build) -> PerceptualDistance | None:
        match self.perceptual:
            case "none":
                return None
            case "random":
                return PerceptualDistance(build.auxiliary("random_features", build.shape))
            case "lpips":
                weights, sha256 = self.lpips_weights, self.lpips_sha256
                return PerceptualDistance(*build.auxiliary("lpips", build.shape, weights, sha256))

    def autoencoder(self, networks: Mapping[str, nn.Module]) -> Autoencoder:
        """The trained networks as an autoencoder."""
        return Autoencoder(networks["encoder"], networks["decoder"], self.likelihood_of(networks))


class VAEGAN:
    """An autoencoder and a patch discriminator, trained in alternating phases, each with its own real samples.

    discriminator: x [B, C, *S] -> logits [B, ...], one per patch. last_layer: the decoder's last weight, at which the
    gradients of both terms are compared. perceptual: a fixed network from x, y [B, C, *S] to distances [B], or None; it
    is frozen here, and not part of a checkpoint.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        discriminator: nn.Module,
        config: VAEGANConfig,
        *,
        last_layer: nn.Parameter,
        perceptual: nn.Module | None = None,
    ) -> None:
        self.autoencoder = make_autoencoder(encoder, decoder, config.likelihood)
        self.discriminator = discriminator
        self.config = config
        self._last_layer = last_layer
        self._perceptual = None if perceptual is None else perceptual.eval().requires_grad_(False)

    def phases(self) -> Sequence[Phase]:
        """The autoencoder's phase, then the discriminator's."""
        return [
            Phase("autoencoder", self.autoencoder.trained, self.autoencoder_loss),
            Phase("discriminator", self.discriminator, self.discriminator_loss),
        ]

    def modules(self) -> Mapping[str, nn.Module]:
        """Encoder, decoder and discriminator."""
        return {**self.autoencoder.modules(), "discriminator": self.discriminator}

    def averaged(self) -> Sequence[str]:
        """Encoder and decoder."""
        return list(self.autoencoder.modules())

    def autoencoder_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Distortion, perceptual distance, weighted rate and, once it has started, the adversarial term.

        Averaged over the microbatch. The logged distortion is that of the values only.
        """
        x, beta = batch.sample, self.config.beta(draw.images)
        posterior = self.autoencoder.posterior(x, batch.label)
        rate = posterior.kl().flatten(1).sum(1)
        reconstruction = self.autoencoder.decoder(posterior.sample(draw), batch.label)
        distortion = -self.autoencoder.likelihood.log_prob(x, reconstruction)
        reconstruction_loss, more = distortion, {}
        if self._perceptual is not None and self.config.perceptual_weight > 0:
            more["vae/perceptual"] = self._perceptual(x, reconstruction)
            reconstruction_loss = (
                reconstruction_loss + self.config.perceptual_weight * x[0].numel() * more["vae/perceptual"]
            )
        loss = reconstruction_loss + beta * rate
        if self._is_adversarial(draw):
            adversarial = -self._patches(reconstruction).mean(1)
            weight = draw.each(self._adaptive_weight, reconstruction_loss, adversarial)
            loss = loss + self.config.adversarial_weight * weight * adversarial
            more |= {"loss/generator": adversarial, "vae/adaptive_weight": weight}
        terms = {"loss/autoencoder": loss, **self.autoencoder.terms(x, distortion, rate, beta), **more}
        return loss.mean(), {name: value.detach() for name, value in terms.items()}

    def discriminator_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Hinge loss of every patch, half for the samples and half for their reconstructions."""
        if not self._is_adversarial(draw):
            return self._no_loss(), {"loss/discriminator": batch.sample.new_zeros(len(batch.sample))}
        with torch.no_grad():
            posterior = self.autoencoder.posterior(batch.sample, batch.label)
            reconstruction = self.autoencoder.decoder(posterior.sample(draw), batch.label)
        real, fake = self._patches(batch.sample), self._patches(reconstruction)
        loss = 0.5 * (relu(1 - real) + relu(1 + fake)).mean(1)
        terms = {"loss/discriminator": loss, "logits/real": real.mean(1), "logits/fake": fake.mean(1)}
        return loss.mean(), {name: value.detach() for name, value in terms.items()}

    def _adaptive_weight(self, reconstruction_loss: Tensor, adversarial: Tensor) -> Tensor:
        """The weight of a microbatch, [b], by its terms, [b] each."""
        weight = adaptive_weight(reconstruction_loss.mean(), adversarial.mean(), self._last_layer)
        return weight.expand(len(adversarial))

    def _is_adversarial(self, draw: Draw) -> bool:
        return self.config.adversarial_weight > 0 and draw.images >= self.config.adversarial_from_images

    def _patches(self, x: Tensor) -> Tensor:
        """The logit of every patch, [B, patches]."""
        return at_least_float32(self.discriminator(x)).flatten(1)

    def _no_loss(self) -> Tensor:
        """0 with zero gradients for every weight: its optimizer's state advances equally on all ranks."""
        return torch.stack([0 * weight.sum() for weight in self.discriminator.parameters()]).sum()


def adaptive_weight(reconstruction_loss: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """||d reconstruction_loss|| / (||d adversarial|| + 1e-4) at the last layer, at most 1e4, without gradients.

    reconstruction_loss: distortion plus perceptual distance. Both are scalars whose graphs are retained. Returns a
    scalar. (arXiv:2012.09841, Eq. 7; constants of its code)
    """
    norms = []
    for term in (reconstruction_loss, adversarial):
        (gradient,) = torch.autograd.grad(term, last_layer, retain_graph=True)
        norms.append(at_least_float32(gradient).norm())
    return (norms[0] / (norms[1] + _NORM_FLOOR)).clamp_max(_LARGEST_WEIGHT)
