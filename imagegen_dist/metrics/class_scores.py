"""Inception score (arXiv:1606.03498), streaming: confidence and diversity of a classifier's predictions."""

from __future__ import annotations

import torch
from torch import Tensor

SPLITS = 10
"""Number of splits of the samples whose scores are averaged, as published."""


class ClassScores:
    """Sums for exp(E KL(p(y|x) || p(y))) over each of several splits of the samples, in float64.

    samples: the total number; sample i belongs to split ((i + 1) * splits - 1) // samples. Sums are additive, so that
    the score does not depend on how the samples are batched.
    """

    def __init__(self, samples: int, classes: int, splits: int = SPLITS, device: torch.device | str = "cpu") -> None:
        if samples < splits:
            raise ValueError(
                f"is is a mean over {splits} splits of the samples, and there are {samples:,}; set --samples to more"
            )
        self.samples, self.splits = samples, splits
        self._count = torch.zeros(splits, dtype=torch.float64, device=device)
        self._probability = torch.zeros(splits, classes, dtype=torch.float64, device=device)
        self._certainty = torch.zeros(splits, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, first: int) -> None:
        """Add logits [B, K] of the samples `first`, `first` + 1, ..."""
        log_p = logits.detach().to(self._count.device).double().log_softmax(1)
        p = log_p.exp()
        number = torch.arange(first + 1, first + 1 + len(p), device=p.device)
        split = (number * self.splits - 1) // self.samples
        self._count.index_add_(0, split, torch.ones_like(split, dtype=torch.float64))
        self._probability.index_add_(0, split, p)
        self._certainty.index_add_(0, split, torch.xlogy(p, p).sum(1))

    def merge(self, other: ClassScores) -> None:
        """Add the sums of another."""
        self._count += other._count.to(self._count.device)
        self._probability += other._probability.to(self._count.device)
        self._certainty += other._certainty.to(self._count.device)

    def on_host(self) -> ClassScores:
        """A copy on the CPU."""
        moved = ClassScores(self.samples, self._probability.shape[1], self.splits)
        moved.merge(self)
        return moved

    def score(self) -> tuple[float, float]:
        """(mean, standard deviation) of the score over the splits."""
        q = self._probability / self._count[:, None]
        # E KL = E sum p log p - sum q log q, since q is the mean of p.
        scores = (self._certainty / self._count - torch.xlogy(q, q).sum(1)).exp()
        return float(scores.mean()), float(scores.std(correction=0))
