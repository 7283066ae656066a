"""The variational autoencoder, with weights of its rate: beta, warm-up, free bits, capacity, total correlation.

Every term is in nats, summed over a sample's values or latents; the loss is averaged over the microbatch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from imagegen_dist.objectives.base import Batch, Draw, Randomness, Terms
from imagegen_dist.objectives.interface import Build, ObjectiveConfig
from imagegen_dist.objectives.latents import FSQ, Gaussian, free_bits_rate, gaussian, standard_normal_log_prob
from imagegen_dist.objectives.likelihoods import (
    BinarizeName,
    Likelihood,
    LikelihoodName,
    binarize,
    check_name,
    likelihood_for,
)
from imagegen_dist.objectives.total_correlation import Decomposition, decompose
from imagegen_dist.objectives.variational import (
    Drawn,
    Inferred,
    ObservedConfig,
    VariationalObjective,
    bound_terms,
    linear_growth,
    repeat_label,
    trained_together,
)
from imagegen_dist.schedule import Schedule, constant

LatentName = Literal["gaussian", "fsq"]
DecompositionName = Literal["none", "mws", "mss"]


@ObjectiveConfig.register
@dataclass(frozen=True)
class VAEConfig(ObservedConfig):
    """distortion + warm-up * beta * rate, with distortion -log p(x|z) and rate KL(q(z|x) || N(0, I)) (arXiv:1312.6114).

    capacity > 0 replaces the rate by capacity_gamma * |rate - C| for each sample (arXiv:1804.03599, Eq. 8).
    decomposition replaces it by mutual information + beta * total correlation + dimension-wise KL: beta-TCVAE
    (arXiv:1802.04942, Eq. 4). latent "fsq" uses codes instead of q(z|x), with a constant rate (arXiv:2309.15505).
    """

    joins_microbatches = True

    latent: LatentName = "gaussian"
    """q(z|x): a diagonal Gaussian, or codes of finite scalar quantisation."""
    levels: tuple[int, ...] = (8, 6, 5)
    """Levels of each latent channel, for fsq."""
    beta: Schedule = constant(1.0)
    """Weight of the rate; with a decomposition, weight of the total correlation."""
    warmup_images: int = 0
    """Images seen over which the weight of the whole rate grows linearly from 0; 0 for no warm-up."""
    free_bits: float = 0.0
    """Nats per latent below which its mean rate over the microbatch is not reduced further; 0 for none."""
    capacity: float = 0.0
    """Final target C of the rate, in nats per sample; 0 for none."""
    capacity_images: int = 0
    """Images seen over which C grows linearly from 0; 0 for a constant C."""
    capacity_gamma: float = 1000.0
    """Weight of the rate's distance from C."""
    decomposition: DecompositionName = "none"
    """Estimator of the total correlation: minibatch-weighted or minibatch-stratified sampling."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta.minimum < 0:
            raise ValueError(f"beta {self.beta} is negative; set --objective.beta to 0 or more")
        for name in ("warmup_images", "free_bits", "capacity", "capacity_images", "capacity_gamma"):
            if getattr(self, name) < 0:
                flag = f"--objective.{name.replace('_', '-')}"
                raise ValueError(f"{name} {getattr(self, name)} is negative; set {flag} to 0 or more")
        check_name("latent", self.latent, LatentName)
        check_name("decomposition", self.decomposition, DecompositionName)
        self._check_combination()

    def _check_combination(self) -> None:
        """Raise ValueError if one setting would make another ineffective."""
        rate_settings = {
            "beta": self.beta != constant(1.0),
            "warmup-images": self.warmup_images > 0,
            "free-bits": self.free_bits > 0,
            "capacity": self.capacity > 0,
            "decomposition": self.decomposition != "none",
        }
        if self.latent == "fsq":
            _ = FSQ(self.levels)
            _refuse(rate_settings, "latent fsq has a constant rate", "--objective.latent gaussian")
        elif self.capacity > 0:
            del rate_settings["capacity"]
            why = f"capacity {self.capacity:g} replaces the weight of the rate"
            _refuse(rate_settings, why, "--objective.capacity 0")
        elif self.free_bits > 0 and self.decomposition != "none":
            raise ValueError(
                f"free_bits {self.free_bits:g} has no effect with a decomposition; set --objective.free-bits 0 or "
                "--objective.decomposition none"
            )
        if self.capacity_images and not self.capacity:
            raise ValueError(f"capacity_images {self.capacity_images} has no effect; set --objective.capacity above 0")

    @property
    def parameters(self) -> int:
        """Raw encoder outputs per latent."""
        return 1 if self.latent == "fsq" else 2

    @property
    def least_microbatch(self) -> int:
        """2 with a decomposition, which compares the samples of a microbatch."""
        return 1 if self.decomposition == "none" else 2

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> "VAE":
        """The loss over encoder and decoder."""
        return VAE(networks["encoder"], networks["decoder"], self, build.samples)

    def autoencoder(self, networks: Mapping[str, nn.Module]) -> "Autoencoder":
        """The trained networks as an autoencoder."""
        return trained_autoencoder(networks, self, FSQ(self.levels) if self.latent == "fsq" else None)

    def warmup(self, images: int) -> float:
        """Weight in [0, 1] of the whole rate after this many images."""
        return linear_growth(images, self.warmup_images)

    def capacity_at(self, images: int) -> float:
        """C after this many images, in nats per sample."""
        return self.capacity * linear_growth(images, self.capacity_images)


def _refuse(settings: Mapping[str, bool], why: str, instead: str) -> None:
    found = [f"--objective.{name}" for name, is_set in settings.items() if is_set]
    if found:
        raise ValueError(f"{why}: {' and '.join(found)} would have no effect; leave out, or set {instead}")


class Autoencoder:
    """An encoder, a decoder and a likelihood, which every VAE trains together and inference uses.

    encoder: x [B, C, *S] and labels [B] or None -> raw parameters of `latent_dims` (Z, *s). decoder: z [B, Z, *s] and
    labels -> the likelihood's raw outputs. fsq: the quantiser, if the latents are codes. binarize: how samples are
    binarised before evaluation encodes them. Raises ValueError unless the quantiser has one number of levels for each
    latent channel.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        fsq: FSQ | None = None,
        binarize: BinarizeName = "none",
    ) -> None:
        self.encoder, self.decoder, self.likelihood, self.fsq = encoder, decoder, likelihood, fsq
        self.binarize: BinarizeName = binarize
        self.latent_dims: tuple[int, ...] = tuple(encoder.latent_dims)  # type: ignore[arg-type]
        if fsq and len(fsq.levels) != self.latent_dims[0]:
            raise ValueError(
                f"levels {fsq.levels} are for {len(fsq.levels)} latent channels, and the model has "
                f"{self.latent_dims[0]}; set --objective.levels to one for each"
            )
        self.group_dims: tuple[tuple[int, ...], ...] = (self.latent_dims,)
        self.continuous = fsq is None
        self.trained = trained_together(encoder, decoder, likelihood)

    def modules(self) -> dict[str, nn.Module]:
        """The networks with weights, by name."""
        return dict(self.trained.items())

    def posterior(self, x: Tensor, label: Tensor | None = None) -> Gaussian:
        """q(z|x)."""
        return gaussian(self.encoder(x, label))

    def infer(self, x: Tensor, label: Tensor | None = None) -> Inferred:
        """q(z|x): a Gaussian, or the code."""
        if self.fsq:
            return _InferredCode(self, self.fsq, self.fsq.quantize(self.encoder(x, label)), label)
        return _InferredGaussian(self, self.posterior(x, label), label)

    def encode(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """The latents without noise, [B, Z, *s]: the posterior's mean, or the code."""
        return self.infer(x, label).code()

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean of p(x|z), [B, C, *S] in [-1, 1]."""
        return self.likelihood.mean(self.decoder(z, label))

    def prior(self, count: int, draw: Randomness) -> Tensor:
        """`count` latents of the prior, [count, Z, *s]: standard normal, or uniform over the codes."""
        if self.fsq:
            return self.fsq.sample(draw, count, *self.latent_dims[1:])
        return draw.normal(count, *self.latent_dims)

    def generate(self, drawn: Tensor, label: Tensor | None = None) -> Tensor:
        """The samples for latents of the prior: `decode`."""
        return self.decode(drawn, label)

    def sample(self, count: int, draw: Randomness, label: Tensor | None = None) -> Tensor:
        """`count` samples for latents of the prior, [count, C, *S] in [-1, 1]."""
        return self.generate(self.prior(count, draw).to(next(self.decoder.parameters()).device), label)

    def distortion(self, x: Tensor, z: Tensor, label: Tensor | None) -> Tensor:
        """-log p(x|z) in nats, [B]."""
        return -self.likelihood.log_prob(x, self.decoder(z, label))

    def terms(self, x: Tensor, distortion: Tensor, rate: Tensor, beta: float) -> dict[str, Tensor]:
        """Logged terms that all VAEs share, [B] each."""
        return bound_terms(x, distortion, rate, beta, prod(self.latent_dims))


@dataclass(frozen=True)
class _InferredGaussian:
    """One Gaussian per sample."""

    autoencoder: Autoencoder
    posterior: Gaussian
    label: Tensor | None

    def code(self) -> Tensor:
        return self.posterior.mean

    def draw(self, draw: Draw) -> Drawn:
        z = self.posterior.sample(draw)
        return Drawn(z, self.autoencoder.decoder(z, self.label), (self.posterior.kl(),))

    def log_weights(self, x: Tensor, draw: Draw, times: int) -> Tensor:
        repeated = self.posterior.repeat(times)
        z = repeated.sample(draw)
        log_joint = standard_normal_log_prob(z) - self.autoencoder.distortion(
            x.repeat_interleave(times, 0), z, repeat_label(self.label, times)
        )
        return (log_joint - repeated.log_prob(z)).unflatten(0, (-1, times))


@dataclass(frozen=True)
class _InferredCode:
    """One deterministic code per sample, whose rate is its cost under the uniform prior."""

    autoencoder: Autoencoder
    fsq: FSQ
    z: Tensor
    label: Tensor | None

    def code(self) -> Tensor:
        return self.z

    def draw(self, draw: Draw) -> Drawn:
        return Drawn(self.z, self.autoencoder.decoder(self.z, self.label), (self.fsq.nats(self.z),))

    def log_weights(self, x: Tensor, draw: Draw, times: int) -> Tensor:
        drawn = self.draw(draw)
        log_joint = self.autoencoder.likelihood.log_prob(x, drawn.raw) - drawn.rate
        return log_joint.unsqueeze(1).expand(-1, times)


def make_autoencoder(
    encoder: nn.Module,
    decoder: nn.Module,
    likelihood: LikelihoodName,
    fsq: FSQ | None = None,
) -> Autoencoder:
    """An autoencoder with a new likelihood of this name, on the encoder's device."""
    device = next(encoder.parameters()).device
    return Autoencoder(encoder, decoder, likelihood_for(decoder, likelihood).to(device), fsq)


def trained_autoencoder(
    networks: Mapping[str, nn.Module], config: ObservedConfig, fsq: FSQ | None = None
) -> Autoencoder:
    """The autoencoder of the networks that a config's objective has trained."""
    likelihood = config.likelihood_of(networks)
    return Autoencoder(networks["encoder"], networks["decoder"], likelihood, fsq, config.binarize)


class Rate(NamedTuple):
    """The loss term next to the distortion, [B] nats; the weight logged as beta; and further logged terms."""

    cost: Tensor
    beta: float
    logged: dict[str, Tensor]


class VAE(VariationalObjective[Autoencoder]):
    """One phase: encoder, decoder and the likelihood's own weights.

    dataset_size: samples of the dataset, which a decomposition needs. Raises ValueError if it is missing, or as
    Autoencoder does.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, config: VAEConfig, dataset_size: int = 0) -> None:
        if config.decomposition != "none" and dataset_size < 1:
            raise ValueError(f"decomposition {config.decomposition!r} needs the dataset's size, not {dataset_size}")
        fsq = FSQ(config.levels) if config.latent == "fsq" else None
        super().__init__(make_autoencoder(encoder, decoder, config.likelihood, fsq))
        self.config = config
        self._dataset_size = dataset_size

    def loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Distortion and weighted rate in nats, averaged over the microbatch."""
        x = binarize(batch.sample, self.config.binarize, draw)
        inferred = self.autoencoder.infer(x, batch.label)
        drawn = inferred.draw(draw)
        weighted = self._weighted_rate(inferred, drawn, draw)
        distortion = -self.autoencoder.likelihood.log_prob(x, drawn.raw)
        loss = distortion + weighted.cost
        terms = self.autoencoder.terms(x, distortion, drawn.rate, weighted.beta) | weighted.logged
        terms["loss/autoencoder"] = loss
        return loss.mean(), {name: value.detach() for name, value in terms.items()}

    def _weighted_rate(self, inferred: Inferred, drawn: Drawn, draw: Draw) -> Rate:
        """The rate with the config's weights at this time."""
        config, rate, images = self.config, drawn.rate, draw.images
        warmup, beta = config.warmup(images), config.warmup(images) * config.beta(images)
        if config.capacity > 0:
            capacity = config.capacity_at(images)
            more = {"vae/capacity": torch.full_like(rate, capacity)}
            return Rate(config.capacity_gamma * (rate - capacity).abs(), config.capacity_gamma, more)
        if config.decomposition != "none":
            assert isinstance(inferred, _InferredGaussian)  # the config excludes other latents
            mean, log_variance = inferred.posterior.mean, inferred.posterior.log_variance
            each = [
                decompose(z, its_mean, its_log_variance, self._dataset_size, config.decomposition)
                for z, its_mean, its_log_variance in draw.apart(drawn.z, mean, log_variance)
            ]
            parts = Decomposition(*map(torch.cat, zip(*each, strict=True)))
            cost = warmup * (parts.mutual_information + parts.dimension_wise_kl) + beta * parts.total_correlation
            return Rate(cost, beta, {f"vae/{name}": value for name, value in parts._asdict().items()})
        if config.free_bits > 0:
            cost = draw.each(lambda kl: free_bits_rate(kl, config.free_bits).expand(len(kl)), drawn.kl[0])
            return Rate(beta * cost, beta, {})
        return Rate(beta * rate, beta, {})
