"""Placement: features are shifted and scaled along every spatial axis, by amounts computed from a vector.

What a sample shows and where it shows it are then learned apart: one drawing serves all places, sizes and frames. This
is a spatial transformer (arXiv:1506.02025) without rotation, so that each axis is resampled by a matrix of its own, as
in DRAW (arXiv:1502.04623): products of small matrices, which are exact to repeat, fast on every device and exported
everywhere, where sampling at arbitrary points is none of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imagegen_dist.nn.blocks import LEAKY_GAIN, BiasedLeakyReLU
from imagegen_dist.nn.conv import Linear

_UNITS = 128
_LARGEST_SCALE = 2.0
_INITIAL_SHIFT = 0.4  # deviation of the values before tanh
_INITIAL_CHANGE = 0.1  # deviation of what changes a move, before tanh
_SEEN = 8.0  # a path's rule sees a shift of an axis as this: it has to tell a position from the next


class Placement(nn.Module):
    """x [B, C, *S], features [B, F] -> x shifted and scaled, [B, C, *S], or in every frame, [B, C, T, *S].

    Shifts are within half an axis either way and scales within 1/2 and 2, both smooth functions of the features with
    two hidden layers. Between positions, values are interpolated linearly; outside, the values at the edges continue.
    With frames, all frames have one scale and each has shifts of its own.

    spatial: extent of the axes S that are resampled. features: F. frames: T, or 0 for one placement. whole_shifts:
    shifts are rounded to whole positions, so that no frame is blurred more than others; they have the gradient of
    shifts that are not rounded (straight through, arXiv:1308.3432). path: frames follow a `Path`; then moves are
    rounded, so that an even motion stays even. generator: draws the initial weights; initial scales are 1.
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
        self.spatial, self.frames, self.whole_shifts = spatial, frames, whole_shifts
        self.hidden = nn.Sequential(
            Linear(features, _UNITS, gain=LEAKY_GAIN, generator=generator),
            BiasedLeakyReLU(_UNITS),
            Linear(_UNITS, _UNITS, gain=LEAKY_GAIN, generator=generator),
            BiasedLeakyReLU(_UNITS),
        )
        axes, places = len(spatial), 2 if path else max(frames, 1)
        self.shift = Linear(_UNITS, axes * places, bias=True, gain=_INITIAL_SHIFT, generator=generator)
        self.path = Path(spatial, _UNITS, frames, whole_shifts, generator=generator) if path else None
        self.scale = Linear(_UNITS, axes, bias=True, gain=0, generator=generator)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        (shifts, whole), scales = self.amounts(features)
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

    def amounts(self, features: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Shifts in positions and the same rounded, [B, max(T, 1), axes], and scales [B, axes]: features [B, F]."""
        hidden = self.hidden(features)
        shares, scales = self.shift(hidden).unflatten(1, (-1, len(self.spatial))), self.scale(hidden).tanh()
        if self.path is not None:
            return self.path(*shares.unbind(1), hidden), _LARGEST_SCALE**scales
        shifts = _times(shares.tanh(), [extent / 2 for extent in self.spatial])
        return (shifts, shifts.round()), _LARGEST_SCALE**scales


class Path(nn.Module):
    """first and move [B, axes], hidden [B, U] -> shifts and the same rounded, each [B, T, axes], in positions.

    first: share of half an axis that the first frame is shifted, and move: share of 1/T of an axis that the second one
    moves on from it, both before their tanh. Each later move is that before it, changed by a rule that sees where the
    frame is, how it moved and the hidden values, with one hidden layer. The rule is the same in all frames, a recurrent
    network, as that of motion in arXiv:1707.04993: turning back at an edge is learned once. Initial motions are nearly
    even.

    spatial: extent of the axes. units: U. frames: T. whole: places and moves are rounded; the gradient of a shift is
    that between positions as far from it as its own move was before it was rounded. generator: draws the weights.
    """

    def __init__(
        self, spatial: tuple[int, ...], units: int, frames: int, whole: bool, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        axes = len(spatial)
        self.spatial, self.frames, self.whole = spatial, frames, whole
        self.rule = nn.Sequential(
            Linear(units + 2 * axes, units, gain=LEAKY_GAIN, generator=generator),
            BiasedLeakyReLU(units),
            Linear(units, axes, bias=True, gain=_INITIAL_CHANGE, generator=generator),
        )

    def forward(self, first: Tensor, move: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        amounts = [_times(first.tanh(), [extent / 2 for extent in self.spatial])]
        places = [self._rounded(amounts[0])]
        for frame in range(1, self.frames):
            if frame > 1:
                seen = _times(places[-1], [_SEEN / extent for extent in self.spatial])
                move = move + self.rule(torch.cat([hidden, seen, 2 * move], 1))
            amounts.append(_times(move.tanh(), [extent / self.frames for extent in self.spatial]))
            places.append(places[-1] + self._rounded(amounts[-1]))
        shifts, amount = torch.stack(places, 1), torch.stack(amounts, 1)
        if not self.whole:
            return shifts, shifts.round()
        return shifts + (amount - amount.round()).detach(), shifts

    def _rounded(self, amounts: Tensor) -> Tensor:
        """Whole positions with the gradient of those between them, if they are to be whole."""
        return amounts + (amounts.round() - amounts).detach() if self.whole else amounts


def _times(values: Tensor, factors: Sequence[float]) -> Tensor:
    """Values [..., axes], each axis times its factor."""
    # Numbers, not a tensor of them: copying a constant to the device on every call would stall the host.
    return torch.stack([each * factor for each, factor in zip(values.unbind(-1), factors, strict=True)], -1)


def _interpolation(extent: int, shift: Tensor, scale: Tensor) -> Tensor:
    """Weights of linear interpolation along one axis: shift [B, T], scale [B, 1] -> [B, T, after S, before S]."""
    positions = torch.arange(extent, dtype=shift.dtype, device=shift.device)
    middle = (extent - 1) / 2
    sources = (positions - middle - shift[..., None]) / scale[..., None] + middle
    distance = (sources.clamp(0, extent - 1)[..., None] - positions).abs()
    return (1 - distance).clamp(min=0)
