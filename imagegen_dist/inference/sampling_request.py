"""Requested samples: a list of seeds and classes, in the order of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from imagegen_dist.conditions.part import Vector
from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.inference.class_names import Class, numbered
from imagegen_dist.inference.given import Given, as_conditions
from imagegen_dist.inference.told import Labels, Told

if TYPE_CHECKING:
    from torch import Tensor

    from imagegen_dist.inference.model import Model

__all__ = ["Class", "SamplingRequest"]


class Sampled(Protocol):
    """What a request has to know of a model, whatever computes it."""

    @property
    def told(self) -> Told:
        """What it is told about each sample."""
        ...

    @property
    def gaussian(self) -> bool:
        """True if the prior is N(0, I)."""
        ...


@dataclass(frozen=True)
class SamplingRequest:
    """Samples by seed, seed after seed: each with every class, or with each of several conditions.

    If no classes are named, a seed has class seed mod K; of conditions, parts that are not given depend on the seed.
    The sample of a seed is the one of index 0: `model.sample(1, classes=c, seed=s)`. swept: the part in which the
    conditions differ; the parts that are not given are then the same for all samples of a seed.
    """

    seeds: tuple[int, ...]
    classes: tuple[Class, ...] = ()  # by number or name; `resolved` resolves names
    truncation: float = 1.0
    conditions: tuple[Given, ...] = ()
    swept: str = ""

    @property
    def columns(self) -> int:
        """Samples per seed."""
        return len(self.classes) or len(self.conditions) or 1

    def __len__(self) -> int:
        return len(self.seeds) * self.columns

    def resolved(self, model: Sampled) -> SamplingRequest:
        """The same request, with classes by number only, or as conditions if the model is told these.

        Raises ValueError for a class or condition that the model does not have.
        """
        told = model.told
        if told.conditions is not None:
            given = as_conditions(self.classes or None, self.conditions or None, told.conditions)
            return replace(self, classes=(), conditions=tuple(given))
        if self.conditions:
            raise ValueError("this model is not told conditions: leave --set and --sweep out")
        if self.classes and not told.classes:
            raise ValueError("this model is unconditional: leave --classes and --mix out")
        return replace(self, classes=tuple(numbered(each, told.classes, told.class_names) for each in self.classes))

    def check(self, model: Sampled) -> None:
        """Raise ValueError if the model cannot generate them, before anything is computed or written."""
        asked = self.resolved(model)
        model.told.labels(asked.columns, asked.classes or None, asked.conditions or None)
        if self.truncation != 1 and not model.gaussian:
            raise ValueError(f"truncation {self.truncation:g}: this model's latents are codes, which have no mean")

    def drawn(self, model: Model, rows: Sequence[int]) -> Tensor:
        """The draws of the prior for samples by number, [N, ...]."""
        return model.latents_of(self.seeds_of(rows))

    def seeds_of(self, rows: Sequence[int]) -> list[int]:
        """The seeds of samples by number."""
        return [self.seeds[row // self.columns] for row in rows]

    def label(self, model: Sampled, rows: Sequence[int]) -> Tensor | None:
        """Their labels as the networks take them, [N] or [N, K]; None without. Raises ValueError."""
        import torch  # a server of ONNX programs does without it

        label = self.labels(model, rows)
        return None if label is None else torch.from_numpy(label)

    def labels(self, model: Sampled, rows: Sequence[int]) -> Labels | None:
        """`label` as an array."""
        told = model.told
        if told.known is not None:
            vectors = np.empty((len(rows), told.width), np.float32)
            columns = np.array(rows) % self.columns
            seeds = np.array(self.seeds_of(rows), dtype=object)
            for column in np.unique(columns).tolist():
                given = self.conditions[column] if self.conditions else {}
                vectors[columns == column] = self._vectors(told.known, seeds[columns == column].tolist(), given)
            return vectors
        if not told.classes or self.classes:
            whole = told.labels(self.columns, self.classes or None)
            return None if whole is None else whole[[row % self.columns for row in rows]]
        return np.array([self.seeds[row] % told.classes for row in rows], np.int64)

    def _vectors(self, known: ConditionRows, seeds: Sequence[int], given: Given) -> Vector:
        """The conditions of some seeds in one column, [N, K]."""
        if not self.swept:
            return known.take(seeds, given)
        middle = self.conditions[len(self.conditions) // 2]
        is_number = known.conditions.part(self.swept).is_number
        vectors = known.take(seeds, {name: middle[name] for name in middle if is_number or name != self.swept})
        vectors[:, known.conditions.slices[self.swept]] = known.encode(given)[self.swept]
        return vectors

    def class_of(self, model: Sampled, row: int) -> int | None:
        """The class of a sample; None if it has none, or a blend."""
        if not model.told.classes:
            return None
        if not self.classes:
            return self.seeds[row] % model.told.classes
        found = self.classes[row % self.columns]
        return found if isinstance(found, int) else None

    def sample(self, model: Model, rows: Sequence[int]) -> Tensor:
        """Samples by number, uint8 [N, C, *S]."""
        return model.generate(self.drawn(model, rows), self.label(model, rows), self.truncation)
