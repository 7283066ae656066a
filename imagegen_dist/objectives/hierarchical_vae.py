"""VAEs with several levels of latents, each with a prior conditioned on the levels above (ladder, arXiv:1602.02282)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from imagegen_dist.objectives.base import Batch, Draw, Randomness, Terms
from imagegen_dist.objectives.interface import Build, ObjectiveConfig
from imagegen_dist.objectives.latents import Gaussian, gaussian, product, standard_gaussian
from imagegen_dist.objectives.likelihoods import BinarizeName, Likelihood, binarize, likelihood_for
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
from imagegen_dist.wording import counted


@ObjectiveConfig.register
@dataclass(frozen=True)
class HierarchicalVAEConfig(ObservedConfig):
    """distortion + warm-up * beta * the sum of all levels' rates, each KL(q(z_i|x, z above) || p(z_i|z above)).

    The warm-up is the paper's (arXiv:1602.02282); without it or free bits, the higher levels collapse to the prior.
    """

    joins_microbatches = True

    parts = ("ladder_encoder", "ladder_decoder")

    beta: Schedule = constant(1.0)
    """Weight of the rate."""
    warmup_images: int = 0
    """Images seen over which the weight of the whole rate grows linearly from 0; 0 for no warm-up."""
    free_bits: tuple[float, ...] = ()
    """Nats per level, from the highest, below which its mean rate over the microbatch is not reduced further; one
    number for all levels, or none.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta.minimum < 0:
            raise ValueError(f"beta {self.beta} is negative; set --objective.beta to 0 or more")
        if self.warmup_images < 0:
            raise ValueError(
                f"warmup_images {self.warmup_images} is negative; set --objective.warmup-images to 0 or more"
            )
        if min(self.free_bits, default=0.0) < 0:
            raise ValueError(f"free_bits {self.free_bits} has a negative value; set --objective.free-bits to 0 or more")

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> HierarchicalVAE:
        """The loss over encoder and decoder."""
        return HierarchicalVAE(networks["encoder"], networks["decoder"], self)

    def autoencoder(self, networks: Mapping[str, nn.Module]) -> HierarchicalAutoencoder:
        """The trained networks as an autoencoder."""
        likelihood = self.likelihood_of(networks)
        return HierarchicalAutoencoder(networks["encoder"], networks["decoder"], likelihood, self.binarize)

    def weight(self, images: int) -> float:
        """Weight of the rate after this many images."""
        return linear_growth(images, self.warmup_images) * self.beta(images)


class _Level(NamedTuple):
    """One level of the top-down pass: its posterior and prior, and the latents drawn from the posterior."""

    posterior: Gaussian
    prior: Gaussian
    z: Tensor


class HierarchicalAutoencoder:
    """An encoder, a decoder and a likelihood, with several levels of latents, the highest first.

    encoder: x [B, C, *S] and labels [B] or None -> raw Gaussian parameters of each level, [B, 2 * Z, *s]. decoder: a
    function (level, raw parameters of its prior, or None for the highest) -> its latents [B, Z, *s], and labels -> the
    likelihood's raw outputs. Both have `group_dims`, the (Z, *s) of each level. binarize: how samples are binarised
    before evaluation encodes them.
    """

    continuous = True

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood, binarize: BinarizeName = "none"
    ) -> None:
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.binarize: BinarizeName = binarize
        self.group_dims: tuple[tuple[int, ...], ...] = tuple(encoder.group_dims)  # type: ignore[arg-type]
        self.sizes = [prod(dims) for dims in self.group_dims]
        self.trained = trained_together(encoder, decoder, likelihood)

    def modules(self) -> dict[str, nn.Module]:
        """The networks with weights, by name."""
        return dict(self.trained.items())

    def infer(self, x: Tensor, label: Tensor | None = None) -> Inferred:
        """q(z|x): each level's evidence; the posterior of a lower level also depends on the latents above it."""
        evidence = [gaussian(raw) for raw in self.encoder(x, label)]
        return _InferredLevels(self, evidence, label)

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean of p(x|z), [B, C, *S] in [-1, 1].

        z: [B, n], the levels concatenated from the highest; levels omitted at the end take their priors' means. Raises
        ValueError if n ends within a level.
        """
        given = self._levels(z)

        def choose(level: int, prior: Tensor | None) -> Tensor:
            if level < len(given):
                return given[level]
            assert prior is not None  # the highest level is given
            return gaussian(prior).mean

        return self.likelihood.mean(self.decoder(choose, label))

    def prior(self, count: int, draw: Randomness) -> Tensor:
        """Standard normal noise of all levels, [count, n], the highest first; each level's prior maps it to latents."""
        return draw.normal(count, sum(self.sizes))

    def generate(self, drawn: Tensor, label: Tensor | None = None) -> Tensor:
        """Samples for noise [B, n], which each level's prior maps to latents: [B, C, *S] in [-1, 1]."""
        noise = self._levels(drawn)

        def choose(level: int, prior: Tensor | None) -> Tensor:
            return noise[level] if prior is None else gaussian(prior).at(noise[level])

        return self.likelihood.mean(self.decoder(choose, label))

    def sample(self, count: int, draw: Randomness, label: Tensor | None = None) -> Tensor:
        """`count` samples with latents drawn level by level, [count, C, *S] in [-1, 1]."""
        return self.generate(self.prior(count, draw).to(next(self.decoder.parameters()).device), label)

    def descend(
        self, evidence: Sequence[Gaussian], draw: Draw | None, label: Tensor | None
    ) -> tuple[Tensor, list[_Level]]:
        """(the likelihood's raw outputs, every level) for latents drawn from q(z|x), or its means if `draw` is None."""
        levels: list[_Level] = []

        def choose(level: int, raw_prior: Tensor | None) -> Tensor:
            found = evidence[level]
            prior = standard_gaussian(found.mean) if raw_prior is None else gaussian(raw_prior)
            posterior = found if raw_prior is None else product(found, prior)
            z = posterior.mean if draw is None else posterior.sample(draw)
            levels.append(_Level(posterior, prior, z))
            return z

        return self.decoder(choose, label), levels

    def _levels(self, z: Tensor) -> list[Tensor]:
        """[B, n] split into levels, [B, Z, *s] each."""
        ends = [sum(self.sizes[: level + 1]) for level in range(len(self.sizes))]
        if z.ndim != 2 or z.shape[1] not in ends:
            raise ValueError(
                f"latents of shape {tuple(z.shape)}: expected [B, n] with n one of {', '.join(map(str, ends))}, "
                "complete levels from the highest on"
            )
        parts = z.split(self.sizes[: ends.index(z.shape[1]) + 1], 1)
        return [part.unflatten(1, dims) for part, dims in zip(parts, self.group_dims, strict=False)]


@dataclass(frozen=True)
class _InferredLevels:
    """The encoder's evidence at each level."""

    autoencoder: HierarchicalAutoencoder
    evidence: Sequence[Gaussian]
    label: Tensor | None

    def code(self) -> Tensor:
        return _joined(self.autoencoder.descend(self.evidence, None, self.label)[1])

    def draw(self, draw: Draw) -> Drawn:
        raw, levels = self.autoencoder.descend(self.evidence, draw, self.label)
        return Drawn(_joined(levels), raw, tuple(level.posterior.kl(level.prior) for level in levels))

    def log_weights(self, x: Tensor, draw: Draw, times: int) -> Tensor:
        repeated = [found.repeat(times) for found in self.evidence]
        raw, levels = self.autoencoder.descend(repeated, draw, repeat_label(self.label, times))
        log_weights = self.autoencoder.likelihood.log_prob(x.repeat_interleave(times, 0), raw)
        for level in levels:
            log_weights = log_weights + level.prior.log_prob(level.z) - level.posterior.log_prob(level.z)
        return log_weights.unflatten(0, (-1, times))


def _joined(levels: Sequence[_Level]) -> Tensor:
    """All latents concatenated, [B, n], the highest first."""
    return torch.cat([level.z.flatten(1) for level in levels], 1)


class HierarchicalVAE(VariationalObjective[HierarchicalAutoencoder]):
    """One phase: encoder, decoder and the likelihood's own weights.

    Raises ValueError unless free bits are one number, or one for each level.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, config: HierarchicalVAEConfig) -> None:
        device = next(encoder.parameters()).device
        likelihood = likelihood_for(decoder, config.likelihood).to(device)
        super().__init__(HierarchicalAutoencoder(encoder, decoder, likelihood))
        self.config = config
        levels = len(self.autoencoder.group_dims)
        if len(config.free_bits) not in (0, 1, levels):
            raise ValueError(
                f"free_bits {config.free_bits} are for {counted(len(config.free_bits), 'level')}, and the model "
                f"has {levels}; set --objective.free-bits to one number, or to one for each level from the highest"
            )

    def loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Distortion and weighted rate in nats, averaged over the microbatch."""
        x, beta = binarize(batch.sample, self.config.binarize, draw), self.config.weight(draw.images)
        drawn = self.autoencoder.infer(x, batch.label).draw(draw)
        distortion = -self.autoencoder.likelihood.log_prob(x, drawn.raw)
        loss = distortion + beta * self._cost(drawn.rates, draw)
        terms = bound_terms(x, distortion, drawn.rate, beta, sum(self.autoencoder.sizes))
        terms |= {f"vae/rate_level_{level}": rate for level, rate in enumerate(drawn.rates)}
        terms["loss/autoencoder"] = loss
        return loss.mean(), {name: value.detach() for name, value in terms.items()}

    def _cost(self, rates: Sequence[Tensor], draw: Draw) -> Tensor:
        """The sum of the levels' rates, [B]; with free bits, the sum of their means, each at least its free bits."""
        free = self.config.free_bits
        if not any(free):
            return torch.stack(list(rates)).sum(0)
        least = free * len(rates) if len(free) == 1 else free

        def of_microbatch(*shares: Tensor) -> Tensor:
            means = [rate.mean().clamp_min(nats) for rate, nats in zip(shares, least, strict=True)]
            return torch.stack(means).sum().expand(len(shares[0]))

        return draw.each(of_microbatch, *rates)
