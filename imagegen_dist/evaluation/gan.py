"""A GAN as it trains: a grid of the same latents, and figures of generated samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import numpy as np
import torch
from torch import nn

from imagegen_dist.data.modality import to_float, to_uint8
from imagegen_dist.distributed import World, sum_over_ranks
from imagegen_dist.evaluation.observer import CHUNK, Dataset
from imagegen_dist.evaluation.reference import Reference, build_reference
from imagegen_dist.experiment import Experiment, conditioning
from imagegen_dist.metrics.features import agreement
from imagegen_dist.metrics.frechet import Moments, frechet_distance
from imagegen_dist.storage import Store
from imagegen_dist.training.loop import keyed_draw

GRID_ROWS = 10
"""Samples of each class in a grid."""


class GANObserver:
    """Looks at the averaged generator: a grid of the same latents, a column a class; figures where data have labels."""

    figure = "frechet"
    higher_is_better = False
    picture = "grid"
    picture_note = "The same latents"
    more_pictures: Mapping[str, str] = MappingProxyType({})

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
        self._generator = networks["generator"]
        self._experiment = experiment
        self._training = training
        self._held_out = held_out
        self._cache = cache
        self._world = world
        self._device = device
        self._say = say
        self._classes = conditioning(experiment, training.index.classes)
        self._z_dim = cast(int, self._generator.z_dim)
        self._reference: Reference | None = None

    def figures(self) -> dict[str, float]:
        """ "frechet" and "label_agreement" of generated samples, "frechet_real" of held-out real ones beside them."""
        evaluation = self._experiment.evaluation
        if not evaluation.samples or not self._training.index.classes:
            return {}
        if self._reference is None:
            self._reference = build_reference(
                self._cache,
                self._training,
                self._held_out,
                evaluation.classifier_images,
                self._world,
                self._device,
                self._say,
            )
        reference = self._reference
        figures = self._of_generated(reference, evaluation.samples)
        if reference.real_frechet is not None:
            figures["frechet_real"] = reference.real_frechet
        if reference.accuracy is not None:
            figures["classifier_accuracy"] = reference.accuracy
        return figures

    @torch.no_grad()
    def pictures(self) -> dict[str, tuple[np.ndarray, int]]:
        """The grid, rounded as a stored image is."""
        columns = self._classes if 0 < self._classes <= 20 else 10
        count = columns * GRID_ROWS
        label = None
        if self._classes:
            label = torch.arange(count, device=self._device) % columns * self._classes // columns
        draw = keyed_draw(self._experiment.training.seed, 0, "grid", 0, self._device)
        x = self._generator(draw.normal(count, self._z_dim), label)
        return {"grid": (to_uint8(x).cpu().numpy(), columns)}

    @torch.no_grad()
    def _of_generated(self, reference: Reference, samples: int) -> dict[str, float]:
        """Figures of `samples` generated samples, their classes in turn; the ranks share the work, all get them."""
        moments = Moments(reference.network.dim, self._device)
        hits = torch.zeros(2, dtype=torch.float64, device=self._device)
        for chunk in range(self._world.rank, -(-samples // CHUNK), self._world.size):
            size = min(CHUNK, samples - chunk * CHUNK)
            draw = keyed_draw(0, 0, "evaluate", chunk, self._device)
            label = None
            if self._classes:
                label = (torch.arange(size, device=self._device) + chunk * CHUNK) % self._classes
            x = to_float(to_uint8(self._generator(draw.normal(size, self._z_dim), label)))
            moments.add(reference.network.features(x))
            if label is not None and reference.network.logits is not None:
                right = agreement(reference.network.logits(x), label).double()
                hits += torch.stack([right.sum(), torch.ones_like(right).sum()])
        moments = moments.reduce(lambda values: sum_over_ranks(values, self._world))
        figures = {"frechet": frechet_distance(moments, reference.moments)}
        right, asked = sum_over_ranks(hits, self._world).tolist()
        if asked:
            figures["label_agreement"] = right / asked
        return figures
