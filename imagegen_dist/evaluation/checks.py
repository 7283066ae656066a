"""What can be evaluated of a run, known from its settings and its data before it starts."""

from __future__ import annotations

from collections.abc import Mapping

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.evaluation.named_reference import can_compare
from imagegen_dist.experiment import Experiment
from imagegen_dist.objectives.variational import Autoencodes
from imagegen_dist.wording import counted

_OUTLIERS_MOVE = 0.1  # of a MIG, above which its two ways of binning say different things
_COLLAPSED_NATS = 0.1  # of the whole latent code, below which it says next to nothing of a sample


def check_held_out(training: DatasetIndex, held_out: DatasetIndex) -> None:
    """Raise ValueError for held-out samples that a model of the training samples cannot be evaluated on."""
    flag = "set --data.validation to samples of the training data's kind"
    kinds = [f"{index.modality} of {index.shape}" for index in (training, held_out)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"the training samples are {kinds[0]}, and the held-out ones {kinds[1]}; {flag}")
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
    """Figures that a run will not have, each in a line that says why and what would give them."""
    evaluation, encodes = experiment.evaluation, isinstance(experiment.objective, Autoencodes)
    if not evaluation.samples:
        return []
    lines = []
    if not can_compare(evaluation, training):
        has = "labels of one class alone" if training.classes else "no labels"
        lines.append(
            f"no Fréchet distance will be taken: the data have {has}, and --evaluation.features names no network"
        )
    if not encodes and evaluation.importance_samples:
        lines.append("--evaluation.importance-samples has no effect: a GAN has no likelihood")
    if held_out is None and encodes:
        lines.append("figures and reconstructions will be of training samples: --data.validation names no others")
    if held_out is not None and held_out.fingerprint == training.fingerprint:
        lines.append("--data.validation names the training samples themselves: no figure will be of held-out samples")
    return lines


def remarks(figures: Mapping[str, float]) -> list[str]:
    """What figures of a trained model say of it that is easily overlooked, in a line each."""
    lines, rate = [], figures.get("rate")
    unused = figures.get("active_units") == 0
    if rate is not None and (unused or rate < _COLLAPSED_NATS):
        used = " and no latent is used" if unused else ""
        lines.append(
            f"the latents carry {rate:.3g} nats a sample{used}: the decoder ignores them, and all samples look alike; "
            "lower --objective.beta, or let it grow by --objective.warmup-images"
        )
    equal_width, by_quantiles = figures.get("mig"), figures.get("mig_quantile")
    if equal_width is not None and by_quantiles is not None and abs(equal_width - by_quantiles) > _OUTLIERS_MOVE:
        lines.append(
            f"MIG is {equal_width:.3f} by the published protocol, in bins of equal width from the least to the largest "
            f"value of a latent, which a few outliers move, and {by_quantiles:.3f} in bins of equally many samples"
        )
    return lines
