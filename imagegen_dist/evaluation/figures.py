"""Which figures there are, and how each follows from what was measured of generated and of real samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from imagegen_dist.evaluation.engine import Answers
from imagegen_dist.evaluation.feature_networks import DINOV2, INCEPTION
from imagegen_dist.evaluation.memorisation import Closest
from imagegen_dist.metrics.class_scores import SPLITS
from imagegen_dist.metrics.features import FeatureSums
from imagegen_dist.metrics.frechet import frechet_distance
from imagegen_dist.metrics.kernel_distance import SUBSET_SIZE, SUBSETS, kernel_distance
from imagegen_dist.metrics.modes import mode_coverage, perfect_kl
from imagegen_dist.metrics.neighbourhoods import DENSITY_K, PRECISION_K, neighbourhoods

METRICS: Mapping[str, str] = {
    "fid": "Fréchet distance",
    "kid": "kernel distance",
    "pr": "precision and recall",
    "dc": "density and coverage",
    "is": "inception score",
    "agreement": "share of samples that are of the class asked for",
    "modes": "how many of the data's classes come, and how evenly",
    "fd-dinov2": "Fréchet distance in DINOv2's features",
    "copies": "whether samples repeat training samples, and a picture of the nearest",
}
"""What may be asked for, by the name on the command line."""

DEFAULT_METRICS = ("fid", "kid", "pr", "dc", "is")

OF_A_CLASSIFIER = ("agreement", "modes")
"""Those that ask a classifier of the dataset's own labels, whatever features the others are in."""

COPIES = "copies"
"""What is held against the training data, whatever the others are held against."""

OF_EACH_SAMPLE = ("kid", "pr", "dc", COPIES)
"""Those that compare samples one by one: the features themselves have to be brought together."""

_DISTANCES = {INCEPTION: ("fid", "kid", "inception_score"), **dict.fromkeys(DINOV2, ("fd_dinov2", "kd_dinov2", ""))}
_OTHER = ("frechet", "kernel_distance", "class_score")  # names that are no other network's


@dataclass(frozen=True)
class Figure:
    """A measured value with what it depends on.

    name: as it is stored; the metric table has its label, unit and direction. deviation: over subsets or runs of
    samples, where there are any. settings: what else decides the value.
    """

    name: str
    value: float
    deviation: float | None = None
    settings: Mapping[str, Any] | None = None


def compare(
    asked: Iterable[str],
    kind: str,
    generated: FeatureSums,
    real: FeatureSums,
    answers: Answers,
    class_counts: Tensor | None = None,
    subset_size: int = 0,
    seed: int = 0,
) -> list[Figure]:
    """The figures asked for, in one network's features.

    kind: of the network. answers: of the classifier, where it is one. class_counts: samples of each class in its
    training data, [K]. subset_size: of the kernel distance; 0: 1,000, or all where there are fewer. seed: draws its
    subsets. Raises ValueError where there are too few samples.
    """
    asked = set(asked)
    names = _DISTANCES.get(kind, _OTHER)
    figures = []
    if asked & {"fid", "fd-dinov2"}:
        figures.append(Figure(names[0], frechet_distance(generated.moments, real.moments)))
    if "kid" in asked:
        a, b = generated.features(), real.features()
        size = subset_size or min(SUBSET_SIZE, len(a), len(b))
        mean, deviation = kernel_distance(a, b, SUBSETS, size, seed)
        settings = {"subsets": SUBSETS, "subset_size": size, "subset_seed": seed}
        figures.append(Figure(names[1], mean, deviation, settings))
    if asked & {"pr", "dc"}:
        found = neighbourhoods(generated.features(), real.features())
        if "pr" in asked:
            settings = {"k": PRECISION_K}
            figures += [Figure(name, getattr(found, name), None, settings) for name in ("precision", "recall")]
        if "dc" in asked:
            settings = {"k": DENSITY_K}
            figures += [Figure(name, getattr(found, name), None, settings) for name in ("density", "coverage")]
    if "is" in asked:
        assert generated.scores is not None
        figures.append(Figure(names[2], *generated.scores.score(), {"splits": SPLITS}))
    if "agreement" in asked:
        figures.append(Figure("label_agreement", answers.right / answers.asked))
    if "modes" in asked:
        assert class_counts is not None
        covered, there_are = mode_coverage(answers.shown, class_counts.to(answers.shown)), int((class_counts > 0).sum())
        by_chance = {"perfect_sampler": round(perfect_kl(there_are, int(answers.shown.sum())), 4)}
        figures.append(Figure("modes", float(covered.modes), None, {"of": there_are}))
        figures.append(Figure("modes_kl", covered.kl, None, by_chance))
    return figures


def compare_reconstructions(kind: str, rebuilt: FeatureSums, real: FeatureSums) -> Figure:
    """The Fréchet distance of a VAE's reconstructions from what they are reconstructions of."""
    name = f"{_DISTANCES.get(kind, _OTHER)[0]}_reconstruction"
    return Figure(name, frechet_distance(rebuilt.moments, real.moments))


def figures_of_copies(closest: Closest, samples: int, searched: int) -> list[Figure]:
    """What was found of samples that may repeat training samples. searched: how many of these were looked through."""
    settings = {"samples": samples, "training_samples": searched}
    return [Figure(name, value, None, settings) for name, value in closest.figures.items()]


def check_metrics(asked: Iterable[str], kind: str, scores_classes: bool, known: int) -> None:
    """Raise ValueError where a network cannot give a metric.

    kind: of the network; scores_classes: whether it is a classifier. known: classes that the model is told.
    """
    for metric in asked:
        if metric == "is" and not scores_classes:
            raise ValueError(
                f"--metrics is: features {kind} have no classes; leave it out, or set --features inception"
            )
        if metric == "agreement" and not known:
            raise ValueError(
                "--metrics agreement asks a classifier if samples are of the class that they were asked for: leave it "
                "out, or evaluate a class-conditional model"
            )
