"""What can be evaluated in a run, determined from its settings and data before it starts."""

from __future__ import annotations

from collections.abc import Mapping

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.evaluation.figures import METRICS
from imagegen_dist.evaluation.named_reference import can_compare
from imagegen_dist.evaluation.weightless import weightless_kinds
from imagegen_dist.experiment import Experiment
from imagegen_dist.objectives.variational import Autoencodes
from imagegen_dist.wording import counted

_OUTLIERS_MOVE = 0.1  # difference in MIG above which its two binnings disagree
_COLLAPSED_NATS = 0.1  # rate of the whole latent code below which it is uninformative


def check_held_out(training: DatasetIndex, held_out: DatasetIndex) -> None:
    """Raise ValueError if a model of the training samples cannot be evaluated on the held-out samples."""
    flag = "set --data.validation to samples of the training data's kind"
    kinds = [f"{index.modality} of {index.shape}" for index in (training, held_out)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"the training samples are {kinds[0]}, and the held-out ones {kinds[1]}; {flag}")
    if training.conditions is not None and (differing := training.conditions.differing(held_out.conditions)):
        raise ValueError(f"the held-out samples do not fit: {differing}; {flag}")
    classes = [index.classes or 0 for index in (training, held_out)]
    if classes[0] and classes[1] > classes[0]:
        raise ValueError(
            f"the training samples have {counted(classes[0], 'class')}, and the held-out ones {classes[1]}: "
            f"their labels mean something else; {flag}"
        )
    names = zip(training.class_names or (), held_out.class_names or (), strict=False)
    for number, (ours, theirs) in enumerate(names):
        if ours != theirs:
            raise ValueError(f"class {number} is {ours!r} in training samples and {theirs!r} in held-out ones; {flag}")


def foreseen(experiment: Experiment, training: DatasetIndex, held_out: DatasetIndex | None) -> list[str]:
    """Metrics that a run will lack, each as a line with the reason and the remedy."""
    evaluation, encodes = experiment.evaluation, isinstance(experiment.objective, Autoencodes)
    if not evaluation.samples:
        return []
    lines = []
    if not can_compare(evaluation, training):
        has = "labels of only one class" if training.classes else "no labels"
        in_features = "in a classifier's features " if weightless_kinds(training.modality, training.shape) else ""
        lines.append(
            f"no Fréchet distance {in_features}will be computed: the data have {has}, and --evaluation.features names "
            "no network"
        )
    if training.conditions is not None and evaluation.label_distribution == "uniform":
        lines.append(
            "--evaluation.label-distribution uniform has no effect: conditions are requested as they occur together in "
            "the data"
        )
    by_label = [name for name in evaluation.metrics if name in METRICS and METRICS[name].by_label]
    if by_label and not (experiment.data.conditional and training.tells):
        lines.append(f"--evaluation.metrics {by_label[0]} has no effect: the networks are not told labels")
    if not encodes and evaluation.importance_samples:
        lines.append("--evaluation.importance-samples has no effect: a GAN has no likelihood")
    if held_out is None and encodes:
        lines.append("metrics and reconstructions will be of training samples: --data.validation is not set")
    if held_out is not None and held_out.fingerprint == training.fingerprint:
        lines.append("--data.validation names the training samples themselves: no metric will be of held-out samples")
    return lines


def remarks(figures: Mapping[str, float]) -> list[str]:
    """Properties of a trained model that are easily overlooked in its metrics, one line each."""
    lines, rate = [], figures.get("rate")
    unused = figures.get("active_units") == 0
    if rate is not None and (unused or rate < _COLLAPSED_NATS):
        used = " and no latent is used" if unused else ""
        lines.append(
            f"the latents carry {rate:.3g} nats per sample{used}: the decoder ignores them, and samples look alike; "
            "lower --objective.beta, or let it grow by --objective.warmup-images"
        )
    equal_width, by_quantiles = figures.get("mig"), figures.get("mig_quantile")
    if equal_width is not None and by_quantiles is not None and abs(equal_width - by_quantiles) > _OUTLIERS_MOVE:
        lines.append(
            f"MIG is {equal_width:.3f} by the published protocol, with bins of equal width from minimum to maximum "
            f"of a latent, which depend on outliers, and {by_quantiles:.3f} with bins of equally many samples"
        )
    return lines
