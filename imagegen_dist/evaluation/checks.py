"""What can be evaluated of a run, known from its settings and its data before it starts."""

from __future__ import annotations

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.evaluation.named_reference import can_compare
from imagegen_dist.experiment import Experiment
from imagegen_dist.objectives.gan import GANConfig


def check_held_out(training: DatasetIndex, held_out: DatasetIndex) -> None:
    """Raise ValueError for held-out samples that a model of the training samples cannot be evaluated on."""
    flag = "set --data.validation to samples of the training data's kind"
    kinds = [f"{index.modality} of {index.shape}" for index in (training, held_out)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"the training samples are {kinds[0]}, and the held-out ones {kinds[1]}; {flag}")
    classes = [index.classes or 0 for index in (training, held_out)]
    if classes[0] and classes[1] > classes[0]:
        raise ValueError(
            f"the training samples have {classes[0]} classes, and the held-out ones {classes[1]}: "
            f"their labels mean something else; {flag}"
        )
    names = zip(training.class_names or (), held_out.class_names or (), strict=False)
    for number, (ours, theirs) in enumerate(names):
        if ours != theirs:
            raise ValueError(f"class {number} is {ours!r} in training samples and {theirs!r} in held-out ones; {flag}")


def foreseen(experiment: Experiment, training: DatasetIndex, held_out: DatasetIndex | None) -> list[str]:
    """Figures that a run will not have, each in a line that says why and what would give them."""
    evaluation, is_gan = experiment.evaluation, isinstance(experiment.objective, GANConfig)
    lines = []
    if not evaluation.samples:
        return ["no figures will be taken, because --evaluation.samples is 0"]
    if not can_compare(evaluation, training):
        has = "labels of one class alone" if training.classes else "no labels"
        lines.append(
            f"no Fréchet distance will be taken: the data have {has}, and --evaluation.features names no network"
        )
    if held_out is None and not is_gan:
        lines.append("figures and reconstructions will be of training samples: --data.validation names no others")
    return lines
