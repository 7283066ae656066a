"""A VAE as it trains: rate and distortion of held-out samples, reconstructions, prior samples, traversals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from types import MappingProxyType
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from imagegen_dist.data.factors import choose_factors, factor_table
from imagegen_dist.data.modality import to_float, to_uint8
from imagegen_dist.data.stream import read_records
from imagegen_dist.distributed import Result, World, sum_over_ranks, together
from imagegen_dist.evaluation.asked_classes import AskedClasses
from imagegen_dist.evaluation.evaluator import Copies, Dataset
from imagegen_dist.evaluation.generated import chunks, column_labels, distance_over_ranks, grid_label, score_generated
from imagegen_dist.evaluation.memorisation import CAPTION, PICTURE_OF_COPIES, look_for_copies
from imagegen_dist.evaluation.named_reference import can_compare, find_reference
from imagegen_dist.evaluation.reference import Reference
from imagegen_dist.evaluation.traversal import MOST_TRAVERSED, SPAN, traverse
from imagegen_dist.experiment import Experiment, conditioning
from imagegen_dist.metrics.disentanglement import disentanglement_scores
from imagegen_dist.metrics.frechet import Moments
from imagegen_dist.metrics.image_quality import psnr, ssim
from imagegen_dist.noise import SampleNoise
from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.likelihoods import binarize, is_probability
from imagegen_dist.objectives.variational import Autoencodes, Inferred, VariationalModel, log_likelihood
from imagegen_dist.storage import Store
from imagegen_dist.training.loop import keyed_draw

COLUMNS = 10
"""Samples in a row of a picture, and values of a latent in a traversal."""

RECONSTRUCTED = 50
"""Samples whose reconstructions are shown, at most."""

# Variance of a latent's posterior mean over the data above which it is used (arXiv:1509.00519, Sec. 5.2).
_ACTIVE = 0.01
_SSIM_SIDE = 11
_CATEGORICAL = ("shape",)  # factors whose values have no order


@dataclass
class RealSums:
    """What is added up of real samples: sums over any split of them add up to the whole's.

    terms: sums of what is measured, in the order of their names. codes: the highest latents without noise, [N, Z], with
    zeros for samples that were not seen; without columns where latents are no vector. All float64.
    """

    terms: Tensor
    codes: Tensor

    def merge(self, other: RealSums) -> None:
        """Count in what was measured of other samples."""
        self.terms += other.terms
        self.codes += other.codes

    def on_host(self) -> RealSums:
        """The same on the CPU."""
        return RealSums(self.terms.cpu(), self.codes.cpu())

    def reduce(self, all_reduce: Callable[[Tensor], Tensor]) -> RealSums:
        """The sums of all ranks. all_reduce sums a tensor over the ranks; each calls it for both."""
        return RealSums(all_reduce(self.terms), all_reduce(self.codes) if self.codes.numel() else self.codes)


def _latent_name(latent: int) -> str:
    """Of the figure that says what one latent carries; latents are counted from the highest level's first."""
    return f"rate_of_latent/{latent:03}"


class VAEEvaluator:
    """Looks at the averaged autoencoder, on held-out samples where there are any, else on training samples."""

    picture = "reconstructions"
    picture_note = "Held-out samples, each above its reconstruction,"
    more_pictures: Mapping[str, str] = MappingProxyType(
        {
            "samples": "Samples of the prior",
            "traversals": f"A row a latent, from {-SPAN:g} to {SPAN:g}; the one of the highest rate on top",
            PICTURE_OF_COPIES: CAPTION,
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
        self._autoencoder: VariationalModel = cast(Autoencodes, experiment.objective).autoencoder(networks)
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
        compared = can_compare(experiment.evaluation, training.index)
        best = (name for name in experiment.objective.best if compared or not name.startswith("frechet"))
        self.figure = next(best, "elbo")

    @classmethod
    def alone(
        cls, networks: Mapping[str, nn.Module], experiment: Experiment, dataset: Dataset, device: torch.device
    ) -> VAEEvaluator:
        """One that looks at a dataset by itself, outside of a run: for `measure` and `figures_of`."""
        return cls(networks, experiment, dataset, None, dataset.store, World(), device, lambda text: None)

    def figures(self) -> dict[str, float]:
        """Means over `evaluation.samples` samples, in nats a sample: "rate", "distortion", "elbo", and how many latents
        are used; the rate of each latent, of all its positions together, and of each level where there are several;
        "log_likelihood" where importance samples are asked for; "bits_per_dim" where p(x|z) is a probability, by the
        log-likelihood or else the bound; "psnr" and "ssim" of reconstructions; Fréchet distances where the data have
        labels or a feature network is named; disentanglement where the samples' factors are known. Of several levels,
        active latents and those of factors are the highest one's.
        """
        evaluation = self._experiment.evaluation
        if not evaluation.samples:
            return {}
        reference = self._find_reference() if can_compare(evaluation, self._training.index) else None
        rebuilt = Moments(reference.network.dim, self._device) if reference else None

        def add_rebuilt(x: Tensor, ids: range) -> None:
            if reference and rebuilt:
                rebuilt.add(reference.network.features(x))

        count = min(evaluation.samples, self._looked_at.index.samples)
        of_rank = self._together(lambda: self.measure(chunks(count, self._world), count, add_rebuilt))
        real = of_rank.reduce(lambda values: sum_over_ranks(values, self._world))
        figures = self._together(lambda: self.figures_of(real))
        if reference is None or rebuilt is None:
            return figures
        asked = evaluation.samples, self._asked
        figures |= score_generated(self._generate, *asked, reference, self._world, self._device)
        figures["frechet_reconstruction"] = distance_over_ranks(rebuilt, reference, self._world, self._device)
        if reference.real_frechet is not None:
            figures["frechet_real"] = reference.real_frechet
        return figures

    def figures_of(self, real: RealSums) -> dict[str, float]:
        """The figures that follow from sums over whole samples, as `figures` names them."""
        codes = real.codes.cpu().numpy()
        figures = dict(zip(self._term_names(), (real.terms / len(codes)).tolist(), strict=True))
        if self._counts_bits:
            nats = figures.get("log_likelihood", figures["elbo"])
            figures["bits_per_dim"] = -nats / (self._training.index.shape.numel * log(2))
        if self._top_is_vector:
            figures["active_units"] = float((codes.var(0) > _ACTIVE).sum())
            figures |= self._of_factors(codes)
        return figures

    @property
    def column_labels(self) -> Mapping[str, Sequence[str]]:
        """The classes of the columns of samples, and a latent's values in the columns of traversals."""
        values = [f"{-SPAN + 2 * SPAN * at / (COLUMNS - 1):.1f}" for at in range(COLUMNS)]
        classes = column_labels(self._columns, self._classes, self._training.index.class_names)
        return {"samples": classes, "traversals": values}

    @property
    def _columns(self) -> int:
        return self._classes if 0 < self._classes <= 2 * COLUMNS else COLUMNS

    @torch.no_grad()
    def pictures(self) -> dict[str, tuple[np.ndarray, int]]:
        """Originals above their reconstructions, samples of the prior, and where latents are a vector, traversals."""
        x, label = self._read(range(min(RECONSTRUCTED, self._looked_at.index.samples)))
        x = self._as_seen(x, 0)
        inferred = self._autoencoder.infer(x, label)
        rebuilt = self._autoencoder.decode(inferred.code(), label)
        pairs = torch.stack([self._rows(x), self._rows(rebuilt)], 1).flatten(0, 2)
        found = {"reconstructions": (to_uint8(pairs).cpu().numpy(), COLUMNS), "samples": self._samples()}
        if self._top_is_vector and self._autoencoder.continuous:
            found["traversals"] = self._traversals(inferred, label)
        return found

    def copies(self) -> Copies | None:
        """Samples of the prior beside their nearest training samples, as of a GAN."""
        evaluation, network = self._experiment.evaluation, self._reference.network if self._reference else None
        of = self._training, self._held_out, network, self._device, World(heed=self._world.heed)
        return look_for_copies(self._generate, self._asked, evaluation, *of)

    @property
    def _counts_bits(self) -> bool:
        return is_probability(self._autoencoder.likelihood, self._autoencoder.binarize)

    @property
    def _top_is_vector(self) -> bool:
        return len(self._autoencoder.group_dims[0]) == 1

    @property
    def _top_latents(self) -> int:
        """Latent dimensions, or channels, of the only level or the highest one."""
        return self._autoencoder.group_dims[0][0]

    def _read(self, ids: range) -> tuple[Tensor, Tensor | None]:
        """Samples of the dataset that is looked at: float [B, C, *S] and the labels that the networks are told."""
        sample, label = self._looked_at.read(ids)
        told = label.to(self._device) if self._classes and label is not None else None
        return to_float(sample.to(self._device)), told

    def _as_seen(self, x: Tensor, chunk: int) -> Tensor:
        return binarize(x, self._autoencoder.binarize, self._draw("binarize", chunk))

    def _draw(self, purpose: str, number: int) -> Draw:
        return keyed_draw(0, 0, purpose, number, self._device)

    @torch.no_grad()
    def measure(
        self, numbered: Iterable[tuple[int, range]], count: int, rebuilt: Callable[[Tensor, range], None]
    ) -> RealSums:
        """What is measured of some of the first `count` samples, each read and encoded once.

        numbered: the chunks that are measured, each with its number, which its randomness depends on. rebuilt: is given
        each chunk's reconstructions, float [B, C, *S] rounded as stored samples are, and which samples these are of.
        """
        width = self._top_latents if self._top_is_vector else 0
        codes = torch.zeros(count, width, dtype=torch.float64, device=self._device)
        sums = torch.zeros(len(self._term_names()), dtype=torch.float64, device=self._device)
        for chunk, ids in numbered:
            x, label = self._read(ids)
            x = self._as_seen(x, chunk)
            inferred = self._autoencoder.infer(x, label)
            code = inferred.code()
            shown = self._autoencoder.decode(code, label)
            terms = self._terms(inferred, x, shown, chunk)
            sums += torch.stack([terms[name].double().sum() for name in self._term_names()])
            if width:
                codes[ids.start : ids.stop] = code[:, :width]
            rebuilt(to_float(to_uint8(shown)), ids)
        return RealSums(sums, codes)

    def _term_names(self) -> list[str]:
        """What `_terms` gives, known also to a rank without a chunk."""
        spatial = self._training.index.shape.spatial
        names = ["rate", "distortion", "elbo", "psnr"]
        names += ["ssim"] if min(spatial) >= _SSIM_SIDE else []
        names += ["log_likelihood"] if self._importance_samples else []
        levels = self._autoencoder.group_dims
        names += [f"rate_level_{level}" for level in range(len(levels)) if len(levels) > 1]
        return names + [_latent_name(latent) for latent in range(sum(dims[0] for dims in levels))]

    @property
    def _importance_samples(self) -> int:
        return self._experiment.evaluation.importance_samples if self._autoencoder.continuous else 0

    def _terms(self, inferred: Inferred, x: Tensor, shown: Tensor, chunk: int) -> dict[str, Tensor]:
        """What is measured of each sample, [B]. shown: its reconstruction."""
        draw = self._draw("evaluate", chunk)
        drawn = inferred.draw(draw)
        rate, distortion = drawn.rate, -self._autoencoder.likelihood.log_prob(x, drawn.raw)
        terms = {"rate": rate, "distortion": distortion, "elbo": -rate - distortion, "psnr": psnr(shown, x)}
        terms |= {f"rate_level_{level}": nats for level, nats in enumerate(drawn.rates)}
        latents = torch.cat([kl.flatten(2).sum(2) if kl.ndim > 2 else kl for kl in drawn.kl], 1).unbind(1)
        terms |= {_latent_name(latent): nats for latent, nats in enumerate(latents)}
        if min(x.shape[2:]) >= _SSIM_SIDE:
            terms["ssim"] = ssim(shown, x)
        if k := self._importance_samples:
            terms["log_likelihood"] = log_likelihood(inferred, x, draw, k, min(k, 50))
        return terms

    def _of_factors(self, means: np.ndarray) -> dict[str, float]:
        """Disentanglement of the posteriors' means where the samples carry their factors; from every rank alike."""
        if self._factors is None:
            self._factors = self._read_factors(len(means))
        names, factors = self._factors
        if not names:
            return {}
        chosen = choose_factors(names, self._experiment.evaluation.factors, self._looked_at.store)
        names, factors = [names[at] for at in chosen], factors[:, chosen]
        varying = np.flatnonzero((factors != factors[:1]).any(0))
        categorical = [at for at, number in enumerate(varying.tolist()) if names[number] in _CATEGORICAL]
        if varying.size < 2:
            return {}
        return disentanglement_scores(means, factors[:, varying], categorical=categorical)

    def _read_factors(self, count: int) -> tuple[list[str], np.ndarray]:
        """(names, [N, F]) of the first samples' factors; without any where not every sample has them."""
        data, cache = self._looked_at, self._looked_at.reading.cache
        if "factors" not in read_records(data.index, data.store, range(1), cache)[0]:
            return [], np.empty((count, 0), np.int64)
        records = read_records(data.index, data.store, range(count), cache)
        if not all("factors" in record for record in records):
            return [], np.empty((count, 0), np.int64)
        return factor_table(records)

    @property
    def _asked(self) -> AskedClasses:
        counted = self._reference.class_counts.tolist() if self._reference else ()
        distribution = self._experiment.evaluation.label_distribution
        return AskedClasses.as_in(self._classes, self._training.index, distribution, counted)

    def _generate(self, count: int, noise: SampleNoise, label: Tensor | None) -> Tensor:
        return self._autoencoder.generate(self._autoencoder.prior(count, noise), label)

    def _together(self, action: Callable[[], Result]) -> Result:
        return together(action, self._world, self._device)

    def _find_reference(self) -> Reference:
        """What Fréchet distances are taken from; from every rank alike."""
        if self._reference is None:
            evaluation = self._experiment.evaluation
            self._reference = find_reference(
                self._cache, self._training, self._held_out, evaluation, self._world, self._device, self._say
            )
        return self._reference

    def _samples(self) -> tuple[np.ndarray, int]:
        count, columns = self._columns * COLUMNS, self._columns
        label = grid_label(count, columns, self._classes, self._device)
        noise = SampleNoise.of(self._experiment.training.seed, range(count), self._device)
        return to_uint8(self._generate(count, noise, label)).cpu().numpy(), columns

    def _traversals(self, inferred: Inferred, label: Tensor | None) -> tuple[np.ndarray, int]:
        """The first sample, each latent in a row of its own from -2.5 to 2.5, the one of the highest rate on top.

        Of several levels the highest alone: those below follow from it, without noise.
        """
        kl = inferred.draw(self._draw("traversals", 0)).kl[0]
        latents = kl.mean(0).argsort(descending=True)[:MOST_TRAVERSED].tolist()
        code = inferred.code()[0, : self._top_latents]
        z = traverse(code, latents, torch.linspace(-SPAN, SPAN, COLUMNS, device=self._device, dtype=code.dtype))
        labels = None if label is None else label[:1].expand(len(z))
        return to_uint8(self._autoencoder.decode(z, labels)).cpu().numpy(), COLUMNS

    def _rows(self, x: Tensor) -> Tensor:
        """[N, C, *S] -> [rows, COLUMNS, C, *S]; the last row filled up with black."""
        missing = -len(x) % COLUMNS
        return torch.cat([x, x.new_full((missing, *x.shape[1:]), -1)]).unflatten(0, (-1, COLUMNS))
