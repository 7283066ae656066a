"""Placement: features are shifted and scaled along every spatial axis, by amounts computed from a vector.

What a sample shows and where it shows it are then learned apart: one drawing serves all places, sizes and frames. This
is a spatial transformer (arXiv:1506.02025) without rotation, so that each axis is resampled by a matrix of its own, as
in DRAW (arXiv:1502.04623): products of small matrices, which are exact to repeat, fast on every device and exported
everywhere, where sampling at arbitrary points is none of these.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from imagegen_dist.nn.blocks import LEAKY_GAIN, BiasedLeakyReLU
from imagegen_dist.nn.conv import Linear

_UNITS = 128
_LARGEST_SCALE = 2.0
_INITIAL_SHIFT = 0.4  # deviation of the values before tanh
_SEEN_AXIS = 8.0  # what a path's rule sees of a shift by a whole axis
_SEEN_MOVE = 2.0  # and times what it sees a move before its tanh
_WAVES = 1, 2, 4  # per axis, whose sines and cosines it sees
_SHARPNESS = 4.0  # of its gate, which has to open between a position and the next
_RARITY = 3.0  # an untrained gate is closed where nothing opens it: sigmoid(-3) is .05


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

    largest_shift: Tensor

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
        self.register_buffer("largest_shift", torch.tensor(spatial) / 2, persistent=False)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        shifts, scales = self.amounts(features)
        placed = x[:, None].expand(-1, shifts.shape[1], *x.shape[1:])  # [B, T, C, *S]
        for axis, extent in enumerate(self.spatial):
            weight = self._weight(extent, shifts[..., axis], scales[:, None, axis]).to(x.dtype)
            rows = placed.movedim(3 + axis, -1)
            resampled = torch.bmm(rows.flatten(0, 1).flatten(1, -2), weight.flatten(0, 1).mT)
            placed = resampled.view(rows.shape).movedim(-1, 3 + axis)
        return placed.movedim(1, 2) if self.frames else placed[:, 0]

    def _weight(self, extent: int, shift: Tensor, scale: Tensor) -> Tensor:
        """Weights along one axis: shift [B, T], scale [B, 1] -> [B, T, after S, before S]."""
        if not self.whole_shifts:
            return _interpolation(extent, shift, scale)
        weight, whole = _interpolation(extent, torch.cat([shift, shift.round()], 1), scale).chunk(2, 1)
        return whole.detach() + (weight - weight.detach())

    def amounts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Shifts in positions [B, max(T, 1), axes] and scales [B, axes]: features [B, F]."""
        hidden = self.hidden(features)
        shares = self.shift(hidden).unflatten(1, (-1, len(self.spatial)))
        shifts = shares.tanh() * self.largest_shift if self.path is None else self.path(*shares.unbind(1), hidden)
        return shifts, _LARGEST_SCALE ** self.scale(hidden).tanh()


class Path(nn.Module):
    """first and move [B, axes], hidden [B, U] -> shifts of all frames in positions, [B, T, axes].

    first: share of half an axis that the first frame is shifted, and move: share of 1/T of an axis that the second one
    moves on from it, both before their tanh. Each later move is that before it, of which a gate between 0 and 1 turns a
    share back and adds a summand: nearly closed, it keeps an even motion even, and open, it turns it back at once.

    Gate and summand of an axis come from a rule that sees where the frame is and how it moved, along this axis first,
    and the hidden values. It is the same for all axes and in all frames, a recurrent network as that of motion in
    arXiv:1707.04993 with the gate of one in arXiv:1406.1078: turning back at an edge is learned once. Sines and cosines
    of the place (arXiv:2006.10739) let it tell a position from the next.

    spatial: extent of the axes. units: U. frames: T. whole: a frame moves by whole positions from the rounded shift of
    the one before it, and a shift is as far from a whole one as its own move, not as all moves together. generator:
    draws the initial weights.
    """

    extents: Tensor
    largest_move: Tensor
    emphasis: Tensor
    waves: Tensor

    def __init__(
        self, spatial: tuple[int, ...], units: int, frames: int, whole: bool, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        axes = len(spatial)
        self.axes, self.frames, self.whole = axes, frames, whole
        half = LEAKY_GAIN / math.sqrt(2)  # of two that are added
        self.of_hidden = Linear(units, axes * units, gain=half, generator=generator)
        self.of_frame = Linear(2 * axes + 2 * len(_WAVES), units, gain=half, generator=generator)
        self.rule = nn.Sequential(
            BiasedLeakyReLU(units),
            Linear(units, units, gain=LEAKY_GAIN, generator=generator),
            BiasedLeakyReLU(units),
            Linear(units, 2, bias=True, generator=generator),
        )
        # Constants are buffers, not copied to the device in every frame of every call.
        self.register_buffer("extents", torch.tensor(spatial, dtype=torch.float32), persistent=False)
        self.register_buffer("largest_move", torch.tensor(spatial) / frames, persistent=False)
        self.register_buffer("emphasis", torch.tensor([_SEEN_AXIS, _SEEN_MOVE]), persistent=False)
        self.register_buffer("waves", torch.tensor(_WAVES, dtype=torch.float32), persistent=False)

    def forward(self, first: Tensor, move: Tensor, hidden: Tensor) -> Tensor:
        shifts = [first.tanh() * self.extents / 2]
        of_hidden = self.of_hidden(hidden).unflatten(1, (self.axes, -1)).flatten(0, 1)  # the same in all frames
        for frame in range(1, self.frames):
            place = self._rounded(shifts[-1])
            if frame > 1:
                seen = self.of_frame(self._seen(place, move).flatten(0, 1))
                gate, summand = self.rule(of_hidden + seen).unflatten(0, move.shape).unbind(-1)
                gate = torch.sigmoid(_SHARPNESS * gate - _RARITY)
                move = move + gate * (summand - 2 * move)
            shifts.append(place + self.largest_move * move.tanh())
        return torch.stack(shifts, 1)

    def _seen(self, place: Tensor, move: Tensor) -> Tensor:
        """What the rule sees of a frame: place in positions and move before its tanh [B, axes] -> [B, axes, V]."""
        share = place / self.extents
        state = torch.stack([share, move], -1) * self.emphasis
        own_first = torch.stack([state, *(state.roll(-axis, 1) for axis in range(1, self.axes))], 1).flatten(2)
        angles = 2 * math.pi * share[..., None] * self.waves
        return torch.cat([own_first, angles.sin(), angles.cos()], -1)

    def _rounded(self, shift: Tensor) -> Tensor:
        """A whole shift with the gradient of the one between positions, if shifts are to be whole."""
        return shift + (shift.round() - shift).detach() if self.whole else shift


def _interpolation(extent: int, shift: Tensor, scale: Tensor) -> Tensor:
    """Weights of linear interpolation along one axis: shift [B, T], scale [B, 1] -> [B, T, after S, before S]."""
    positions = torch.arange(extent, dtype=shift.dtype, device=shift.device)
    middle = (extent - 1) / 2
    sources = (positions - middle - shift[..., None]) / scale[..., None] + middle
    distance = (sources.clamp(0, extent - 1)[..., None] - positions).abs()
    return (1 - distance).clamp(min=0)
