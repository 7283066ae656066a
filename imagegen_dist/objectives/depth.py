"""Augmentation along the first of three axes: a volume's depth, or a video's time.

Flips, whole shifts and quarter turns only move values, so that nothing is resampled: one gather a sample, which is
differentiable any number of times. With the rotations of augment.py in the plane of the last two axes, the turns give
each of the 24 rotations of a cube equally often.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imagegen_dist.objectives.base import Randomness
from imagegen_dist.shape import SampleShape

PARTS = ("flip_depth", "translate_depth", "rotate_depth")

_SHIFT = 0.125  # of the extent, as in the plane

# Where the first axis goes: to either side of each axis. Rows are input axes, columns output axes.
_TURNS = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
)


class Depth:
    """Draws amounts, and turns them into where each value comes from. shares: of p, of flip, translation, rotation."""

    def __init__(self, *shares: float) -> None:
        self._shares = list(shares)
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __bool__(self) -> bool:
        """True if some transformation may be applied."""
        return any(self._shares)

    def check(self, shape: SampleShape) -> None:
        """Raise ValueError if samples of this shape cannot be transformed so."""
        named = next((part for part, share in zip(PARTS, self._shares, strict=True) if share), "")
        if named and len(shape.spatial) != 3:
            flag = f"--objective.augment.{named.replace('_', '-')}"
            raise ValueError(f"{flag} is for volumes and videos, and the samples are {shape}; set it to 0")
        if self._shares[2] and len(set(shape.spatial)) > 1:
            raise ValueError(f"--objective.augment.rotate-depth turns cubes, and the samples are {shape}; set it to 0")

    def draw(self, count: int, p: float | Tensor, draw: Randomness) -> Tensor:
        """The amounts of `count` samples, applied with probability p times their shares, float64 [count, 3].

        -1 or 1 for the flip, a shift in [-1/2, 1/2), and the number of a turn.
        """
        chance, uniform = draw.uniform(count, 6, dtype=torch.float64).split(3, 1)
        strikes = chance < p * self._on(chance.device)[0]
        flip, shift, turn = (uniform * strikes).unbind(1)
        shift = torch.where(strikes[:, 1], shift - 0.5, 0)
        return torch.stack([torch.where(flip > 0.5, -1.0, 1.0), shift, (turn * len(_TURNS)).floor()], 1)

    def source(self, amounts: Tensor, x: Tensor) -> Tensor:
        """The number of the value that comes to each place, int64 [B, D H W], for samples of x's shape [..., D, H, W].

        Beyond the ends of the first axis the sample is mirrored.
        """
        flip, shift, turn = amounts.unbind(1)
        extents = x.shape[-3:]
        turns = self._on(amounts.device)[1].index_select(0, turn.long())
        turns = torch.cat([turns[:, :1] * flip[:, None, None], turns[:, 1:]], 1)
        most = int(extents[0] * _SHIFT + 0.5)
        shift = (shift * (2 * most + 1)).round().clamp(-most, most)
        strides = (extents[1] * extents[2], extents[2], 1)
        places = []
        for out, extent in enumerate(extents):
            line = torch.arange(extent, dtype=torch.float64, device=amounts.device) - (extent - 1) / 2
            found = torch.zeros(len(amounts), extent, dtype=torch.float64, device=amounts.device)
            for axis, stride in enumerate(strides):
                sign = turns[:, axis, out, None]
                at = sign * line + (extents[axis] - 1) / 2 + (shift[:, None] if axis == 0 else 0)
                at = torch.where(at < 0, -1 - at, at)
                found = found + stride * sign.abs() * torch.minimum(at, 2 * extents[axis] - 1 - at)
            places.append(found.long())
        depth, height, width = places
        return (depth[:, :, None, None] + height[:, None, :, None] + width[:, None, None]).flatten(1).to(x.device)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The shares [3] and the turns [6, 3, 3] on a device, float64."""
        if device not in self._constants:
            shares, turns = (torch.tensor(values, dtype=torch.float64) for values in (self._shares, _TURNS))
            self._constants[device] = shares.to(device), turns.to(device)
        return self._constants[device]


def moved(x: Tensor, source: Tensor) -> Tensor:
    """x [B, C, *S] with each value from another place, by `Depth.source`."""
    values = x.flatten(2)
    return values.gather(2, source[:, None].expand(values.shape)).view_as(x)
