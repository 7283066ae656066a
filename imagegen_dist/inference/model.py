"""The interface of a trained model: samples by seed, encoding and decoding.

A sample is a function of (seed, index) and its class, down to the last bit: its noise is keyed by (seed, index), on
the CPU (noise.py), and the networks see batches of one fixed size, the last of which is padded. A matrix product with
another number of rows may sum in another order, and round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.data.modality import drawing_of, to_stored
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.drawing.animation import FILMS
from imagegen_dist.drawing.views import Drawing
from imagegen_dist.inference.class_names import Class
from imagegen_dist.inference.directions import Directions
from imagegen_dist.inference.find_directions import KINDS, find_directions
from imagegen_dist.inference.given import Given
from imagegen_dist.inference.inputs import check_conditions, check_label, check_latents
from imagegen_dist.inference.samples import Samples
from imagegen_dist.inference.scores import Score
from imagegen_dist.inference.told import Told
from imagegen_dist.noise import SampleNoise
from imagegen_dist.numerics import Numerics
from imagegen_dist.objectives.interface import Sampler
from imagegen_dist.shape import SampleShape

_MOST_COLUMNS = 20  # of a picture
_BATCH = 8
"""Samples that the networks see at a time, unless a model's `batch` is set."""

Compute = Callable[[Tensor, Tensor | None], Tensor]
"""Draws of the prior [B, ...] and labels or None -> samples [B, C, *S] in [-1, 1]."""


class Model(nn.Module):
    """A model that generates samples: a trained generator, or a VAE.

    sampler: generates samples. more: further networks, by their names in a checkpoint. shape: of one sample. classes:
    number of classes, 0 for none and if it is told conditions. images: images seen in training. modality: "image",
    "video" or "voxels". facts: of the checkpoint, including the experiment. batch: samples computed at a time. compute:
    replaces the networks' computation if set (engines.py). numerics: how a GPU computes, as in training. known: the
    parts of conditions, and those of some samples in the training data, if the model is told conditions.
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
        known: ConditionRows | None = None,
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({**sampler.modules(), **(more or {})})
        self.sampler = sampler
        self.gaussian = sampler.continuous
        """True if the prior is N(0, I), so that its draws can be scaled and interpolated."""
        self.shape = shape
        self.classes = classes
        self.known = known
        self.images = images
        self.modality = modality
        self.facts = facts or {}
        self.batch = _BATCH
        self.compute: Compute | None = None
        self.numerics = Numerics()
        self.eval().requires_grad_(False)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes in the training data, by number; None if they have no names or none is known."""
        names = self.facts.get("data", {}).get("class_names")
        return tuple(map(str, names)) if isinstance(names, list | tuple) and len(names) == self.classes else None

    @property
    def space(self) -> VolumeSpace:
        """What the levels and the grid of its volumes stand for, as far as the training data tell."""
        found = self.facts.get("data", {}).get("space")
        return VolumeSpace() if found is None else VolumeSpace.from_payload(found)

    @property
    def drawing(self) -> Drawing:
        """How its samples are drawn."""
        return drawing_of(self.modality, self.space)

    @property
    def told(self) -> Told:
        """What it is told about each sample."""
        return Told(self.classes, self.class_names, self.known)

    @property
    def conditions(self) -> Conditions | None:
        """The parts of the conditions that the model is told; None if it is told classes, or nothing."""
        return self.told.conditions

    @property
    def label_width(self) -> int:
        """K, the length of the vector that the networks are conditioned on, or 0 for none."""
        return self.told.width

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return next(self.networks.parameters()).device

    def forward(self, drawn: Tensor, label: Tensor | None = None) -> Tensor:
        """Draws of the prior, as `latents` returns them -> samples [B, C, *S] in [-1, 1]."""
        return self.sampler.generate(drawn, label)

    def latents(self, n: int, seed: int = 0, start: int = 0) -> Tensor:
        """Draws of the prior with indexes from `start` on, [n, ...], on the CPU: the noise of samples.

        Raises ValueError for a seed outside [0, 2^64).
        """
        return self._prior(n, SampleNoise.of(seed, range(start, start + n)))

    def latents_of(self, seeds: Sequence[int]) -> Tensor:
        """The draw with index 0 of each seed, [n, ...], on the CPU. Raises as `latents`."""
        return self._prior(len(seeds), SampleNoise(seeds, [0] * len(seeds)))

    def sample(
        self,
        n: int,
        classes: Class | Iterable[Class] | None = None,
        seed: int = 0,
        truncation: float = 1.0,
        conditions: Given | Iterable[Given] | None = None,
        directions: Mapping[str, float] | None = None,
    ) -> Samples:
        """`n` samples, uint8 [n, C, *S]; sample i depends only on the seed, i and its class, not on `n`.

        classes: one class for all, or several taken in turn, each by number or name; by default all in turn. Integers
        of any type are numbers. conditions: values by part, {"digit": 7, "age": 0.3}, for all samples, or several of
        these taken in turn; parts that are not given are those of samples in the training data, as they occur
        together. truncation: the factor by which the noise is scaled towards its mean 0, from 1 (none) to 0.
        directions: coordinates by name that all samples get after that, {"slant": 1.5}, usually from -2 to 2 (see
        `directions`). Raises ValueError for a class, condition or direction that the model does not have, for classes
        given to an unconditional model, and if latents cannot be scaled or have no directions.
        """
        if n < 1:
            raise ValueError(f"n is {n}; ask for at least 1 sample")
        drawn, label = self.latents(n, seed), self.labels(n, classes, conditions, seed)
        if not directions:
            return Samples.of(self.generate(drawn, label, truncation), self.modality, self.space)
        self._check_truncation(truncation)
        moved = self.directions_for(directions).set(drawn * truncation, directions)
        return Samples.of(self.generate(moved, label), self.modality, self.space)

    def directions(
        self,
        kinds: Sequence[str] = ("scores", "pca"),
        count: int = 8,
        scores: Mapping[str, Score] | None = None,
        samples: int = 1000,
    ) -> Directions:
        """Directions of the latent space: measured scores, "pca" of activations, and "sefa" in closed form.

        Arguments and errors as for `find_directions`, whose result is a function of the model and of these arguments.
        """
        return find_directions(self, kinds, count, scores, samples)

    def directions_for(self, names: Iterable[str]) -> Directions:
        """The directions that these names mean: those that the model was exported with, or those that are found."""
        known = self._known_directions
        if set(names) <= set(known.names):
            return known
        closed = [name for name in names if name.startswith(KINDS[-1])]
        found = [self._closed_directions] if closed else []
        if len(closed) < len(list(names)):
            found.append(self._found_directions)
        joined = Directions(entry for each in (known, *found) for entry in each.entries)
        for name in names:
            joined.named(name)
        return joined

    @cached_property
    def _known_directions(self) -> Directions:
        return Directions.from_payload(self.facts.get("directions", []))

    @cached_property
    def _found_directions(self) -> Directions:
        return self.directions()

    @cached_property
    def _closed_directions(self) -> Directions:
        return self.directions(KINDS[-1:])

    @torch.inference_mode()
    def generate(self, drawn: Tensor, label: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Draws of the prior, as `latents` returns them -> samples uint8 [B, C, *S]. label: as `labels` returns it."""
        self._check_truncation(truncation)
        check_latents(drawn, [self.drawn_dims], codes=not self.gaussian)
        self._check_label(label, len(drawn))
        compute = self.compute or self
        return self._in_batches(lambda *rows: to_stored(compute(*rows), self.shape.bits), drawn * truncation, label)

    def _check_truncation(self, truncation: float) -> None:
        if not 0 <= truncation <= 1:
            raise ValueError(f"truncation {truncation:g} is outside [0, 1]: 0 is the mean latent, 1 no truncation")
        if truncation != 1 and not self.gaussian:
            raise ValueError(f"truncation {truncation:g}: this model's latents are codes, which have no mean")

    def encode(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """Latents of samples uint8 [B, C, *S]."""
        raise NotImplementedError

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Samples from latents, uint8 [B, C, *S]."""
        raise NotImplementedError

    def grid(self, path: str | Path, rows: int = 10, seed: int = 0) -> None:
        """Write a picture of samples to a file, with one column per class (the first 20), or ten columns.

        path: a PNG, or ends with .webp or .mp4, where clips play and volumes turn. Of conditions, the first part that
        is a class is that of the columns. Raises ValueError if PyAV is missing for an MP4.
        """
        first = self.conditions.first_class if self.conditions is not None else None
        columns = min(self.classes if first is None else first.size, _MOST_COLUMNS) or 10
        given = [{first.name: name} for name in first.names[:columns]] if first is not None else None
        samples = self.sample(rows * columns, range(columns) if self.classes else None, seed, conditions=given)
        extension = Path(path).suffix[1:].lower()
        written = extension if extension in FILMS else "png"
        Path(path).write_bytes(self.drawing.as_file(samples.cpu().numpy(), columns, written))

    def labels(
        self,
        n: int,
        classes: Class | Iterable[Class] | None = None,
        conditions: Given | Iterable[Given] | None = None,
        seed: int = 0,
    ) -> Tensor | None:
        """Labels for `n` samples: int64 [n], weights [n, K] if a class is a blend, or conditions float32 [n, K].

        None for an unconditional model. Of conditions, parts that are not given depend on seed + i for sample i.
        Arguments and errors as for `sample`.
        """
        label = self.told.labels(n, classes, conditions, seed)
        return None if label is None else torch.from_numpy(label)

    def _check_label(self, label: Tensor | None, batch: int) -> None:
        if self.conditions is not None:
            check_conditions(label, batch, self.conditions.width)
        else:
            check_label(label, batch, self.classes)

    @cached_property
    def drawn_dims(self) -> tuple[int, ...]:
        """Shape of one draw of the prior."""
        return tuple(self.latents(1).shape[1:])

    def _prior(self, n: int, noise: SampleNoise) -> Tensor:
        """Draws of the prior, [n, ...]."""
        return self.sampler.prior(n, noise)

    def _in_batches(self, function: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """Apply a function of rows, [N, ...] each or None -> [N, ...], in batches of `batch`, padding the last one."""
        given = [None if rows is None else rows.to(self.device) for rows in inputs]
        count = next(len(rows) for rows in given if rows is not None)
        parts = []
        for start in range(0, count, self.batch):
            some = [None if rows is None else _filled(rows[start : start + self.batch], self.batch) for rows in given]
            with self.numerics.applied():
                parts.append(function(*some)[: count - start])
        return torch.cat(parts)


def _filled(rows: Tensor, count: int) -> Tensor:
    """Rows [n, ...] padded to `count` by repeating the last."""
    missing = count - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
