"""Distance between two samples in the features of a network."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from imagegen_dist.objectives.penalties import at_least_float32

# Keeps the normalised vector of a position whose features are all zero from amplifying rounding errors.
_SMALLEST_NORM = 1e-6


class PerceptualDistance(nn.Module):
    """Squared distance of normalised features, averaged over positions, summed over maps: x, y [B, C, *S] -> [B].

    features: a network from samples to feature maps [B, F, *s], one or a sequence of them. channel_weights: [F] for
    each map, not negative; None gives every channel weight 1. Both are constants. (arXiv:1801.03924, Eq. 1)
    """

    def __init__(self, features: nn.Module, channel_weights: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.features = features.eval().requires_grad_(False)
        self.channel_weights = nn.ParameterList(channel_weights or ()).requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        squares = [(of_x - of_y).square() for of_x, of_y in zip(self._units(x), self._units(y), strict=True)]
        if self.channel_weights:
            pairs = zip(self.channel_weights, squares, strict=True)
            squares = [weights.reshape(-1, *[1] * (of_map.ndim - 2)) * of_map for weights, of_map in pairs]
        return torch.stack([of_map.sum(1).flatten(1).mean(1) for of_map in squares]).sum(0)

    def _units(self, x: Tensor) -> list[Tensor]:
        """Every map, normalised to vectors of length 1."""
        found = self.features(x)
        maps = [found] if isinstance(found, Tensor) else cast(Sequence[Tensor], found)
        return [normalize(at_least_float32(values), dim=1, eps=_SMALLEST_NORM) for values in maps]
