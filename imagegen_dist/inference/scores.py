"""Scores of samples by simple measurements, whose directions need no labels: brightness, slant, width, colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from imagegen_dist.data.digit_style import STYLES, measure_style

Score = Callable[[Tensor], Tensor]
"""Samples uint8 [B, C, *S] -> a number for each, float [B]."""


def brightness(samples: Tensor) -> Tensor:
    """The mean of all values, from 0 to 1."""
    return samples.flatten(1).float().mean(1) / 255


def contrast(samples: Tensor) -> Tensor:
    """The standard deviation of all values, from 0 to 1/2."""
    return samples.flatten(1).float().std(1) / 255


def warmth(samples: Tensor) -> Tensor:
    """Mean red less mean blue of RGB samples, from -1 to 1."""
    means = samples.flatten(2).float().mean(2) / 255
    return means[:, 0] - means[:, 2]


def _style(column: int) -> Score:
    def score(samples: Tensor) -> Tensor:
        return torch.from_numpy(measure_style(samples.cpu().numpy())[:, column]).float()

    score.__doc__ = f"The {STYLES[column]} of a bright figure on black (data/digit_style.py)."
    return score


def scores_for(channels: int, ndim: int) -> Mapping[str, Score]:
    """The scores of samples with this number of channels and of spatial axes, by name."""
    found: dict[str, Score] = {"brightness": brightness, "contrast": contrast}
    if channels == 3:
        found["warmth"] = warmth
    if channels == 1 and ndim == 2:
        found = {name: _style(column) for column, name in enumerate(STYLES)} | found
    return found
