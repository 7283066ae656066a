"""The picture of samples that a training shows: which noise, classes and conditions its places have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imagegen_dist.conditions.part import Part
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.evaluation.encoding import COLUMNS
from imagegen_dist.noise import SampleNoise
from imagegen_dist.objectives.interface import Sampler

_ROWS = COLUMNS


@dataclass(frozen=True)
class Grid:
    """A picture of samples with the same noise at any time.

    classes: of the model, a column each if there are few; 0 for none. index: of the training data, whose conditions the
    model is told if `told`: columns then are the classes of the first part that has some, and rows the values of the
    first number, with the same noise in a column.
    """

    index: DatasetIndex
    classes: int
    told: bool = False

    @property
    def columns(self) -> int:
        """Number of columns: one per class, if there are few."""
        classes = self._class_part.size if self._class_part else self.classes
        return classes if 0 < classes <= 2 * COLUMNS else COLUMNS

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.columns * _ROWS

    @property
    def column_names(self) -> list[str]:
        """The names of the columns' classes; [] if columns are of no class."""
        names = self._class_part.names if self._class_part else self.index.class_names
        classes = self._class_part.size if self._class_part else self.classes
        numbers = [at * classes // self.columns for at in range(self.columns)] if classes else []
        return [names[number] if names else str(number) for number in numbers]

    @property
    def rows_note(self) -> str:
        """What differs from row to row, for a caption; "" if it is the noise."""
        if self._number_part is None:
            return ""
        low, high = self._number_part.usual_range
        return f"{self._number_part.name} from {low:.3g} to {high:.3g} down each column"

    def samples(self, sampler: Sampler, seed: int, device: torch.device) -> Tensor:
        """The samples, [count, C, *S] in [-1, 1], row by row."""
        shared = self._number_part is not None
        ids = [place % self.columns if shared else place for place in range(self.count)]
        noise = SampleNoise([seed] * len(ids), ids, device)
        return sampler.generate(sampler.prior(self.count, noise), self.label(device))

    def label(self, device: torch.device | str = "cpu") -> Tensor | None:
        """The labels of all places, [count] or [count, K]; None for an unconditional model."""
        if self.told and self.index.known_conditions is not None:
            return torch.from_numpy(self._conditions()).to(device)
        if not self.classes:
            return None
        return torch.arange(self.count, device=device) % self.columns * self.classes // self.columns

    def _conditions(self) -> np.ndarray:
        """The conditions of all places, [count, K]. A column has those of one sample of the data but for the number."""
        known = self.index.known_conditions
        assert known is not None
        names, part, number = self.column_names, self._class_part, self._number_part
        given = [{part.name: name} for name in names] if part is not None else [{}] * self.columns
        if number is None:
            places = [known.take([place], given[place % self.columns]) for place in range(self.count)]
            return np.concatenate(places)
        values = np.linspace(*number.usual_range, _ROWS).tolist()
        middle = {number.name: sum(number.usual_range) / 2}
        columns = [known.take([column], each | middle) for column, each in enumerate(given)]
        vectors = np.tile(np.concatenate(columns), (_ROWS, 1))
        encoded = np.concatenate([number.encode(value) for value in values])
        vectors[:, known.conditions.slices[number.name]] = encoded.repeat(self.columns)[:, None]
        return vectors

    @property
    def _class_part(self) -> Part | None:
        return self.index.conditions.first_class if self.told and self.index.conditions is not None else None

    @property
    def _number_part(self) -> Part | None:
        if not self.told or self.index.conditions is None:
            return None
        return next((part for part in self.index.conditions.parts if part.is_number), None)
