"""The available metrics, and how each is computed from what was measured of generated and of real samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.evaluation.copying import Closest
from imagegen_dist.evaluation.engine import Answers
from imagegen_dist.evaluation.feature_networks import DINOV2, INCEPTION, MODULE
from imagegen_dist.evaluation.groups import Groups
from imagegen_dist.evaluation.weightless import (
    CONTENT,
    MOTION,
    PLANES,
    SPACE_TIME,
    VOLUME,
    WEIGHTLESS,
    main_kind,
    modality_of,
    weightless_kinds,
)
from imagegen_dist.extensions import record
from imagegen_dist.metrics.by_class import frechet_by_class
from imagegen_dist.metrics.class_scores import SPLITS
from imagegen_dist.metrics.components import Components
from imagegen_dist.metrics.features import FeatureSums
from imagegen_dist.metrics.frechet import Moments, frechet_distance
from imagegen_dist.metrics.kernel_distance import SUBSET_SIZE, SUBSETS, jedi, kernel_distance
from imagegen_dist.metrics.modes import mode_coverage, perfect_kl
from imagegen_dist.metrics.neighbourhoods import DENSITY_K, PRECISION_K, Neighbourhoods, neighbourhoods
from imagegen_dist.metrics.recognition import of_real_samples
from imagegen_dist.settings import EvaluationConfig
from imagegen_dist.shape import SampleShape

DEFAULT_METRICS = ("fid", "kid", "pr", "dc", "is")

COPIES = "copies"
"""The metric that compares with training data, whatever the others compare with."""

_DISTANCES = {INCEPTION: ("fid", "kid", "inception_score"), **dict.fromkeys(DINOV2, ("fd_dinov2", "kd_dinov2", ""))}
_OF_VIDEOS = ("fvd", "jedi")
_FVD_FRAMES = 16
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
    held_out: real samples that stand beside both, in the same features, if there are any. accuracy: of the network on
    held-out samples, if it is a classifier.
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
    held_out: FeatureSums | None = None
    accuracy: float | None = None

    @property
    def names(self) -> tuple[str, str, str]:
        """Names of the Fréchet distance, the kernel distance and the inception score in this network's features."""
        return _names(self.kind)

    @cached_property
    def components(self) -> Components | None:
        """In which features of networks without trained weights are compared; None for others."""
        return Components.of(self.real.moments) if self.kind in WEIGHTLESS else None

    def moments_of(self, sums: FeatureSums) -> Moments:
        """The moments that are compared."""
        return sums.moments if self.components is None else self.components.apply(sums.moments)

    def rows_of(self, sums: FeatureSums) -> Tensor:
        """The features that are compared, [N, F]."""
        return sums.features() if self.components is None else self.components.rows(sums.features())

    @cached_property
    def neighbourhoods(self) -> Neighbourhoods:
        """Precision, recall, density and coverage."""
        return neighbourhoods(self.rows_of(self.generated), self.rows_of(self.real))


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
    # The kind of the network in whose features it is, whatever that of the others; "" for theirs.
    features: str = ""


METRICS: dict[str, MetricFunction] = {}
"""What can be requested, by name on the command line, in the order of tables."""


def register_metric(name: str, summary: str, features: str = "", **needs: bool) -> Callable[[Compute], Compute]:
    """Decorator of a function that computes metrics; `features` and `needs`: fields of `MetricFunction`.

    Your own metric is one such function in your own package. `imagegen_dist.metric_table.register` gives its values a
    label, a unit and a direction.
    """

    def register(compute: Compute) -> Compute:
        METRICS[name] = MetricFunction(summary, compute, features=features, **needs)
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
    return [Figure(of.names[0], frechet_distance(of.moments_of(of.generated), of.moments_of(of.real)))]


@register_metric("kid", "kernel distance", of_each_sample=True)
def _kernel_distance(of: Comparison) -> list[Figure]:
    a, b = of.rows_of(of.generated), of.rows_of(of.real)
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
    found = [Figure("label_agreement", of.answers.right / of.answers.asked)]
    return found + ([] if of.accuracy is None else [Figure("classifier_accuracy", of.accuracy)])


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


@register_metric("jedi", "kernel distance of videos in your own network's features, by JEDi's estimator")
def _jedi(of: Comparison) -> list[Figure]:
    return [Figure("jedi", jedi(of.generated.moments, of.real.moments))]


@register_metric("fvd", "Fréchet distance of videos in your own network's features, of 16 frames or more")
def _frechet_video_distance(of: Comparison) -> list[Figure]:
    return [Figure("fvd", frechet_distance(of.generated.moments, of.real.moments))]


def _distances_of(of: Comparison) -> list[Figure]:
    """Fréchet and kernel distance from real samples, and those of held-out samples beside them."""
    assert of.components is not None
    settings, real, figures = {"components": len(of.components.matrix)}, of.moments_of(of.real), []
    for name, distance in ((of.names[0], frechet_distance), (_kernel_name(of.kind), jedi)):
        figures.append(Figure(name, distance(of.moments_of(of.generated), real), None, settings))
        if of.held_out is not None:
            own = {**settings, "samples": of.held_out.moments.count}
            figures.append(Figure(f"{name}_real", distance(of.moments_of(of.held_out), real), None, own))
    return figures


for _kind, _summary in (
    (CONTENT, "distances of videos frame by frame, in random features: blind to time"),
    (SPACE_TIME, "distances of whole videos, in random 3-D features"),
    (MOTION, "distances of how videos move, by velocity and acceleration of the centre of brightness"),
    (VOLUME, "distances of whole volumes, in random 3-D features"),
    (PLANES, "distances of volumes slice by slice along each axis, in random features"),
):
    register_metric(_kind, _summary, _kind)(_distances_of)


@register_metric(COPIES, "whether samples copy training samples, and a picture of the nearest", of_each_sample=True)
def _copies(of: Comparison) -> list[Figure]:
    return []  # compared with other samples: `figures_of_copies`


def compare_reconstructions(kind: str, rebuilt: FeatureSums, real: FeatureSums) -> Figure:
    """The Fréchet distance between a VAE's reconstructions and their originals."""
    of = Comparison(rebuilt, real, kind)
    return Figure(f"{of.names[0]}_reconstruction", frechet_distance(of.moments_of(rebuilt), of.moments_of(real)))


def agreement_of_reconstructions(answers: Answers) -> list[Figure]:
    """The share of reconstructions that a classifier takes for their originals' class, if these have classes."""
    return [Figure("reconstruction_agreement", answers.right / answers.asked)] if answers.asked else []


def distance_of(modality: str) -> str:
    """Name of the distance by which samples of a modality are compared as a whole without weights; "" if none is."""
    kind = main_kind(modality)
    return _names(kind)[0] if kind else ""


def _names(kind: str) -> tuple[str, str, str]:
    return (f"frechet_{_snake(kind)}", *_OTHER[1:]) if kind in WEIGHTLESS else _DISTANCES.get(kind, _OTHER)


def _kernel_name(kind: str) -> str:
    return f"kernel_{_snake(kind)}"


def _snake(kind: str) -> str:
    return kind.replace("-", "_")


def figures_of_copies(closest: Closest, samples: int, searched: int) -> list[Figure]:
    """Metrics of copying. searched: number of training samples that were compared."""
    settings = {"samples": samples, "training_samples": searched}
    return [Figure(name, value, None, settings) for name, value in closest.figures.items()]


def check_samples(asked: Iterable[str], modality: str, shape: SampleShape, kind: str, flags: str = "--") -> None:
    """Raise ValueError for a metric of other samples than these, or of other features than a network's.

    modality, shape: of the samples. kind: of the network. flags: prefix of the user's flags.
    """
    for metric in asked:
        of = modality_of(METRICS[metric].features) or ("video" if metric in _OF_VIDEOS else "")
        if of and of != modality:
            raise ValueError(f"{flags}metrics {metric} is of {of}, and the samples are {modality}; leave it out")
        if metric in _OF_VIDEOS and kind != MODULE:
            raise ValueError(
                f"{flags}metrics {metric} is a distance in the features of a video network, which this package does "
                f"not carry: name yours by {flags}features module:PACKAGE.MODULE:FUNCTION, or take "
                f"{', '.join(weightless_kinds(modality, shape))}, which need none"
            )
        if metric == "fvd" and shape.spatial[0] < _FVD_FRAMES:
            raise ValueError(
                f"{flags}metrics fvd is published for clips of {_FVD_FRAMES} frames or more, and these have "
                f"{shape.spatial[0]}; take {', '.join(weightless_kinds(modality, shape))}, or {flags}metrics jedi"
            )


def check_training_metrics(evaluation: EvaluationConfig, index: DatasetIndex) -> None:
    """Raise ValueError for metrics that are not computed during training, or not of samples as those of `index`.

    The search for copies and the metrics of a classifier have settings of their own there; class scores are not summed
    over ranks.
    """
    for name in evaluation.metrics:
        known = [each for each, of in METRICS.items() if each != COPIES and not (of.of_a_classifier or of.scored)]
        if name not in known:
            raise ValueError(
                f"--evaluation.metrics {name}: available during training are {', '.join(known)}; `imagegen evaluate` "
                "computes the others"
            )
    kind = evaluation.features.partition(":")[0]
    check_samples(evaluation.metrics, index.modality, index.shape, kind, "--evaluation.")


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
