"""A generator as it trains: a grid of the same latents, and figures of generated samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from imagegen_dist.data.modality import to_uint8
from imagegen_dist.distributed import World
from imagegen_dist.evaluation.asked_classes import AskedClasses
from imagegen_dist.evaluation.evaluator import Copies, Dataset
from imagegen_dist.evaluation.generated import column_labels, grid_label, score_generated
from imagegen_dist.evaluation.memorisation import CAPTION, PICTURE_OF_COPIES, look_for_copies
from imagegen_dist.evaluation.named_reference import can_compare, find_reference
from imagegen_dist.evaluation.reference import Reference
from imagegen_dist.experiment import Experiment, conditioning
from imagegen_dist.noise import SampleNoise
from imagegen_dist.objectives.interface import Generates
from imagegen_dist.storage import Store

GRID_ROWS = 10
"""Samples of each class in a grid."""


class GANEvaluator:
    """Looks at the averaged generator: a grid of the same latents, a column a class; figures of generated samples."""

    figure = "frechet"
    picture = "grid"
    picture_note = "The same latents"
    more_pictures: Mapping[str, str] = MappingProxyType({PICTURE_OF_COPIES: CAPTION})

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
        self._sampler = cast(Generates, experiment.objective).sampler(networks)
        self._experiment = experiment
        self._training = training
        self._held_out = held_out
        self._cache = cache
        self._world = world
        self._device = device
        self._say = say
        self._classes = conditioning(experiment, training.index.classes)
        self._reference: Reference | None = None

    def figures(self) -> dict[str, float]:
        """ "frechet" of generated samples, "frechet_real" of held-out real ones beside it; "label_agreement" where the
        generator is told the class, and where it is not, "modes", how many classes it makes, and "modes_kl".
        """
        evaluation = self._experiment.evaluation
        if not evaluation.samples or not can_compare(evaluation, self._training.index):
            return {}
        if self._reference is None:
            self._reference = find_reference(
                self._cache,
                self._training,
                self._held_out,
                evaluation,
                self._world,
                self._device,
                self._say,
            )
        reference = self._reference
        asked = evaluation.samples, self._asked
        figures = score_generated(self._generate, *asked, reference, self._world, self._device)
        if reference.real_frechet is not None:
            figures["frechet_real"] = reference.real_frechet
        if reference.accuracy is not None:
            figures["classifier_accuracy"] = reference.accuracy
        return figures

    @property
    def column_labels(self) -> Mapping[str, Sequence[str]]:
        """The classes of the grid's columns."""
        return {"grid": column_labels(self._columns, self._classes, self._training.index.class_names)}

    @property
    def _columns(self) -> int:
        return self._classes if 0 < self._classes <= 20 else 10

    @torch.no_grad()
    def pictures(self) -> dict[str, tuple[np.ndarray, int]]:
        """The grid, rounded as a stored image is."""
        count, columns = self._columns * GRID_ROWS, self._columns
        label = grid_label(count, columns, self._classes, self._device)
        noise = SampleNoise.of(self._experiment.training.seed, range(count), self._device)
        return {"grid": (to_uint8(self._generate(count, noise, label)).cpu().numpy(), columns)}

    def copies(self) -> Copies | None:
        """Samples and their nearest training samples: in the features of the labels' classifier, or else as pixels."""
        evaluation, network = self._experiment.evaluation, self._reference.network if self._reference else None
        of = self._training, self._held_out, network, self._device, World(heed=self._world.heed)
        return look_for_copies(self._generate, self._asked, evaluation, *of)

    @property
    def _asked(self) -> AskedClasses:
        counted = self._reference.class_counts.tolist() if self._reference else ()
        distribution = self._experiment.evaluation.label_distribution
        return AskedClasses.as_in(self._classes, self._training.index, distribution, counted)

    def _generate(self, count: int, noise: SampleNoise, label: Tensor | None) -> Tensor:
        return self._sampler.generate(self._sampler.prior(count, noise), label)
