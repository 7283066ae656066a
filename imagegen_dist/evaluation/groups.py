"""Into which classes samples are sorted where they are compared class by class: by label, or by part of a condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from imagegen_dist.conditions.part import Conditions

Groups = Mapping[str, tuple[Tensor, Tensor]]
"""The class requested for each generated sample, [N], and that of each real one, [M], by part; "" for class labels."""

_QUARTILES = 0.25, 0.5, 0.75


def groups_of(asked: Tensor | None, real: Tensor | None, conditions: Conditions | None) -> Groups:
    """Sort samples by their labels: classes [N] and [M], or conditions [N, K] and [M, K] as vectors.

    Of conditions, each class part and each attribute sorts by itself, and a number by the quartiles of the real
    samples; parts of several numbers do not. {} if a side has no labels.
    """
    if asked is None or real is None:
        return {}
    asked, real = asked.cpu(), real.cpu()
    return {"": (asked, real)} if conditions is None else dict(_by_part(asked, real, conditions))


def _by_part(asked: Tensor, real: Tensor, conditions: Conditions) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    for part, places in zip(conditions.parts, conditions.slices.values(), strict=True):
        ours, theirs = asked[:, places], real[:, places]
        if part.kind == "class":
            yield part.name, (ours.argmax(1), theirs.argmax(1))
        elif part.kind == "attributes":
            for at in range(part.size):
                name = f"{part.name}/{part.names[at]}" if part.size > 1 else part.name
                yield name, ((ours[:, at] > 0.5).long(), (theirs[:, at] > 0.5).long())
        elif part.is_number:
            edges = torch.quantile(theirs[:, 0].double(), torch.tensor(_QUARTILES, dtype=torch.float64))
            yield part.name, (_quartile(ours, edges), _quartile(theirs, edges))


def _quartile(numbers: Tensor, edges: Tensor) -> Tensor:
    return torch.bucketize(numbers[:, 0].double(), edges)
