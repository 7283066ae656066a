"""Loss of a classifier, which makes a feature network from a dataset's own labels or named conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.objectives.base import Batch, Draw, Phase, Terms
from imagegen_dist.objectives.recognise import recognition_loss
from imagegen_dist.shape import per_axis


@dataclass(frozen=True)
class ClassifyConfig:
    """Training of a classifier."""

    max_shift: int | tuple[int, ...] = 2
    """Largest random shift along each spatial axis, in pixels: one number, or one for each axis."""
    label_smoothing: float = 0.0
    """Probability mass spread uniformly over all classes, from 0 to 1."""


class Classify:
    """One network, one phase: cross-entropy on randomly shifted samples.

    conditions: of samples that are labelled with named conditions in place of classes (`recognition_loss`).
    """

    def __init__(self, classifier: nn.Module, config: ClassifyConfig, conditions: Conditions | None = None) -> None:
        self.classifier = classifier
        self.config = config
        self.conditions = conditions

    def phases(self) -> Sequence[Phase]:
        """The classifier's phase."""
        return [Phase("classifier", self.classifier, self.loss)]

    def modules(self) -> Mapping[str, nn.Module]:
        """The classifier."""
        return {"classifier": self.classifier}

    def averaged(self) -> Sequence[str]:
        """The classifier."""
        return ["classifier"]

    def loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        """Mean loss in nats. Raises ValueError if the dataset has no labels."""
        if batch.label is None:
            raise ValueError("a classifier needs a dataset with labels")
        logits = self.classifier(random_shift(batch.sample, self.config.max_shift, draw))
        smoothing = self.config.label_smoothing
        if self.conditions is None:
            loss = cross_entropy(logits, batch.label, reduction="none", label_smoothing=smoothing)
        else:
            loss = recognition_loss(logits, batch.label, self.conditions, smoothing)
        return loss.mean(), {"loss/classifier": loss.detach()}


def random_shift(x: Tensor, max_shift: int | tuple[int, ...], draw: Draw) -> Tensor:
    """Each sample shifted by up to `max_shift` positions along every spatial axis; edge values are repeated.

    x: [B, C, *S] -> [B, C, *S]. max_shift: one number, or one for each axis.
    """
    shifts = per_axis(max_shift, x.dim() - 2)
    if not any(shifts):
        return x
    x = pad(x, tuple(shift for shift in reversed(shifts) for _ in range(2)), mode="replicate")
    for axis, shift in enumerate(shifts, 2):
        if not shift:
            continue
        extent = x.shape[axis] - 2 * shift
        start = draw.integers(0, 2 * shift + 1, len(x))
        index = start[:, None] + torch.arange(extent, device=x.device)
        index = index.reshape(len(x), *(extent if a == axis else 1 for a in range(1, x.dim())))
        x = x.gather(axis, index.expand(*(extent if a == axis else size for a, size in enumerate(x.shape))))
    return x
