"""Requested samples: a list of seeds and classes, in the order of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imagegen_dist.inference.class_names import Class, numbered
from imagegen_dist.inference.model import Model

__all__ = ["Class", "SamplingRequest"]


@dataclass(frozen=True)
class SamplingRequest:
    """Samples by seed: each with every class, seed after seed; if no classes are named, each with class seed mod K.

    The sample of a seed is the one of index 0: `model.sample(1, classes=c, seed=s)`.
    """

    seeds: tuple[int, ...]
    classes: tuple[Class, ...] = ()  # by number or name; `by_number` resolves names
    truncation: float = 1.0

    @property
    def columns(self) -> int:
        """Samples per seed."""
        return len(self.classes) or 1

    def __len__(self) -> int:
        return len(self.seeds) * self.columns

    def by_number(self, model: Model) -> SamplingRequest:
        """The same request, with classes by number only. Raises ValueError for a class that the model does not have."""
        if self.classes and not model.classes:
            raise ValueError("this model is unconditional: leave --classes and --mix out")
        return replace(self, classes=tuple(numbered(each, model.classes, model.class_names) for each in self.classes))

    def check(self, model: Model) -> None:
        """Raise ValueError if the model cannot generate them, before anything is computed or written."""
        if self.classes and not model.classes:
            raise ValueError("this model is unconditional: leave --classes and --mix out")
        model.labels(self.columns, self.classes or None)
        if self.truncation != 1 and not model.gaussian:
            raise ValueError(f"truncation {self.truncation:g}: this model's latents are codes, which have no mean")

    def drawn(self, model: Model, rows: Sequence[int]) -> Tensor:
        """The draws of the prior for samples by number, [N, ...]."""
        return model.latents_of([self.seeds[row // self.columns] for row in rows])

    def label(self, model: Model, rows: Sequence[int]) -> Tensor | None:
        """Their labels as the networks take them, [N] or [N, K]; None without classes. Raises ValueError."""
        if not model.classes or self.classes:
            whole = model.labels(self.columns, self.classes or None)
            return None if whole is None else whole[torch.tensor([row % self.columns for row in rows])]
        return torch.tensor([self.seeds[row] % model.classes for row in rows])

    def class_of(self, model: Model, row: int) -> int | None:
        """The class of a sample; None if it has none, or a blend."""
        if not model.classes:
            return None
        if not self.classes:
            return self.seeds[row] % model.classes
        found = self.classes[row % self.columns]
        return found if isinstance(found, int) else None

    def sample(self, model: Model, rows: Sequence[int]) -> Tensor:
        """Samples by number, uint8 [N, C, *S]."""
        return model.generate(self.drawn(model, rows), self.label(model, rows), self.truncation)
