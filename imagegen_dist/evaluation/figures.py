"""The available metrics, and how each is computed from what was measured of generated and of real samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.evaluation.copying import Closest
from imagegen_dist.evaluation.engine import Answers
from imagegen_dist.evaluation.feature_networks import DINOV2, INCEPTION
from imagegen_dist.evaluation.groups import Groups
from imagegen_dist.extensions import record
from imagegen_dist.metrics.by_class import frechet_by_class
from imagegen_dist.metrics.class_scores import SPLITS
from imagegen_dist.metrics.features import FeatureSums
from imagegen_dist.metrics.frechet import frechet_distance
from imagegen_dist.metrics.kernel_distance import SUBSET_SIZE, SUBSETS, kernel_distance
from imagegen_dist.metrics.modes import mode_coverage, perfect_kl
from imagegen_dist.metrics.neighbourhoods import DENSITY_K, PRECISION_K, Neighbourhoods, neighbourhoods
from imagegen_dist.metrics.recognition import of_real_samples

DEFAULT_METRICS = ("fid", "kid", "pr", "dc", "is")

COPIES = "copies"
"""The metric that compares with training data, whatever the others compare with."""

_DISTANCES = {INCEPTION: ("fid", "kid", "inception_score"), **dict.fromkeys(DINOV2, ("fd_dinov2", "kd_dinov2", ""))}
_OTHER = ("frechet", "kernel_distance", "class_score")  # prefixes of metrics in further networks' features


@dataclass(frozen=True)
class Figure:
    """A value of a metric, with what it depends on.

    name: as it is stored; the metric table has its label, unit and direction. deviation: over subsets or splits of
    samples, if any. settings: what else the value depends on.
    """

    name: str
    value: float
    deviation: float | None = None
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Comparison:
    """What was measured of generated and of real samples in one network's features.

    kind: of the network. answers: its predictions, if it is a classifier. class_counts: samples of each class in its
    training data, [K]. subset_size: of the kernel distance; 0: 1,000, or all if there are fewer. seed: draws its
    subsets. recognised: how well the network recognises conditions of held-out samples, by the names of
    `Recognition.figures`. groups: the classes of the samples whose features are kept, if a metric is taken by class.
    """

    generated: FeatureSums
    real: FeatureSums
    kind: str = ""
    answers: Answers = field(default_factory=Answers)
    class_counts: Tensor | None = None
    subset_size: int = 0
    seed: int = 0
    recognised: Mapping[str, float] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, str, str]:
        """Names of the Fréchet distance, the kernel distance and the inception score in this network's features."""
        return _DISTANCES.get(self.kind, _OTHER)

    @cached_property
    def neighbourhoods(self) -> Neighbourhoods:
        """Precision, recall, density and coverage."""
        return neighbourhoods(self.generated.features(), self.real.features())


Compute = Callable[[Comparison], list[Figure]]


@dataclass(frozen=True)
class MetricFunction:
    """How the metrics of one name are computed."""

    summary: str
    compute: Compute
    # True if samples are compared pairwise: the features themselves must be collected.
    of_each_sample: bool = False
    # True if it needs a classifier of the dataset's own labels, whatever the feature network of the others.
    of_a_classifier: bool = False
    # True if every sample's class scores are needed.
    scored: bool = False
    # True if samples are compared class by class: the labels themselves must be read.
    by_label: bool = False


METRICS: dict[str, MetricFunction] = {}
"""What can be requested, by name on the command line, in the order of tables."""


def register_metric(name: str, summary: str, **needs: bool) -> Callable[[Compute], Compute]:
    """Decorator of a function that computes metrics; `needs`: fields of `MetricFunction`.

    Your own metric is one such function in your own package. `imagegen_dist.metric_table.register` gives its values a
    label, a unit and a direction.
    """

    def register(compute: Compute) -> Compute:
        METRICS[name] = MetricFunction(summary, compute, **needs)
        record(compute.__module__)
        return compute

    return register


def compare(asked: Iterable[str], comparison: Comparison) -> list[Figure]:
    """The requested metrics. Raises ValueError if there are too few samples."""
    asked = set(asked)
    computed = (figure for name, each in METRICS.items() if name in asked for figure in each.compute(comparison))
    return list({figure.name: figure for figure in computed}.values())


@register_metric("fid", "Fréchet distance")
def _frechet_distance(of: Comparison) -> list[Figure]:
    return [Figure(of.names[0], frechet_distance(of.generated.moments, of.real.moments))]


@register_metric("kid", "kernel distance", of_each_sample=True)
def _kernel_distance(of: Comparison) -> list[Figure]:
    a, b = of.generated.features(), of.real.features()
    size = of.subset_size or min(SUBSET_SIZE, len(a), len(b))
    mean, deviation = kernel_distance(a, b, SUBSETS, size, of.seed)
    settings = {"subsets": SUBSETS, "subset_size": size, "subset_seed": of.seed}
    return [Figure(of.names[1], mean, deviation, settings)]


@register_metric("pr", "precision and recall", of_each_sample=True)
def _precision_and_recall(of: Comparison) -> list[Figure]:
    settings = {"k": PRECISION_K}
    return [Figure(name, getattr(of.neighbourhoods, name), None, settings) for name in ("precision", "recall")]


@register_metric("dc", "density and coverage", of_each_sample=True)
def _density_and_coverage(of: Comparison) -> list[Figure]:
    settings = {"k": DENSITY_K}
    return [Figure(name, getattr(of.neighbourhoods, name), None, settings) for name in ("density", "coverage")]


@register_metric("is", "inception score", scored=True)
def _inception_score(of: Comparison) -> list[Figure]:
    assert of.generated.scores is not None
    return [Figure(of.names[2], *of.generated.scores.score(), {"splits": SPLITS})]


@register_metric("agreement", "share of samples with the requested class", of_a_classifier=True)
def _agreement(of: Comparison) -> list[Figure]:
    return [Figure("label_agreement", of.answers.right / of.answers.asked)]


@register_metric("conditions", "agreement of classes, accuracy of attributes, R² of numbers", of_a_classifier=True)
def _conditions(of: Comparison) -> list[Figure]:
    assert of.answers.recognised is not None
    figures = []
    for name, value in of.answers.recognised.figures().items():
        figures.append(Figure(name, value))
        if name in of.recognised:
            figures.append(Figure(of_real_samples(name), of.recognised[name]))
    return figures


@register_metric("modes", "number of the data's classes covered, and how evenly", of_a_classifier=True)
def _modes(of: Comparison) -> list[Figure]:
    assert of.class_counts is not None
    shown, counts = of.answers.shown, of.class_counts
    covered, there_are = mode_coverage(shown, counts.to(shown)), int((counts > 0).sum())
    by_chance = {"perfect_sampler": round(perfect_kl(there_are, int(shown.sum())), 4)}
    return [
        Figure("modes", float(covered.modes), None, {"of": there_are}),
        Figure("modes_kl", covered.kl, None, by_chance),
    ]


@register_metric("by-class", "Fréchet distance within and across classes", of_each_sample=True, by_label=True)
def _by_class(of: Comparison) -> list[Figure]:
    generated, real = of.generated.features(), of.real.features()
    figures = []
    for part, (asked, shown) in of.groups.items():
        found = frechet_by_class(generated, real, asked[: len(generated)], shown[: len(real)])
        if found is None:
            continue
        settings = {"classes": found.classes, "samples_of_the_rarest": found.fewest}
        for where in ("within", "across"):
            name = "/".join(filter(None, (f"{of.names[0]}_{where}", part)))
            figures.append(Figure(name, getattr(found, where), None, settings))
    if of.groups and not figures:
        raise ValueError(
            f"by-class: of {len(generated):,} generated and {len(real):,} real samples, no two classes have two on "
            "both sides; ask for more samples"
        )
    return figures


@register_metric("fd-dinov2", "Fréchet distance in DINOv2's features")
def _frechet_distance_in_dinov2(of: Comparison) -> list[Figure]:
    return _frechet_distance(of)


@register_metric(COPIES, "whether samples copy training samples, and a picture of the nearest", of_each_sample=True)
def _copies(of: Comparison) -> list[Figure]:
    return []  # compared with other samples: `figures_of_copies`


def compare_reconstructions(kind: str, rebuilt: FeatureSums, real: FeatureSums) -> Figure:
    """The Fréchet distance between a VAE's reconstructions and their originals."""
    name = f"{_DISTANCES.get(kind, _OTHER)[0]}_reconstruction"
    return Figure(name, frechet_distance(rebuilt.moments, real.moments))


def figures_of_copies(closest: Closest, samples: int, searched: int) -> list[Figure]:
    """Metrics of copying. searched: number of training samples that were compared."""
    settings = {"samples": samples, "training_samples": searched}
    return [Figure(name, value, None, settings) for name, value in closest.figures.items()]


def check_training_metrics(asked: Iterable[str]) -> None:
    """Raise ValueError for metrics that are not computed during training.

    The search for copies and the metrics of a classifier have settings of their own there; class scores are not summed
    over ranks.
    """
    for name in asked:
        known = [each for each, of in METRICS.items() if each != COPIES and not (of.of_a_classifier or of.scored)]
        if name not in known:
            raise ValueError(
                f"--evaluation.metrics {name}: available during training are {', '.join(known)}; `imagegen evaluate` "
                "computes the others"
            )


def check_metrics(asked: Iterable[str], kind: str, scores_classes: bool) -> None:
    """Raise ValueError if a network cannot give a metric.

    kind: of the network; scores_classes: True if it is a classifier.
    """
    for metric in asked:
        if metric == "is" and not scores_classes:
            raise ValueError(
                f"--metrics is: features {kind} have no classes; leave it out, or set --features inception"
            )
        if metric == "modes" and not scores_classes:
            raise ValueError(
                "--metrics modes counts classes, of which the data's conditions have no part: leave it out"
            )


def check_requests(asked: Iterable[str], classes: int, told: Conditions | None, labelled: bool) -> None:
    """Raise ValueError for a metric that compares with requests which a model does not take.

    classes: number of classes of the model, 0 for none; told: its conditions. labelled: True if the real samples are
    labelled as the model's.
    """
    for metric in asked:
        if metric == "agreement" and not (classes or (told is not None and told.only_class is not None)):
            instead = "set conditions" if told is not None else "evaluate a class-conditional model"
            raise ValueError(
                f"--metrics agreement compares predicted with requested classes: leave it out, or {instead}"
            )
        if metric == "conditions" and told is None:
            instead = "set agreement" if classes else "leave it out"
            raise ValueError(f"--metrics conditions: the model is not told conditions; {instead}")
        if METRICS[metric].by_label and not (labelled and (classes or told is not None)):
            raise ValueError(
                f"--metrics {metric} compares samples class by class: evaluate a conditional model, with real samples "
                "that are labelled as its own"
            )
