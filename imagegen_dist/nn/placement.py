"""Placement: features are shifted and scaled along every spatial axis, by amounts computed from a vector.

What a sample shows and where it shows it are then learned apart: one drawing serves all places, sizes and frames. This
is a spatial transformer (arXiv:1506.02025) without rotation, so that each axis is resampled by a matrix of its own, as
in DRAW (arXiv:1502.04623): products of small matrices, which are exact to repeat, fast on every device and exported
everywhere, where sampling at arbitrary points is none of these.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagegen_dist.nn.blocks import LEAKY_GAIN, BiasedLeakyReLU
from imagegen_dist.nn.conv import Linear

_UNITS = 128
_LARGEST_SCALE = 2.0
_INITIAL_SHIFT = 0.4  # deviation of the values before tanh


class Placement(nn.Module):
    """x [B, C, *S], features [B, F] -> x shifted and scaled, [B, C, *S], or in every frame, [B, C, T, *S].

    Shifts are within half an axis either way and scales within 1/2 and 2, both smooth functions of the features with
    two hidden layers. Between positions, values are interpolated linearly; outside, the values at the edges continue.
    With frames, all frames have one scale and each has shifts of its own.

    spatial: extent of the axes S that are resampled. features: F. frames: T, or 0 for one placement. whole_shifts:
    shifts are rounded to whole positions, so that no frame is blurred more than others; they have the gradient of
    shifts that are not rounded (straight through, arXiv:1308.3432). path: what is computed is the shift of the first
    frame and the move from each frame to the next, within 1/T of an axis either way; moves are rounded in place of
    shifts, so that an even motion stays even. generator: draws the initial weights; initial scales are 1.
    """

    def __init__(
        self,
        spatial: tuple[int, ...],
        features: int,
        frames: int = 0,
        whole_shifts: bool = False,
        path: bool = False,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.spatial, self.frames, self.whole_shifts, self.path = spatial, frames, whole_shifts, path
        self.hidden = nn.Sequential(
            Linear(features, _UNITS, gain=LEAKY_GAIN, generator=generator),
            BiasedLeakyReLU(_UNITS),
            Linear(_UNITS, _UNITS, gain=LEAKY_GAIN, generator=generator),
            BiasedLeakyReLU(_UNITS),
        )
        axes = len(spatial)
        self.shift = Linear(_UNITS, axes * max(frames, 1), bias=True, gain=_INITIAL_SHIFT, generator=generator)
        self.scale = Linear(_UNITS, axes, bias=True, gain=0, generator=generator)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        moves, scales = self.amounts(features)
        shifts, whole = self.shifts(moves)
        placed = x[:, None].expand(-1, shifts.shape[1], *x.shape[1:])  # [B, T, C, *S]
        for axis, extent in enumerate(self.spatial):
            weight = self._weight(extent, shifts[..., axis], whole[..., axis], scales[:, None, axis]).to(x.dtype)
            rows = placed.movedim(3 + axis, -1)
            resampled = torch.bmm(rows.flatten(0, 1).flatten(1, -2), weight.flatten(0, 1).mT)
            placed = resampled.view(rows.shape).movedim(-1, 3 + axis)
        return placed.movedim(1, 2) if self.frames else placed[:, 0]

    def _weight(self, extent: int, shift: Tensor, whole: Tensor, scale: Tensor) -> Tensor:
        """Weights along one axis: shift and whole [B, T], scale [B, 1] -> [B, T, after S, before S]."""
        if not self.whole_shifts:
            return _interpolation(extent, shift, scale)
        weight, rounded = _interpolation(extent, torch.cat([shift, whole], 1), scale).chunk(2, 1)
        return rounded.detach() + (weight - weight.detach())

    def shifts(self, moves: Tensor) -> tuple[Tensor, Tensor]:
        """Shifts between positions, and rounded ones, [B, max(T, 1), axes], of the moves that `amounts` gives."""
        whole = moves.round()
        if not self.path:
            return moves, whole
        shifts, places = moves.cumsum(1), whole.cumsum(1)
        if self.whole_shifts:  # as far from the whole shift as the last move was from a whole one, not all together
            shifts = shifts + (places + (moves - whole) - shifts).detach()
        return shifts, places

    def amounts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Shifts in positions, or the first and the moves after it, [B, max(T, 1), axes], and scales [B, axes].

        features: [B, F].
        """
        hidden = self.hidden(features)
        shares = self.shift(hidden).unflatten(1, (max(self.frames, 1), len(self.spatial))).tanh().unbind(2)
        # Numbers, not a tensor of them: copying a constant to the device on every call would stall the host.
        shifts = torch.stack([share * (extent / 2) for share, extent in zip(shares, self.spatial, strict=True)], 2)
        if self.path:
            shifts = torch.cat([shifts[:, :1], shifts[:, 1:] * (2 / self.frames)], 1)
        return shifts, _LARGEST_SCALE ** self.scale(hidden).tanh()


def _interpolation(extent: int, shift: Tensor, scale: Tensor) -> Tensor:
    """Weights of linear interpolation along one axis: shift [B, T], scale [B, 1] -> [B, T, after S, before S]."""
    positions = torch.arange(extent, dtype=shift.dtype, device=shift.device)
    middle = (extent - 1) / 2
    sources = (positions - middle - shift[..., None]) / scale[..., None] + middle
    distance = (sources.clamp(0, extent - 1)[..., None] - positions).abs()
    return (1 - distance).clamp(min=0)
