"""Evaluation during training: metrics and pictures of the averaged networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import drawing_of, to_uint8
from imagegen_dist.decoding.pictures import Decoding
from imagegen_dist.distributed import World, together
from imagegen_dist.evaluation.copying import CAPTION, PICTURE_OF_COPIES, Copies, look_for_copies
from imagegen_dist.evaluation.encoding import COLUMNS, Encoded
from imagegen_dist.evaluation.engine import Generated, Measured, Real, Wanted, over_ranks
from imagegen_dist.evaluation.figures import (
    METRICS,
    Comparison,
    Figure,
    agreement_of_reconstructions,
    check_training_metrics,
    compare,
    compare_reconstructions,
    distance_of,
)
from imagegen_dist.evaluation.grid import Grid
from imagegen_dist.evaluation.groups import Groups, groups_of
from imagegen_dist.evaluation.named_reference import can_compare, find_reference
from imagegen_dist.evaluation.reference import Reference
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.evaluation.traversal import SPAN
from imagegen_dist.evaluation.weightless import WEIGHTLESS
from imagegen_dist.evaluation.weightless_reference import WeightlessReference, find_weightless
from imagegen_dist.experiment import Experiment, conditioning
from imagegen_dist.metrics.features import KEPT_AT_MOST, FeatureSums
from imagegen_dist.objectives.interface import Generates
from imagegen_dist.objectives.variational import Autoencodes
from imagegen_dist.storage import Store

_NO_WEIGHTLESS = WeightlessReference()


class Evaluator:
    """Evaluates everything that an experiment's objective offers, with its averaged networks, given by role.

    A sampler's generated samples, and an autoencoder's reconstructions of held-out samples, or else of training
    samples. cache: for what is computed once. say: called with a message before long computations. together: chunks of
    samples that a network takes at once. decoding: of generated latents; training and held_out are then
    the datasets that decoded samples, or latents if it measures these, are compared with.
    """

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
        together: int = 1,
        decoding: Decoding | None = None,
    ) -> None:
        check_training_metrics(experiment.evaluation, training.index)
        self._evaluation, self._seed = experiment.evaluation, experiment.training.seed
        self._training, self._held_out = training, held_out
        self._cache, self._world, self._device, self._say = cache, world, device, say
        self._together = together
        self._classes = conditioning(experiment, training.index.classes)
        told = bool(conditioning(experiment, training.index.labels))
        self._grid = Grid(training.index, self._classes, told)
        self._compares = can_compare(experiment.evaluation, training.index)
        self._reference: Reference | None = None
        self._real: FeatureSums | None = None
        self._weightless: WeightlessReference | None = None
        objective = experiment.objective
        self._sampler = self._shown = objective.sampler(networks) if isinstance(objective, Generates) else None
        if self._sampler and decoding:
            self._sampler, self._shown = decoding.measured(self._sampler), decoding.shown(self._sampler)
        self._encoded: Encoded | None = None
        if isinstance(objective, Autoencodes):
            looked_at = held_out or training
            count = min(self._evaluation.samples, looked_at.index.samples)
            importance_samples, factors = self._evaluation.importance_samples, self._evaluation.factors
            self._encoded = Encoded(
                *(objective.autoencoder(networks), looked_at, count, (), device, told),
                *(importance_samples, factors, 1 if importance_samples else together),
            )
        comparisons = (name for name in objective.best if self._compares or not name.startswith("frechet"))
        self.figure = next(comparisons, distance_of(training.index.modality) or objective.best[-1])
        """The metric by which the best checkpoint is kept."""

    @property
    def picture(self) -> str:
        """The picture that the report shows over time."""
        return "reconstructions" if self._encoded else "grid"

    @property
    def generated_picture(self) -> str:
        """The picture of generated samples."""
        return "samples" if self._encoded else "grid"

    @property
    def picture_note(self) -> str:
        """Caption of that picture."""
        if self._encoded:
            return "Held-out samples, each above its reconstruction,"
        return "The same latents" + (f", {self._grid.rows_note}," if self._grid.rows_note else "")

    @property
    def more_pictures(self) -> Mapping[str, str]:
        """Pictures that the report shows once, with their captions."""
        of_latents = {
            "samples": "Samples of the prior",
            "traversals": f"One row per latent, from {-SPAN:g} to {SPAN:g}; the one with the highest rate on top",
        }
        further = drawing_of(self._training.index.modality, self._training.index.space).further
        return {**(of_latents if self._encoded else {}), **further, PICTURE_OF_COPIES: CAPTION}

    @property
    def column_labels(self) -> Mapping[str, Sequence[str]]:
        """Labels of the columns of pictures: classes of samples, and a latent's values in traversals."""
        classes = self._grid.column_names
        if not self._encoded:
            return {"grid": classes}
        values = [f"{-SPAN + 2 * SPAN * at / (COLUMNS - 1):.1f}" for at in range(COLUMNS)]
        return {"samples": classes, "traversals": values}

    def figures(self) -> dict[str, float]:
        """Metrics by plain name; called on every rank, equal on all of them; empty if none is available.

        Of encoded samples, those of `Encoded.figures`. With a feature network: "frechet" of generated samples;
        "label_agreement" for a conditional model, or "modes", the number of classes covered, and "modes_kl" for an
        unconditional one; of a model that is told conditions, how well each part of them is recognised
        (`Recognition.figures`); "frechet_reconstruction"; and for comparison "frechet_real" of held-out samples and
        "classifier_accuracy", with "classifier_chance" if it is near chance (`metrics.chance.doubts`). Of videos and
        volumes, with or without such a network, the distances of `WeightlessReference`, of samples and of
        reconstructions.
        """
        if not self._evaluation.samples:
            return {}
        reference = self._find_reference() if self._compares else None
        weightless = self._find_weightless()
        figures = self._of_encoded(reference, weightless) if self._encoded else {}
        if reference is None and not weightless.networks:
            return figures
        if self._sampler:
            generated = self._generated(self._evaluation.samples)
            real = self._real_in(reference) if reference else None
            groups = self._groups_of(generated, real) if self._by_label and real else {}
            metrics = self._evaluation.metrics
            figures |= score_generated(generated, reference, self._world, metrics, real, groups, weightless)
        if reference is not None:
            if reference.real_frechet is not None:
                figures["frechet_real"] = reference.real_frechet
            if reference.accuracy is not None and (not self._encoded or "reconstruction_agreement" in figures):
                figures["classifier_accuracy"] = reference.accuracy
            figures |= reference.doubts
        return figures

    @torch.no_grad()
    def pictures(self) -> dict[str, tuple[np.ndarray, int]]:
        """Pictures by name: samples uint8 [N, C, *S] and the number of columns; called on rank 0.

        Samples with the same noise, one column per class, rounded as stored ones are; and those of `Encoded.pictures`.
        """
        found = dict(self._encoded.pictures()) if self._encoded else {}
        if self._shown:
            samples = self._grid.samples(self._shown, self._seed, self._device)
            found[self.generated_picture] = to_uint8(samples).cpu().numpy(), self._grid.columns
        return found

    def copies(self) -> Copies | None:
        """Whether the trained model copies training samples; None if that is not requested.

        Samples and their nearest training samples, in the features of the reference, or else as pixels. Called on rank
        0, after `figures`.
        """
        if not self._sampler:
            return None
        network, alone = self._reference.network if self._reference else None, World(heed=self._world.heed)
        generated = self._generated(self._evaluation.samples)
        return look_for_copies(generated, self._evaluation, self._training, self._held_out, network, alone)

    def _of_encoded(self, reference: Reference | None, weightless: WeightlessReference) -> dict[str, float]:
        """Metrics of encoded samples, and of their reconstructions in the features of every network."""
        assert self._encoded is not None
        wanted = [Wanted(reference.network, answers=True)] if reference else []
        encoded = replace(self._encoded, wanted=[*wanted, *weightless.wanted])
        rebuilt = over_ranks(encoded, self._world, self._device)
        assert rebuilt.encoded is not None
        sums, features = rebuilt.encoded, rebuilt.features
        real = self._real_in(reference) if reference else None

        def compare_all() -> dict[str, float]:
            found = [compare_reconstructions("", features[0], real)] if real else []
            found += agreement_of_reconstructions(rebuilt.answers)
            found += weightless.compare_reconstructions(features[len(wanted) :])
            return encoded.figures(sums) | {each.name: each.value for each in found}

        return together(compare_all, self._world, self._device)

    def _generated(self, samples: int) -> Generated:
        """Samples of seed 0, with the classes that the settings request."""
        assert self._sampler is not None
        counted: Sequence[int] = self._reference.class_counts.tolist() if self._reference else ()
        distribution = self._evaluation.label_distribution
        classes = RequestedClasses.as_in(self._classes, self._training.index, distribution, counted)
        if self._grid.told:
            classes = replace(classes, conditions=self._training.index.known_conditions)
        bits = self._training.index.shape.bits
        return Generated(self._sampler, samples, 0, classes, (), self._device, self._together, bits)

    def _real_in(self, reference: Reference) -> FeatureSums:
        """The reference's moments of training samples, with the features of the first ones if a metric needs them."""
        if self._real is None:
            self._real = FeatureSums(reference.moments)
            if _needs_features(self._evaluation.metrics):
                count = min(self._evaluation.samples, self._training.index.samples)
                first = Real(self._training, count, [Wanted(reference.network, keep=True)], self._device)
                measured = over_ranks(first, self._world, self._device).features[0]
                self._real = replace(measured, moments=reference.moments)
        return self._real

    @property
    def _by_label(self) -> bool:
        return any(METRICS[name].by_label for name in self._evaluation.metrics)

    def _groups_of(self, generated: Generated, real: FeatureSums) -> Groups:
        """The classes of generated samples and of the first training samples; equal on every rank."""
        training, asked = self._training, generated.classes.of(range(min(generated.samples, KEPT_AT_MOST)))
        shown = together(lambda: training.labels(range(len(real.features()))), self._world, self._device)
        return groups_of(asked, shown, training.index.conditions)

    def _find_reference(self) -> Reference:
        """The reference of Fréchet distances; equal on every rank."""
        if self._reference is None:
            of = self._cache, self._training, self._held_out, self._evaluation
            self._reference = find_reference(*of, self._world, self._device, self._say)
        return self._reference

    def _find_weightless(self) -> WeightlessReference:
        """The reference of the distances that need no weights; equal on every rank."""
        if self._weightless is None:
            of = self._cache, self._training, self._held_out, self._evaluation.samples
            self._weightless = find_weightless(*of, self._world, self._device, self._say)
        return self._weightless


def score_generated(
    generated: Generated,
    reference: Reference | None,
    world: World,
    metrics: Sequence[str] = (),
    real: FeatureSums | None = None,
    groups: Groups | None = None,
    weightless: WeightlessReference = _NO_WEIGHTLESS,
) -> dict[str, float]:
    """Metrics of generated samples against a reference, computed by all ranks together.

    "frechet"; for a conditional model, "label_agreement"; for an unconditional one, if the reference has classes,
    "modes" and "modes_kl"; for a model that is told conditions, "conditions"; the further metrics; and the distances
    that need no weights. real: statistics of real samples, by default the reference's moments. groups: the classes of
    samples on both sides, for metrics by class.
    """
    wanted = [Wanted(reference.network, keep=_needs_features(metrics), answers=True)] if reference else []
    measured = over_ranks(replace(generated, wanted=[*wanted, *weightless.wanted]), world, generated.device)
    further = [name for name in metrics if METRICS[name].features not in WEIGHTLESS]

    def compare_all() -> list[Figure]:
        found = _in_features_of(reference, measured, further, real, groups or {}) if reference else []
        return found + weightless.compare(measured.features[len(wanted) :])

    return {each.name: each.value for each in together(compare_all, world, generated.device)}


def _in_features_of(
    reference: Reference, measured: Measured, metrics: Sequence[str], real: FeatureSums | None, groups: Groups
) -> list[Figure]:
    """Metrics in the features of the reference's network; arguments as of `score_generated`."""
    answers, asked = measured.answers, ["fid", *metrics]
    if answers.asked:
        asked.append("agreement")
    elif answers.shown.sum():
        asked.append("modes")
    if answers.recognised is not None:
        asked.append("conditions")
    comparison = Comparison(
        measured.features[0],
        real or FeatureSums(reference.moments),
        answers=answers,
        class_counts=reference.class_counts,
        recognised=reference.recognised,
        groups=groups,
    )
    return compare(asked, comparison)


def _needs_features(metrics: Iterable[str]) -> bool:
    return any(METRICS[name].of_each_sample for name in metrics)
