"""A VAE as it trains: rate and distortion of held-out samples, reconstructions, prior samples, traversals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from imagegen_dist.data.modality import to_float, to_uint8
from imagegen_dist.data.stream import read_records, read_samples
from imagegen_dist.distributed import World, sum_over_ranks
from imagegen_dist.evaluation.generated import chunks, distance_over_ranks, grid_label, score_generated
from imagegen_dist.evaluation.observer import Dataset
from imagegen_dist.evaluation.reference import Reference, build_reference
from imagegen_dist.experiment import Experiment, build_autoencoder, conditioning
from imagegen_dist.metrics.disentanglement import disentanglement_scores
from imagegen_dist.metrics.frechet import Moments
from imagegen_dist.metrics.image_quality import psnr, ssim
from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.gan import GANConfig
from imagegen_dist.objectives.iwae import log_likelihood
from imagegen_dist.objectives.likelihoods import binarize
from imagegen_dist.storage import Store
from imagegen_dist.training.loop import keyed_draw

COLUMNS = 10
"""Samples in a row of a picture, and values of a latent in a traversal."""

_RECONSTRUCTED = 50
_SPAN = 2.5  # standard deviations of the prior to either side of a traversal
_MOST_TRAVERSED = 20  # latents
# Variance of a latent's posterior mean over the data above which it is used (arXiv:1509.00519, Sec. 5.2).
_ACTIVE = 0.01
_SSIM_SIDE = 11
_CATEGORICAL = ("shape",)  # factors whose values have no order


class VAEObserver:
    """Looks at the averaged autoencoder, on held-out samples where there are any, else on training samples."""

    figure = "elbo"
    higher_is_better = True
    picture = "reconstructions"
    picture_note = "Held-out samples, each above its reconstruction,"
    more_pictures: Mapping[str, str] = MappingProxyType(
        {
            "samples": "Samples of the prior",
            "traversals": f"A row a latent, from {-_SPAN:g} to {_SPAN:g}; the one of the highest rate on top",
        }
    )

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        experiment: Experiment,
        training: Dataset,
        held_out: Dataset | None,
        cache: Store,
        world: World,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self._autoencoder = build_autoencoder(experiment, networks)
        self._experiment = experiment
        self._training = training
        self._held_out = held_out
        self._looked_at = held_out or training
        self._cache = cache
        self._world = world
        self._device = device
        self._say = say
        self._classes = conditioning(experiment, training.index.classes)
        self._reference: Reference | None = None
        self._factors: tuple[list[str], np.ndarray] | None = None

    def figures(self) -> dict[str, float]:
        """Means over `evaluation.samples` samples, in nats a sample: "rate", "distortion", "elbo", and how many latents
        are used; "log_likelihood" where importance samples are asked for; "psnr" and "ssim" of reconstructions; Fréchet
        distances where the data have labels; disentanglement where the samples' factors are known.
        """
        evaluation = self._experiment.evaluation
        if not evaluation.samples:
            return {}
        count = min(evaluation.samples, self._looked_at.index.samples)
        figures, means = self._of_real(count)
        if means is not None:
            figures["active_units"] = float((means.var(0) > _ACTIVE).sum())
            figures |= self._of_factors(means)
        return figures | self._of_generated(evaluation.samples)

    @torch.no_grad()
    def pictures(self) -> dict[str, tuple[np.ndarray, int]]:
        """Originals above their reconstructions, samples of the prior, and where latents are a vector, traversals."""
        x, label = self._read(range(min(_RECONSTRUCTED, self._looked_at.index.samples)))
        x = self._as_seen(x, 0)
        pairs = torch.stack([self._rows(x), self._rows(self._reconstruct(x, label))], 1).flatten(0, 2)
        found = {"reconstructions": (to_uint8(pairs).cpu().numpy(), COLUMNS), "samples": self._samples()}
        if len(self._autoencoder.latent_dims) == 1 and self._autoencoder.fsq is None:
            found["traversals"] = self._traversals(x, label)
        return found

    def _read(self, ids: range) -> tuple[Tensor, Tensor | None]:
        """Samples of the dataset that is looked at: float [B, C, *S] and the labels that the networks are told."""
        sample, label = read_samples(self._looked_at.index, self._looked_at.store, ids)
        told = label.to(self._device) if self._classes and label is not None else None
        return to_float(sample.to(self._device)), told

    def _as_seen(self, x: Tensor, chunk: int) -> Tensor:
        objective = self._experiment.objective
        assert not isinstance(objective, GANConfig)
        return binarize(x, objective.binarize, self._draw("binarize", chunk))

    def _draw(self, purpose: str, number: int) -> Draw:
        return keyed_draw(0, 0, purpose, number, self._device)

    def _reconstruct(self, x: Tensor, label: Tensor | None) -> Tensor:
        return self._autoencoder.decode(self._autoencoder.encode(x, label), label)

    @torch.no_grad()
    def _of_real(self, count: int) -> tuple[dict[str, float], np.ndarray | None]:
        """Means over real samples, and the posteriors' means [N, Z] where latents are a vector; equal on all ranks."""
        vector = len(self._autoencoder.latent_dims) == 1
        means = torch.zeros(count, self._autoencoder.latent_dims[0], dtype=torch.float64, device=self._device)
        sums: dict[str, Tensor] = {}
        for chunk, ids in chunks(count, self._world):
            x, label = self._read(ids)
            x = self._as_seen(x, chunk)
            terms = self._terms(x, label, chunk)
            for name, values in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=self._device).double()) + values.double().sum()
            if vector:
                means[ids.start : ids.stop] = self._autoencoder.encode(x, label)
        names = self._term_names()
        stacked = torch.stack([sums.get(name, torch.zeros((), device=self._device).double()) for name in names])
        totals = (sum_over_ranks(stacked, self._world) / count).tolist()
        codes = sum_over_ranks(means, self._world).cpu().numpy() if vector else None
        return dict(zip(names, totals, strict=True)), codes

    def _term_names(self) -> list[str]:
        """What `_terms` gives, known also to a rank without a chunk."""
        spatial = self._training.index.shape.spatial
        names = ["rate", "distortion", "elbo", "psnr"]
        names += ["ssim"] if min(spatial) >= _SSIM_SIDE else []
        return names + (["log_likelihood"] if self._importance_samples else [])

    @property
    def _importance_samples(self) -> int:
        return 0 if self._autoencoder.fsq else self._experiment.evaluation.importance_samples

    def _terms(self, x: Tensor, label: Tensor | None, chunk: int) -> dict[str, Tensor]:
        """What is measured of each sample, [B]."""
        autoencoder, draw = self._autoencoder, self._draw("evaluate", chunk)
        rate, z = self._rate(x, label, draw)
        distortion = autoencoder.distortion(x, z, label)
        rebuilt = self._reconstruct(x, label)
        terms = {"rate": rate, "distortion": distortion, "elbo": -rate - distortion, "psnr": psnr(rebuilt, x)}
        if "ssim" in self._term_names():
            terms["ssim"] = ssim(rebuilt, x)
        if k := self._importance_samples:
            networks = autoencoder.encoder, autoencoder.decoder, autoencoder.likelihood
            terms["log_likelihood"] = log_likelihood(*networks, x, draw, k, min(k, 50), label)
        return terms

    def _rate(self, x: Tensor, label: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor]:
        """(rate in nats, [B]; latents drawn from the posterior)."""
        if fsq := self._autoencoder.fsq:
            z = self._autoencoder.encode(x, label)
            return z.new_full((len(z),), fsq.rate * prod(z.shape[2:])), z
        posterior = self._autoencoder.posterior(x, label)
        return posterior.kl().flatten(1).sum(1), posterior.sample(draw)

    def _of_factors(self, means: np.ndarray) -> dict[str, float]:
        """Disentanglement of the posteriors' means where the samples carry their factors; from every rank alike."""
        if self._factors is None:
            self._factors = self._read_factors(len(means))
        names, factors = self._factors
        varying = np.flatnonzero((factors != factors[:1]).any(0))
        categorical = [at for at, number in enumerate(varying.tolist()) if names[number] in _CATEGORICAL]
        return disentanglement_scores(means, factors[:, varying], categorical=categorical) if varying.size else {}

    def _read_factors(self, count: int) -> tuple[list[str], np.ndarray]:
        """(names, [N, F]) of the first samples' factors; without any where not every sample has them."""
        index, store = self._looked_at.index, self._looked_at.store
        if "factors" not in read_records(index, store, range(1))[0]:
            return [], np.empty((count, 0), np.int64)
        records = read_records(index, store, range(count))
        if not all("factors" in record for record in records):
            return [], np.empty((count, 0), np.int64)
        names = list(records[0]["factors"])
        return names, np.array([[record["factors"][name] for name in names] for record in records], dtype=np.int64)

    def _of_generated(self, samples: int) -> dict[str, float]:
        """Fréchet distances of prior samples and of reconstructions, in the features of a classifier of the labels."""
        if not self._training.index.classes:
            return {}
        if self._reference is None:
            images = self._experiment.evaluation.classifier_images
            self._reference = build_reference(
                self._cache, self._training, self._held_out, images, self._world, self._device, self._say
            )
        return self._against(self._reference, samples)

    @torch.no_grad()
    def _against(self, reference: Reference, samples: int) -> dict[str, float]:
        figures = score_generated(
            self._generate, "generate", samples, self._classes, reference, self._world, self._device
        )
        rebuilt = Moments(reference.network.dim, self._device)
        for chunk, ids in chunks(min(samples, self._looked_at.index.samples), self._world):
            x, label = self._read(ids)
            x = self._reconstruct(self._as_seen(x, chunk), label)
            rebuilt.add(reference.network.features(to_float(to_uint8(x))))
        figures["frechet_reconstruction"] = distance_over_ranks(rebuilt, reference, self._world)
        if reference.real_frechet is not None:
            figures["frechet_real"] = reference.real_frechet
        return figures

    def _generate(self, count: int, draw: Draw, label: Tensor | None) -> Tensor:
        return self._autoencoder.decode(self._autoencoder.prior(count, draw), label)

    def _samples(self) -> tuple[np.ndarray, int]:
        columns = self._classes if 0 < self._classes <= 2 * COLUMNS else COLUMNS
        count = columns * COLUMNS
        label = grid_label(count, columns, self._classes, self._device)
        draw = keyed_draw(self._experiment.training.seed, 0, "samples", 0, self._device)
        return to_uint8(self._generate(count, draw, label)).cpu().numpy(), columns

    def _traversals(self, x: Tensor, label: Tensor | None) -> tuple[np.ndarray, int]:
        """The first sample, each latent in a row of its own from -2.5 to 2.5, the one of the highest rate on top."""
        posterior = self._autoencoder.posterior(x, label)
        latents = posterior.kl().mean(0).argsort(descending=True)[:_MOST_TRAVERSED]
        z = posterior.mean[:1].repeat(len(latents) * COLUMNS, 1)
        values = torch.linspace(-_SPAN, _SPAN, COLUMNS, device=self._device, dtype=z.dtype)
        rows = torch.arange(len(z), device=self._device)
        z[rows, latents.repeat_interleave(COLUMNS)] = values.repeat(len(latents))
        labels = None if label is None else label[:1].expand(len(z))
        return to_uint8(self._autoencoder.decode(z, labels)).cpu().numpy(), COLUMNS

    def _rows(self, x: Tensor) -> Tensor:
        """[N, C, *S] -> [rows, COLUMNS, C, *S]; the last row filled up with black."""
        missing = -len(x) % COLUMNS
        return torch.cat([x, x.new_full((missing, *x.shape[1:]), -1)]).unflatten(0, (-1, COLUMNS))
