"""An autoencoder on real samples: rate and distortion, reconstructions, traversals, disentanglement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log

import numpy as np
import torch
from torch import Tensor

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.factors import choose_factors, factor_table
from imagegen_dist.data.modality import quantised, to_float, to_uint8
from imagegen_dist.data.stream import read_records
from imagegen_dist.evaluation.engine import Done, EncodedSums, Measured, Wanted, ids_in, measure_in_passes
from imagegen_dist.evaluation.traversal import MOST_TRAVERSED, SPAN, traverse
from imagegen_dist.metrics.disentanglement import disentanglement_scores
from imagegen_dist.metrics.image_quality import dice, ms_ssim, ms_ssim_scales, psnr, ssim
from imagegen_dist.metrics.motion import velocities
from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.likelihoods import binarize, is_probability
from imagegen_dist.objectives.variational import Inferred, VariationalModel, log_likelihood
from imagegen_dist.training.loop import keyed_draw

COLUMNS = 10
"""Samples per row of a picture, and values of a latent in a traversal."""

RECONSTRUCTED = 50
"""Maximum number of samples whose reconstructions are shown."""

# A latent is active if its posterior mean has a larger variance over the data (arXiv:1509.00519, Sec. 5.2).
_ACTIVE = 0.01
_SSIM_SIDE = 11
_MS_SSIM_SCALES = 3  # with fewer, it is hardly more than SSIM
_SEGMENTS = 0.9  # share of values at an extreme, from which volumes are segments
_AT_EXTREME = 0.9  # of values in [-1, 1]
_CATEGORICAL = ("shape", "digit", "kind")  # factors with unordered values


_PUBLISHED_SCALES = 5
_MOTION_ERROR = "motion_error"
_EXTREMES = "share of values at an extreme"  # not a figure: it decides whether Dice is one


def _latent_name(latent: int) -> str:
    """Name of the metric of one latent's rate; latents are numbered from the highest level's on."""
    return f"rate_of_latent/{latent:03}"


@dataclass(frozen=True)
class Encoded:
    """The first samples of a dataset, encoded by an autoencoder, and their reconstructions.

    told: the autoencoder is given the samples' labels. importance_samples: for the log-likelihood; 0: none.
    chosen_factors: those for which disentanglement is computed, if the samples carry factors; empty: all of them.
    together: chunks that are encoded at once. Features are those of the reconstructions.
    """

    autoencoder: VariationalModel
    dataset: Dataset
    samples: int
    wanted: Sequence[Wanted]
    device: torch.device
    told: bool = False
    importance_samples: int = 0
    chosen_factors: tuple[str, ...] = ()
    together: int = 1

    @property
    def in_blocks(self) -> bool:
        """True if several chunks are encoded at once."""
        return self.together > 1

    def measure(self, chunks: range, done: Done) -> Measured:
        """Read and encode samples, each once, and accumulate their statistics. Raises ShardError."""
        return measure_in_passes(self, chunks, done)

    def nothing(self) -> Measured:
        """Statistics of no samples."""
        width = self._top_latents if self._top_is_vector else 0
        codes = torch.zeros(self.samples, width, dtype=torch.float64, device=self.device)
        totals = torch.zeros(len(self._term_names()), dtype=torch.float64, device=self.device)
        return replace(Measured.nothing(self.wanted, self.device), encoded=EncodedSums(totals, codes))

    @torch.no_grad()
    def add(self, chunks: range, measured: Measured) -> None:
        """Read, encode and measure adjacent chunks at once. Raises ShardError."""
        assert measured.encoded is not None
        ids, sums = ids_in(chunks, self.samples), measured.encoded
        x, label, shows = self._read(ids, chunks)
        inferred = self.autoencoder.infer(x, label)
        code = inferred.code()
        shown = self.autoencoder.decode(code, label)
        terms = self._terms(inferred, x, shown, chunks)
        sums.terms += torch.stack([terms[name].double().sum() for name in self._term_names()])
        if sums.codes.shape[1]:
            sums.codes[ids.start : ids.stop] = code[:, : sums.codes.shape[1]]
        for wanted, features in zip(self.wanted, measured.features, strict=True):
            logits = features.add(wanted.network, quantised(shown, self.dataset.index.shape.bits), ids.start)
            if wanted.answers and logits is not None and shows is not None:
                measured.answers.add(logits, shows, wanted.network.conditions)

    def figures(self, sums: EncodedSums) -> dict[str, float]:
        """The metrics that follow from sums over all samples.

        Means in nats per sample: "rate", "distortion", "elbo", the rate of each latent over all its positions, and of
        each level if there are several; "log_likelihood" if importance samples are drawn; "bits_per_dim" if p(x|z) is a
        probability, from the log-likelihood or else the bound; "psnr" of reconstructions; "ssim" (of
        clips, frame by frame) and "ms_ssim" if they are large enough; "motion_error" of clips; "dice" of volumes that
        are segments; and, if the highest latents are a vector, the number of active ones, and disentanglement if
        factors are known.
        """
        codes = sums.codes.cpu().numpy()
        figures = dict(zip(self._term_names(), (sums.terms / len(codes)).tolist(), strict=True))
        if figures.pop(_EXTREMES, 1.0) < _SEGMENTS:
            del figures["dice"]
        if is_probability(self.autoencoder.likelihood, self.autoencoder.binarize):
            nats = figures.get("log_likelihood", figures["elbo"])
            figures["bits_per_dim"] = -nats / (self.dataset.index.shape.numel * log(2))
        if self._top_is_vector:
            figures["active_units"] = float((codes.var(0) > _ACTIVE).sum())
            figures |= self._of_factors(codes)
        return figures

    @torch.no_grad()
    def pictures(self) -> dict[str, tuple[np.ndarray, int]]:
        """Originals above reconstructions and, if latents are a vector, traversals; each with its number of columns."""
        x, label, _ = self._read(range(min(RECONSTRUCTED, self.dataset.index.samples)), range(1))
        inferred = self.autoencoder.infer(x, label)
        rebuilt = self.autoencoder.decode(inferred.code(), label)
        pairs = torch.stack([_rows(x), _rows(rebuilt)], 1).flatten(0, 2)
        found = {"reconstructions": (to_uint8(pairs).cpu().numpy(), COLUMNS)}
        if self._top_is_vector and self.autoencoder.continuous:
            found["traversals"] = self._traversals(inferred, label)
        return found

    @property
    def _top_is_vector(self) -> bool:
        return len(self.autoencoder.group_dims[0]) == 1

    @property
    def _top_latents(self) -> int:
        """Latent dimensions, or channels, of the only or highest level."""
        return self.autoencoder.group_dims[0][0]

    @property
    def _importance_draws(self) -> int:
        """Importance samples per sample."""
        return self.importance_samples if self.autoencoder.continuous else 0

    def _read(self, ids: range, chunks: range) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Samples as the autoencoder sees them, float [B, C, *S], the labels that it is given, and those they have."""
        sample, label = self.dataset.read(ids)
        x = to_float(sample.to(self.device))
        label = None if label is None else label.to(self.device)
        told = label if self.told else None
        return binarize(x, self.autoencoder.binarize, self._draw("binarize", chunks)), told, label

    def _draw(self, purpose: str, chunks: range) -> Draw:
        """Each chunk's own random numbers."""
        draws = [keyed_draw(0, 0, purpose, chunk, self.device) for chunk in chunks]
        return Draw(0, *(generator for draw in draws for generator in draw.generators))

    def _term_names(self) -> list[str]:
        """Names of `_terms`, also known to a rank without a chunk."""
        names = ["rate", "distortion", "elbo", "psnr"]
        names += ["ssim"] if min(self._viewed) >= _SSIM_SIDE else []
        names += [self._ms_ssim_name] if ms_ssim_scales(self._viewed) >= _MS_SSIM_SCALES else []
        names += [_MOTION_ERROR] if self._moves else []
        names += ["dice", _EXTREMES] if self.dataset.index.modality == "voxels" else []
        names += ["log_likelihood"] if self._importance_draws else []
        levels = self.autoencoder.group_dims
        names += [f"rate_level_{level}" for level in range(len(levels)) if len(levels) > 1]
        return names + [_latent_name(latent) for latent in range(sum(dims[0] for dims in levels))]

    def _terms(self, inferred: Inferred, x: Tensor, shown: Tensor, chunks: range) -> dict[str, Tensor]:
        """Per-sample metrics, [B]. shown: the reconstructions."""
        draw = self._draw("evaluate", chunks)
        drawn = inferred.draw(draw)
        rate, distortion = drawn.rate, -self.autoencoder.likelihood.log_prob(x, drawn.raw)
        terms = {"rate": rate, "distortion": distortion, "elbo": -rate - distortion, "psnr": psnr(shown, x)}
        terms |= {f"rate_level_{level}": nats for level, nats in enumerate(drawn.rates)}
        latents = torch.cat([kl.flatten(2).sum(2) if kl.ndim > 2 else kl for kl in drawn.kl], 1).unbind(1)
        terms |= {_latent_name(latent): nats for latent, nats in enumerate(latents)}
        terms |= self._likeness(shown, x)
        if k := self._importance_draws:
            terms["log_likelihood"] = log_likelihood(inferred, x, draw, k, min(k, 50))
        return terms

    def _likeness(self, shown: Tensor, x: Tensor) -> dict[str, Tensor]:
        """How alike reconstructions and originals are, [B] each, as far as their modality and size allow."""
        terms: dict[str, Tensor] = {}
        rebuilt, original = self._views(shown), self._views(x)
        if min(self._viewed) >= _SSIM_SIDE:
            terms["ssim"] = ssim(rebuilt, original).unflatten(0, (len(x), -1)).mean(1)
        if (scales := ms_ssim_scales(self._viewed)) >= _MS_SSIM_SCALES:
            terms[self._ms_ssim_name] = ms_ssim(rebuilt, original, scales=scales).unflatten(0, (len(x), -1)).mean(1)
        if self._moves:
            terms[_MOTION_ERROR] = (velocities(shown) - velocities(x)).norm(dim=2).mean(1)
        if self.dataset.index.modality == "voxels":
            terms["dice"] = dice(shown, x)
            terms[_EXTREMES] = (x.abs() > _AT_EXTREME).flatten(1).float().mean(1)
        return terms

    @property
    def _viewed(self) -> tuple[int, ...]:
        """Extents of what SSIM looks at: a frame of a clip, else a whole sample."""
        spatial = self.dataset.index.shape.spatial
        return spatial[1:] if self.dataset.index.modality == "video" else spatial

    @property
    def _ms_ssim_name(self) -> str:
        scales = ms_ssim_scales(self._viewed)
        return "ms_ssim" if scales == _PUBLISHED_SCALES else f"ms_ssim_{scales}"

    @property
    def _moves(self) -> bool:
        """True if the samples are clips with more than one frame."""
        return self.dataset.index.modality == "video" and self.dataset.index.shape.spatial[0] > 1

    def _views(self, x: Tensor) -> Tensor:
        """What SSIM looks at: the frames of clips, [B · T, C, H, W], else the samples."""
        return x.transpose(1, 2).flatten(0, 1) if self.dataset.index.modality == "video" else x

    def _of_factors(self, means: np.ndarray) -> dict[str, float]:
        """Disentanglement of the posteriors' means if the samples carry their factors; equal on every rank."""
        names, factors = self._known_factors
        if not names:
            return {}
        chosen = choose_factors(names, self.chosen_factors, self.dataset.store)
        names, factors = [names[at] for at in chosen], factors[:, chosen]
        varying = np.flatnonzero((factors != factors[:1]).any(0))
        categorical = [at for at, number in enumerate(varying.tolist()) if names[number] in _CATEGORICAL]
        if varying.size < 2:
            return {}
        return disentanglement_scores(means, factors[:, varying], categorical=categorical)

    @cached_property
    def _known_factors(self) -> tuple[list[str], np.ndarray]:
        """(names, [N, F]) of the samples' factors; empty unless every sample has them."""
        data, cache, count = self.dataset, self.dataset.reading.cache, self.samples
        if "factors" not in read_records(data.index, data.store, range(1), cache)[0]:
            return [], np.empty((count, 0), np.int64)
        records = read_records(data.index, data.store, range(count), cache)
        if not all("factors" in record for record in records):
            return [], np.empty((count, 0), np.int64)
        return factor_table(records)

    def _traversals(self, inferred: Inferred, label: Tensor | None) -> tuple[np.ndarray, int]:
        """The first sample, each latent varied from -2.5 to 2.5 in its own row, the one with the highest rate on top.

        Of several levels, only the highest: the lower ones follow from it, without noise.
        """
        kl = inferred.draw(self._draw("traversals", range(1))).kl[0]
        latents = kl.mean(0).argsort(descending=True)[:MOST_TRAVERSED].tolist()
        code = inferred.code()[0, : self._top_latents]
        z = traverse(code, latents, torch.linspace(-SPAN, SPAN, COLUMNS, device=self.device, dtype=code.dtype))
        labels = None if label is None else label[:1].expand(len(z), *label.shape[1:])
        return to_uint8(self.autoencoder.decode(z, labels)).cpu().numpy(), COLUMNS


def _rows(x: Tensor) -> Tensor:
    """[N, C, *S] -> [rows, COLUMNS, C, *S]; the last row is padded with black."""
    missing = -len(x) % COLUMNS
    return torch.cat([x, x.new_full((missing, *x.shape[1:]), -1)]).unflatten(0, (-1, COLUMNS))
