"""Group normalisation (arXiv:1803.08494) over a sample, or over each of its frames, and normalisation of a position."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_MOST_GROUPS = 32
# A group of one channel at one position would always be normalised to zero.
_FEWEST_CHANNELS = 4
_EPSILON = 1e-6


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups; below 128 channels with fewer, so that each group has at least 4 channels.

    If that number does not divide the channels, the next lower divisor is used.
    """
    return nn.GroupNorm(_groups(channels), channels, eps=_EPSILON)


def _groups(channels: int) -> int:
    most = max(1, min(_MOST_GROUPS, channels // _FEWEST_CHANNELS))
    return next(number for number in range(most, 0, -1) if channels % number == 0)


class FrameNorm(nn.GroupNorm):
    """`group_norm` of each frame by itself: [B, C, T, *S] -> [B, C, T, *S]."""

    def __init__(self, channels: int) -> None:
        super().__init__(_groups(channels), channels, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        frames = super().forward(x.transpose(1, 2).flatten(0, 1))
        return frames.unflatten(0, (-1, x.shape[2])).transpose(1, 2)


class PositionNorm(nn.LayerNorm):
    """Normalisation over the channels of each position by itself: [B, C, *S] -> [B, C, *S] (arXiv:1607.06450)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)
