"""What a model is told about each sample, a class or conditions, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.conditions.part import Conditions, Vector
from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.inference.class_names import Class, as_list, numbered
from imagegen_dist.inference.given import Given, as_conditions

Labels = NDArray[Any]
"""Of samples: class numbers int64 [N], weights of classes or conditions float32 [N, K]."""


@dataclass(frozen=True)
class Told:
    """classes: number of classes, 0 for none and if the model is told conditions. class_names: by number, if they have
    names. known: the parts of conditions, and those of some samples of the data, if the model is told conditions."""

    classes: int = 0
    class_names: tuple[str, ...] | None = None
    known: ConditionRows | None = None

    @property
    def conditions(self) -> Conditions | None:
        """The parts of the conditions; None if the model is told classes, or nothing."""
        return None if self.known is None else self.known.conditions

    @property
    def width(self) -> int:
        """K, the length of the vector that the networks are conditioned on, or 0 for none."""
        return self.classes if self.known is None else self.known.conditions.width

    def labels(
        self,
        n: int,
        classes: Class | Iterable[Class] | None = None,
        conditions: Given | Iterable[Given] | None = None,
        seed: int = 0,
    ) -> Labels | None:
        """Labels of `n` samples; None for an unconditional model. Arguments and errors as for `Model.labels`."""
        if self.known is not None:
            return self._conditions(range(seed, seed + n), as_conditions(classes, conditions, self.known.conditions))
        if conditions is not None:
            raise ValueError("this model is not told conditions: leave conditions out")
        if not self.classes:
            if classes is not None:
                raise ValueError("this model is unconditional: leave classes out")
            return None
        if classes is None:
            classes = range(self.classes)
        asked = [numbered(each, self.classes, self.class_names) for each in as_list(classes)]
        if not asked or {} in asked:
            raise ValueError(f"class {asked}: the model's classes are 0 to {self.classes - 1}")
        turn = np.arange(n) % len(asked)
        if not any(isinstance(each, dict) for each in asked):
            return np.array(asked, np.int64)[turn]
        weights = np.zeros((len(asked), self.classes), np.float32)
        for row, each in zip(weights, asked, strict=True):
            for label, weight in each.items() if isinstance(each, dict) else [(each, 1.0)]:
                row[label] = weight
        return weights[turn]

    def weights(self, label: Labels) -> Vector:
        """Labels as vectors, float32 [..., K]: a class number becomes the weight 1 of that class."""
        return np.eye(self.classes, dtype=np.float32)[label] if label.dtype.kind == "i" else label

    def _conditions(self, numbers: Sequence[int], given: Sequence[Given]) -> Vector:
        """Conditions as vectors, [N, K]; those that are given are taken in turn."""
        assert self.known is not None
        vectors = np.empty((len(numbers), self.known.conditions.width), np.float32)
        for turn, each in enumerate(given[: len(numbers)]):
            vectors[turn :: len(given)] = self.known.take(list(numbers)[turn :: len(given)], each)
        return vectors
