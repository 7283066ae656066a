"""The class or condition requested for each generated sample of an evaluation: as in the data, or uniformly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.noise import even_quantiles


@dataclass(frozen=True)
class RequestedClasses:
    """The classes that are requested from a conditional model.

    known: number of classes of the model, 0 for none. counts: samples of each class in the data with which the
    generated ones are compared; empty: all classes in turn. conditions: in place of classes, those of a model that is
    told conditions, with rows of the data.
    """

    known: int
    counts: tuple[int, ...] = ()
    conditions: ConditionRows | None = None

    @classmethod
    def as_in(cls, known: int, index: DatasetIndex, distribution: str, counts: Sequence[int] = ()) -> RequestedClasses:
        """Distributed as in a dataset if "data" is requested and its index counts the classes; else uniformly.

        counts: those of the data if its index, written by an older version, has none.
        """
        found = tuple(index.class_counts or counts)
        fits = distribution == "data" and known == len(found) and sum(found) > 0
        return cls(known, found if fits else ())

    @property
    def distribution(self) -> str:
        """How it is reported: "data", "uniform", or "none" if the model is unconditional."""
        if self.conditions is not None:
            return "data"
        return "none" if not self.known else "data" if self.counts else "uniform"

    def of(self, ids: range, device: torch.device | str = "cpu") -> Tensor | None:
        """The class of each sample by its number, int64 [N], or its condition [N, K]; None if it is unconditional.

        Sample i takes the class at the quantile i / golden ratio, modulo 1, of the data's labels: in any contiguous
        range of samples, the frequency of each class is that of the data, up to a few samples.
        """
        if self.conditions is not None:
            return torch.from_numpy(self.conditions.take(ids)).to(device)
        if not self.known:
            return None
        numbers = torch.arange(ids.start, ids.stop, device=device)
        if not self.counts:
            return numbers % self.known
        total = sum(self.counts)
        below = np.array([(so_far << 64) // total for so_far in accumulate(self.counts[:-1])], dtype=object)
        edges = np.minimum(below, 2**64 - 1).astype(np.uint64)
        quantiles = even_quantiles(ids)
        return torch.from_numpy(np.searchsorted(edges, quantiles, side="right").astype(np.int64)).to(device)
