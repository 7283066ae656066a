"""A trained model as its users have it: samples by seed, and the way between samples and latents.

A sample is a function of (seed, index) and of its class alone, to the last bit: its noise is keyed by (seed, index), on
the CPU (noise.py), and the networks see batches of one fixed size, of which the last is filled up. A matrix product of
another number of rows may add in another order, and round another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from imagegen_dist.data.modality import modality, to_float, to_uint8
from imagegen_dist.inference.class_names import Class, as_list, numbered
from imagegen_dist.inference.inputs import check_label, check_latents, check_samples
from imagegen_dist.noise import SampleNoise
from imagegen_dist.objectives.interface import Sampler
from imagegen_dist.objectives.variational import VariationalModel
from imagegen_dist.shape import SampleShape

_BATCH = 8
"""Samples that the networks see at a time, unless a model's `batch` is set otherwise."""

Compute = Callable[[Tensor, Tensor | None], Tensor]
"""Draws of the prior [B, ...] and labels or None to samples [B, C, *S] in [-1, 1]."""


class Model(nn.Module):
    """What can be sampled from: a trained generator, or a VAE.

    sampler: what generates samples. more: further networks, by the names that a checkpoint has. shape: of one sample.
    classes: how many the networks know, 0 for none. images: how many training has seen. modality: "image", "video" or
    "voxels". facts: what the checkpoint says of itself, the experiment included. batch: samples computed at a time.
    compute: what makes samples in the networks' place, where that was set (engines.py).
    """

    def __init__(
        self,
        sampler: Sampler,
        shape: SampleShape,
        classes: int,
        images: int,
        modality: str,
        facts: Mapping[str, Any] | None = None,
        more: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({**sampler.modules(), **(more or {})})
        self.sampler = sampler
        self.gaussian = sampler.continuous
        """Whether the prior is N(0, I), so that draws of it can be scaled and interpolated."""
        self.shape = shape
        self.classes = classes
        self.images = images
        self.modality = modality
        self.facts = facts or {}
        self.batch = _BATCH
        self.compute: Compute | None = None
        self.eval().requires_grad_(False)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """What the training data call the classes, by number; None where they have no names or none is known."""
        names = self.facts.get("data", {}).get("class_names")
        return tuple(map(str, names)) if isinstance(names, list | tuple) and len(names) == self.classes else None

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.networks.parameters()).device

    def forward(self, drawn: Tensor, label: Tensor | None = None) -> Tensor:
        """Draws of the prior, as `latents` gives them, to samples [B, C, *S] in [-1, 1]."""
        return self.sampler.generate(drawn, label)

    def latents(self, n: int, seed: int = 0, start: int = 0) -> Tensor:
        """Draws of the prior with the indexes from `start` on, [n, ...], on the CPU: the noise of samples.

        Raises ValueError for a seed outside of [0, 2^64).
        """
        return self._prior(n, SampleNoise.of(seed, range(start, start + n)))

    def latents_of(self, seeds: Sequence[int]) -> Tensor:
        """The draw with index 0 of each of several seeds, [n, ...], on the CPU. Raises as `latents`."""
        return self._prior(len(seeds), SampleNoise(seeds, [0] * len(seeds)))

    def sample(
        self, n: int, classes: Class | Iterable[Class] | None = None, seed: int = 0, truncation: float = 1.0
    ) -> Tensor:
        """`n` samples, uint8 [n, C, *S]; sample i depends on the seed, i and its class alone, not on `n`.

        classes: one class for all, or several taken in turn, each by its number or its name; by default all in turn.
        Integers of any type are numbers. truncation: the factor by which
        the noise is scaled towards 0, its mean, from 1 (none) to 0. Raises ValueError for a class that the model does
        not know, for classes given to one that knows none, and where latents cannot be scaled.
        """
        if n < 1:
            raise ValueError(f"n is {n}; ask for at least 1 sample")
        return self.generate(self.latents(n, seed), self.labels(n, classes), truncation)

    @torch.inference_mode()
    def generate(self, drawn: Tensor, label: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Draws of the prior, as `latents` gives them, to samples uint8 [B, C, *S]. label: as `labels` gives it."""
        if not 0 <= truncation <= 1:
            raise ValueError(f"truncation {truncation:g}: from 0 (the mean latent alone) to 1 (none)")
        if truncation != 1 and not self.gaussian:
            raise ValueError(f"truncation {truncation:g}: this model's latents are codes, which have no mean")
        check_latents(drawn, [self._drawn_dims], codes=not self.gaussian)
        check_label(label, len(drawn), self.classes)
        compute = self.compute or self
        return self._in_batches(lambda *rows: to_uint8(compute(*rows)), drawn * truncation, label)

    def encode(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """Latents of samples uint8 [B, C, *S]."""
        raise NotImplementedError

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Samples of latents, uint8 [B, C, *S]."""
        raise NotImplementedError

    def grid(self, path: str | Path, rows: int = 10, seed: int = 0) -> None:
        """Write a picture of samples to a file, a column for each class (the first 20), or ten columns."""
        columns = min(self.classes, 20) or 10
        samples = self.sample(rows * columns, range(columns) if self.classes else None, seed)
        data, _ = modality(self.modality).preview(samples.cpu().numpy(), columns)
        Path(path).write_bytes(data)

    def labels(self, n: int, classes: Class | Iterable[Class] | None = None) -> Tensor | None:
        """Labels for `n` samples: int64 [n], or weights [n, K] where a class is a blend; None without classes.

        Arguments and errors as `sample`'s.
        """
        if not self.classes:
            if classes is not None:
                raise ValueError("this model knows no classes: leave classes out")
            return None
        if classes is None:
            classes = range(self.classes)
        asked = [numbered(each, self.classes, self.class_names) for each in as_list(classes)]
        if not asked or {} in asked:
            raise ValueError(f"class {asked}: the model knows 0 to {self.classes - 1}")
        turn = torch.arange(n) % len(asked)
        if not any(isinstance(each, dict) for each in asked):
            return torch.tensor(asked)[turn]
        weights = torch.zeros(len(asked), self.classes)
        for row, each in zip(weights, asked, strict=True):
            for label, weight in each.items() if isinstance(each, dict) else [(each, 1.0)]:
                row[label] = weight
        return weights[turn]

    @cached_property
    def _drawn_dims(self) -> tuple[int, ...]:
        """Shape of one draw of the prior."""
        return tuple(self.latents(1).shape[1:])

    def _prior(self, n: int, noise: SampleNoise) -> Tensor:
        """Draws of the prior, [n, ...]."""
        return self.sampler.prior(n, noise)

    def _in_batches(self, function: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """The function of rows, [N, ...] each or None -> [N, ...], `batch` rows at a time, the last ones filled up."""
        given = [None if rows is None else rows.to(self.device) for rows in inputs]
        count = next(len(rows) for rows in given if rows is not None)
        parts = []
        for start in range(0, count, self.batch):
            some = [None if rows is None else _filled(rows[start : start + self.batch], self.batch) for rows in given]
            parts.append(function(*some)[: count - start])
        return torch.cat(parts)


class GeneratorModel(Model):
    """A trained generator of a GAN; with it the discriminator where that was asked for."""

    @property
    def generator(self) -> nn.Module:
        """z [B, Z] and labels [B] or None to samples [B, C, *S] in [-1, 1]."""
        return self.networks["generator"]

    def encode(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """Raises ValueError: a GAN goes from latents to samples alone."""
        raise ValueError("a GAN has no encoder: only autoencoders go from samples to latents")

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Samples of latents, [B, Z] -> uint8 [B, C, *S]."""
        return self.generate(z, label)


class AutoencoderModel(Model):
    """A trained VAE: samples of its prior, and the way between samples and latents.

    Latents are [B, Z, *s]; those of several levels are one [B, all], the highest level first. What `latents` draws is
    then the noise of all levels, of which each level's prior makes latents.
    """

    @property
    def autoencoder(self) -> VariationalModel:
        """Its networks together."""
        return cast(VariationalModel, self.sampler)

    @torch.inference_mode()
    def encode(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """Latents without noise of samples, uint8 [B, C, *S] -> [B, Z, *s]: the posterior's mean, or the code.

        label: int64 [B] or weights [B, K] where the model is told the class. Raises ValueError for samples of another
        type or shape, as `sample` would not give them, and for labels that do not fit.
        """
        check_samples(samples, self.shape)
        check_label(label, len(samples), self.classes)
        return self._in_batches(lambda x, rows: self.autoencoder.infer(to_float(x), rows).code(), samples, label)

    @torch.inference_mode()
    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Samples of latents, [B, Z, *s] -> uint8 [B, C, *S]; of several levels, the lower ones may be left out.

        Raises ValueError for latents of another type or shape, and for labels that do not fit.
        """
        check_latents(z, self._latent_dims, codes=not self.gaussian)
        check_label(label, len(z), self.classes)
        return self._in_batches(lambda *rows: to_uint8(self.autoencoder.decode(*rows)), z, label)

    def reconstruct(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """What is left of samples after their latents, uint8 [B, C, *S] -> same. Raises as `encode`."""
        return self.decode(self.encode(samples, label), label)

    @property
    def _latent_dims(self) -> list[tuple[int, ...]]:
        """Shapes of a sample's latents: those of several levels in one, from the highest down."""
        levels = self.autoencoder.group_dims
        return [levels[0]] if len(levels) == 1 else [(size,) for size in accumulate(prod(dims) for dims in levels)]


def _filled(rows: Tensor, count: int) -> Tensor:
    """Rows [n, ...] made `count` by repeating the last."""
    missing = count - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
