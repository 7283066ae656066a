"""The autoencoder of latent diffusion: reconstruction, perceptual and patch-adversarial terms (arXiv:2112.10752)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu

from imagegen_dist.objectives.base import Batch, Draw, Phase, Terms
from imagegen_dist.objectives.likelihoods import L1, check_name
from imagegen_dist.objectives.penalties import at_least_float32
from imagegen_dist.objectives.vae import Autoencoder
from imagegen_dist.schedule import Schedule, constant

ReconstructionName = Literal["l1", "mse"]

# Of the adaptive weight: added to its denominator, and its largest value.
_NORM_FLOOR = 1e-4
_LARGEST_WEIGHT = 1e4


@dataclass(frozen=True)
class VAEGANConfig:
    """distortion + beta * rate + adversarial_weight * adaptive weight * -D(reconstruction), per sample.

    distortion is summed over the values, as the rate is over the latents; the perceptual distance, an average over
    positions, counts once for each value.
    """

    # Sum of absolute or of squared differences.
    reconstruction: ReconstructionName = "l1"
    # Weight of the perceptual distance, where a feature network is given.
    perceptual_weight: float = 1.0
    # Weight of the rate.
    beta: Schedule = constant(1e-6)
    # Weight of the adversarial term, beside the adaptive one.
    adversarial_weight: float = 0.5
    # Images before which there is no adversarial term and the discriminator rests.
    adversarial_from_images: int = 0

    def __post_init__(self) -> None:
        check_name("reconstruction", self.reconstruction, ReconstructionName)
        if self.beta.minimum < 0:
            raise ValueError(f"beta {self.beta} is negative; set --objective.beta to 0 or more")
        for name in ("perceptual_weight", "adversarial_weight", "adversarial_from_images"):
            if getattr(self, name) < 0:
                flag = f"--objective.{name.replace('_', '-')}"
                raise ValueError(f"{name} {getattr(self, name)} is negative; set {flag} to 0 or more")

    @property
    def parameters(self) -> int:
        """Raw encoder outputs for each latent."""
        return 2

    @property
    def outputs(self) -> int:
        """Raw decoder channels for each channel of a sample."""
        return 1


class VAEGAN:
    """An autoencoder and a patch discriminator that take turns; every turn sees samples of its own.

    discriminator: x [B, C, *S] to logits [B, ...], one a patch. last_layer: the decoder's last weight, at which the
    gradients of both terms are compared. features: a fixed network from x to feature maps [B, F, *s], one or a sequence
    of them, or None for no perceptual term; its weights are frozen here.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        discriminator: nn.Module,
        config: VAEGANConfig,
        *,
        last_layer: nn.Parameter,
        features: nn.Module | None = None,
    ) -> None:
        self.autoencoder = Autoencoder(encoder, decoder, L1())
        self.discriminator = discriminator
        self.config = config
        self._last_layer = last_layer
        self._features = features.eval().requires_grad_(False) if features else None

    def phases(self) -> Sequence[Phase]:
        """The autoencoder's turn, then the discriminator's."""
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
        """Distortion, weighted rate and, from its time on, the adversarial term: the mean over the microbatch."""
        x, beta = batch.sample, self.config.beta(draw.images)
        posterior = self.autoencoder.posterior(x, batch.label)
        rate = posterior.kl().flatten(1).sum(1)
        reconstruction = self.autoencoder.decoder(posterior.sample(draw), batch.label)
        distortion = self._distance(x, reconstruction)
        more = {}
        if self._features and self.config.perceptual_weight > 0:
            more["vae/perceptual"] = perceptual_distance(self._features, x, reconstruction)
            distortion = distortion + self.config.perceptual_weight * x[0].numel() * more["vae/perceptual"]
        loss = distortion + beta * rate
        if self._is_adversarial(draw):
            adversarial = -self._patches(reconstruction).mean(1)
            weight = adaptive_weight(distortion.mean(), adversarial.mean(), self._last_layer)
            loss = loss + self.config.adversarial_weight * weight * adversarial
            more |= {"loss/generator": adversarial, "vae/adaptive_weight": weight.expand(len(x))}
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

    def _is_adversarial(self, draw: Draw) -> bool:
        return self.config.adversarial_weight > 0 and draw.images >= self.config.adversarial_from_images

    def _distance(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        difference = at_least_float32(x) - at_least_float32(reconstruction)
        values = difference.abs() if self.config.reconstruction == "l1" else difference.square()
        return values.flatten(1).sum(1)

    def _patches(self, x: Tensor) -> Tensor:
        """Every patch's logit, [B, patches]."""
        return at_least_float32(self.discriminator(x)).flatten(1)

    def _no_loss(self) -> Tensor:
        """0 with zero gradients of every weight: its optimizer's state moves on alike on all ranks."""
        return torch.stack([0 * weight.sum() for weight in self.discriminator.parameters()]).sum()


def adaptive_weight(distortion: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """||d distortion|| / (||d adversarial|| + 1e-4) at the last layer, at most 1e4, as a constant.

    distortion, adversarial: scalars, whose graphs are kept -> scalar. (arXiv:2012.09841, Eq. 7; constants of its code)
    """
    norms = []
    for term in (distortion, adversarial):
        (gradient,) = torch.autograd.grad(term, last_layer, retain_graph=True)
        norms.append(at_least_float32(gradient).norm())
    return (norms[0] / (norms[1] + _NORM_FLOOR)).clamp_max(_LARGEST_WEIGHT)


def perceptual_distance(features: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Squared distance of unit feature vectors, averaged over positions and summed over maps. x, y: [B, C, *S] -> [B].

    That of arXiv:1801.03924, Eq. 1, with equal weights of all channels.
    """
    total = torch.zeros(len(x), device=x.device)
    for of_x, of_y in zip(_maps(features, x), _maps(features, y), strict=True):
        total = total + (of_x - of_y).square().sum(1).flatten(1).mean(1)
    return total


def _maps(features: nn.Module, x: Tensor) -> list[Tensor]:
    found = features(x)
    maps = [found] if isinstance(found, Tensor) else cast(Sequence[Tensor], found)
    return [normalize(at_least_float32(values), dim=1) for values in maps]
