"""The interface of every VAE, to inference and evaluation and to training, whatever its latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import ClassVar, Generic, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from imagegen_dist.objectives.base import Batch, Draw, Phase, Terms
from imagegen_dist.objectives.interface import Build, ObjectiveConfig, OptimConfig, Sampler, VAEOptimConfig
from imagegen_dist.objectives.likelihoods import (
    LIKELIHOODS,
    BinarizeName,
    Likelihood,
    LikelihoodName,
    check_observation,
    likelihood_for,
)


@dataclass(frozen=True)
class Drawn:
    """Latents of a batch drawn from q(z|x), and what is derived from them.

    z: [B, ...] as `decode` takes them. raw: the likelihood's parameters for them, [B, outputs * C, *S]. kl: for each
    group of latents, the highest first, the cost of each latent in nats, [B, *dims].
    """

    z: Tensor
    raw: Tensor
    kl: tuple[Tensor, ...]

    @property
    def rates(self) -> tuple[Tensor, ...]:
        """Nats per group, [B], the highest first."""
        return tuple(kl.flatten(1).sum(1) for kl in self.kl)

    @property
    def rate(self) -> Tensor:
        """Nats of all groups, [B]."""
        return torch.stack(self.rates).sum(0)


class Inferred(Protocol):
    """q(z|x) of a batch, from a single pass of the encoder."""

    def code(self) -> Tensor:
        """The latents without noise, [B, ...] as `decode` takes them."""
        ...

    def draw(self, draw: Draw) -> Drawn:
        """One draw per sample."""
        ...

    def log_weights(self, x: Tensor, draw: Draw, times: int) -> Tensor:
        """log p(x, z) - log q(z|x) in nats of `times` draws for each sample x [B, C, *S]: [B, times]."""
        ...


class VariationalModel(Sampler, Protocol):
    """The networks that a VAE trains together, as inference and evaluation use them.

    Latents come in groups, the highest first: (Z,) for a vector, (Z, *s) for a map. The latents of a single group are a
    tensor [B, Z, *s]; those of several groups are flattened and concatenated to [B, all].
    """

    trained: nn.ModuleDict
    likelihood: Likelihood
    group_dims: tuple[tuple[int, ...], ...]
    # How samples are binarised before they are encoded.
    binarize: BinarizeName

    def infer(self, x: Tensor, label: Tensor | None = None) -> Inferred:
        """q(z|x). x: [B, C, *S] in [-1, 1]; label: [B] or None."""
        ...

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean of p(x|z), [B, C, *S] in [-1, 1]; of several groups, lower ones may be omitted."""
        ...


@runtime_checkable
class Autoencodes(Protocol):
    """An objective whose trained networks encode samples and decode latents; it also generates samples."""

    def autoencoder(self, networks: Mapping[str, nn.Module]) -> VariationalModel:
        """The trained networks as an autoencoder."""
        ...


class AutoencodingConfig(ObjectiveConfig):
    """Settings shared by the objectives of autoencoders. A subclass has the field `likelihood`."""

    likelihood: LikelihoodName
    parts: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    optimizers: ClassVar[type[OptimConfig]] = VAEOptimConfig
    compiled: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    best: ClassVar[tuple[str, ...]] = ("elbo",)

    @property
    def parameters(self) -> int:
        """Raw encoder outputs per latent: those of a Gaussian."""
        return 2

    @property
    def outputs(self) -> int:
        """Raw decoder channels per channel of a sample."""
        return LIKELIHOODS[self.likelihood].outputs

    def networks(self, build: Build) -> dict[str, nn.Module]:
        """Encoder and decoder."""
        encoder, decoder = self.parts
        networks = {
            "encoder": build.network(encoder, "encoder", parameters=self.parameters),
            "decoder": build.network(decoder, "decoder", outputs=self.outputs),
        }
        if build.shape.bits != 8:
            networks["decoder"].stored_levels = build.shape.levels  # type: ignore[assignment]
        return networks

    def autoencoder(self, networks: Mapping[str, nn.Module]) -> VariationalModel:
        """The trained networks as an autoencoder."""
        raise NotImplementedError

    def sampler(self, networks: Mapping[str, nn.Module]) -> VariationalModel:
        """The autoencoder, which generates samples from its prior."""
        return self.autoencoder(networks)

    def likelihood_of(self, networks: Mapping[str, nn.Module]) -> Likelihood:
        """The likelihood among trained networks, or a new one if it has no weights."""
        return cast(Likelihood, networks.get("likelihood") or likelihood_for(networks["decoder"], self.likelihood))


@dataclass(frozen=True)
class ObservedConfig(AutoencodingConfig):
    """Likelihood and binarisation, shared by the objectives of VAEs. Raises ValueError for incompatible names."""

    likelihood: LikelihoodName = "bernoulli"
    """The likelihood p(x|z)."""
    binarize: BinarizeName = "none"
    """How grey samples are binarised: not at all, by a threshold at 0, or at random by their values."""

    def __post_init__(self) -> None:
        check_observation(self.likelihood, self.binarize)


Model = TypeVar("Model", bound=VariationalModel)


class VariationalObjective(Generic[Model]):
    """A loss with one phase, which trains all networks of a model together."""

    def __init__(self, autoencoder: Model) -> None:
        self.autoencoder = autoencoder

    def phases(self) -> Sequence[Phase]:
        """The autoencoder's phase."""
        return [Phase("autoencoder", self.autoencoder.trained, self.loss)]

    def modules(self) -> Mapping[str, nn.Module]:
        """Encoder, decoder, and the likelihood if it has weights."""
        return self.autoencoder.modules()

    def averaged(self) -> Sequence[str]:
        """All networks of the autoencoder."""
        return list(self.autoencoder.modules())

    def loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """The loss in nats, averaged over the microbatch, and what to log."""
        raise NotImplementedError


def trained_together(encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood) -> nn.ModuleDict:
    """The networks that have weights, by name."""
    named: dict[str, nn.Module] = {"encoder": encoder, "decoder": decoder}
    if any(True for _ in likelihood.parameters()):
        named["likelihood"] = likelihood
    return nn.ModuleDict(named)


def bound_terms(x: Tensor, distortion: Tensor, rate: Tensor, beta: float, latents: int) -> dict[str, Tensor]:
    """Logged terms of all VAEs, [B] each. beta_normalized: beta * Z / N, latents over values (Higgins et al. 2017)."""
    return {
        "vae/distortion": distortion,
        "vae/rate": rate,
        "vae/elbo": -distortion - rate,
        "vae/beta": torch.full_like(rate, beta),
        "vae/beta_normalized": torch.full_like(rate, beta * latents / x[0].numel()),
    }


@torch.no_grad()
def log_likelihood(inferred: Inferred, x: Tensor, draw: Draw, k: int, chunk: int) -> Tensor:
    """log p(x) in nats from k importance samples, `chunk` of them at a time: [B], float64.

    A lower bound in expectation, which becomes tighter as k grows (arXiv:1509.00519). x: [B, C, *S]; a pass holds
    B * chunk samples.
    """
    total = torch.full((len(x),), -inf, dtype=torch.float64, device=x.device)
    for start in range(0, k, chunk):
        weights = inferred.log_weights(x, draw, min(chunk, k - start)).double()
        total = torch.logaddexp(total, weights.logsumexp(1))
    return total - log(k)


def repeat_label(label: Tensor | None, times: int) -> Tensor | None:
    """Each label repeated `times` times consecutively, [B] -> [B * times]."""
    return None if label is None else label.repeat_interleave(times, 0)


def linear_growth(images: int, over: int) -> float:
    """From 0 to 1 over the first `over` images seen; always 1 if `over` is 0."""
    return min(images / over, 1.0) if over else 1.0
