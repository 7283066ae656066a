"""Latent traversals: one latent varied at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SPAN = 2.5
"""Standard deviations of the prior in either direction."""

MOST_TRAVERSED = 20
"""Maximum number of latents in one picture."""


def traverse(z: Tensor, latents: Sequence[int], values: Tensor) -> Tensor:
    """A latent vector, with each of some latents set to each of some values. z: [Z]; values: [V] -> [L * V, Z]."""
    rows = z.repeat(len(latents) * len(values), 1)
    changed = torch.tensor(list(latents), device=z.device).repeat_interleave(len(values))
    rows[torch.arange(len(rows), device=z.device), changed] = values.repeat(len(latents))
    return rows
