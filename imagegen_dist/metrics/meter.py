"""Means of logged terms: summed on the device, reduced over ranks once per report."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class Meter:
    """Running means of named per-sample values. Nothing is copied to the host before `reduce`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add detached values of any shape, one per sample."""
        for name, values in terms.items():
            total = values.sum(dtype=torch.float64)
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._counts[name] = self._counts.get(name, 0) + values.numel()

    def totals(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> dict[str, tuple[float, float]]:
        """Sum and count of every name over all ranks since the last `reduce`, without resetting them."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        sums = torch.stack([self._sums[name] for name in names])
        counts = torch.tensor([self._counts[name] for name in names], dtype=sums.dtype, device=sums.device)
        totals = sum_over_ranks(torch.stack([sums, counts])).tolist()
        return {name: (total, count) for name, total, count in zip(names, *totals, strict=True)}

    def restore(self, totals: Mapping[str, tuple[float, float]], device: torch.device, share: bool) -> None:
        """Continue from what `totals` returned: called by every rank, one of which adds the totals (`share`)."""
        for name, (total, count) in totals.items():
            self._sums[name] = torch.tensor(total if share else 0.0, dtype=torch.float64, device=device)
            self._counts[name] = int(count) if share else 0

    def reduce(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means over every value on every rank since the last call, and reset.

        sum_over_ranks: the elementwise sum of a tensor over the ranks, which must hold equal names. A sum with
        non-finite values gives a non-finite mean.
        """
        totals = self.totals(sum_over_ranks)
        self._sums.clear()
        self._counts.clear()
        return {name: total / count for name, (total, count) in totals.items()}
