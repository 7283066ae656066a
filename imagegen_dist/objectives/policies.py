"""DiffAugment's policies by name, each applied with a probability of its own (arXiv:2006.10738, constants of its code).

They differ from the transformations of augment.py in their strengths, in that contrast keeps a sample's mean, and in
that what comes from beyond the edges is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imagegen_dist.objectives.base import Randomness

PARTS = ("brightness", "saturation", "contrast", "translation", "cutout")
_NAMES = {"color": PARTS[:3], **{part: (part,) for part in PARTS}}

_SHIFT = 0.125  # of the extent
_CUTOUT = 0.5  # of the extent


def shares_of(policy: Sequence[str]) -> dict[str, float]:
    """The share of p of every part that a policy names: "color", "translation", "cutout:0.3", ...; the last one counts.

    Raises ValueError for another name, and for a share outside [0, 1].
    """
    shares: dict[str, float] = {}
    for word in policy:
        name, given, text = word.partition(":")
        try:
            share = float(text) if given else 1.0
        except ValueError:
            share = -1.0
        if name not in _NAMES or not 0 <= share <= 1:
            raise ValueError(
                f"policy {word!r} is not known; set --objective.augment.policy to some of {', '.join(_NAMES)}, each "
                "with a share of p from 0 to 1 where it is not 1, as in color,translation,cutout:0.3"
            )
        shares |= dict.fromkeys(_NAMES[name], share)
    return shares


class Policy(NamedTuple):
    """The amounts of a batch, float64. centred: in [-1/2, 1/2), 0 where a part is not applied, [B, 5]. centre: of the
    cutout, in [0, 1), [B, 2]. cuts: whether it is applied, bool [B, 1].
    """

    centred: Tensor
    centre: Tensor
    cuts: Tensor


class Policies:
    """Draws amounts, and turns them into the parts of a transformation. shares: of p, by part."""

    def __init__(self, shares: dict[str, float]) -> None:
        self._shares = [shares.get(part, 0.0) for part in PARTS]
        self._constants: dict[torch.device, Tensor] = {}

    def __bool__(self) -> bool:
        """True if some part may be applied."""
        return any(self._shares)

    def draw(self, count: int, p: float | Tensor, draw: Randomness) -> Policy:
        """The amounts of `count` samples, whose parts are applied with probability p times their shares."""
        chance, centred, centre = draw.uniform(count, 12, dtype=torch.float64).split([5, 5, 2], 1)
        device = chance.device
        if device not in self._constants:
            self._constants[device] = torch.tensor(self._shares, dtype=torch.float64).to(device)
        strikes = chance < p * self._constants[device]
        of_numbers = torch.cat([strikes[:, :4], strikes[:, 3:4]], 1)  # two shifts make a translation
        return Policy((centred - 0.5) * of_numbers, centre, strikes[:, 4:])

    def colour(self, policy: Policy, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(colour, added, pull) of `augment.Transform` for samples x [B, C, *S].

        In their order brightness x + b, saturation about the mean of the channels, and contrast k about the mean of the
        sample are k S x + b + (1 - k) mean(x), with S = s I + (1 - s) J / C. b: ±1/2, s: 0 to 2, k: 1/2 to 3/2.
        """
        amounts = policy.centred[:, :3, None, None].to(x.device, x.dtype, non_blocking=True)
        added, saturation, contrast = amounts[:, 0], 1 + 2 * amounts[:, 1], 1 + amounts[:, 2]
        if (channels := x.shape[1]) == 1:
            return contrast, added, 1 - contrast
        one = torch.eye(channels, dtype=x.dtype, device=x.device)
        return contrast * (saturation * one + (1 - saturation) / channels), added, 1 - contrast

    def shifts(self, policy: Policy, x: Tensor) -> tuple[Tensor, Tensor]:
        """From which row [B, H] and column [B, W] each one comes, int64; outside the sample: 0."""
        found = []
        for centred, extent in zip(policy.centred[:, 3:].unbind(1), x.shape[-2:], strict=True):
            most = int(extent * _SHIFT + 0.5)
            shift = (centred * (2 * most + 1)).round().clamp(-most, most).long()
            found.append(torch.arange(extent, device=shift.device) - shift[:, None])
        return found[0].to(x.device, non_blocking=True), found[1].to(x.device, non_blocking=True)

    def cut(self, policy: Policy, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [B, H] and columns [B, W] that are set to 0 where both are, bool."""
        found = []
        for centre, extent in zip(policy.centre.unbind(1), x.shape[-2:], strict=True):
            size = int(extent * _CUTOUT + 0.5)
            first = (centre * (extent + 1 - size % 2)).floor() - size // 2
            line = torch.arange(extent, device=first.device) - first[:, None]
            found.append((line >= 0) & (line < size) & policy.cuts)
        return found[0].to(x.device, non_blocking=True), found[1].to(x.device, non_blocking=True)


def shifted(x: Tensor, row_of: Tensor, column_of: Tensor) -> Tensor:
    """x [B, C, H, W] with each row and column from another one, and 0 from outside. row_of [B, H], column_of [B, W]."""
    height, width = x.shape[-2:]
    rows = row_of.clamp(0, height - 1)[:, None, :, None].expand(x.shape)
    columns = column_of.clamp(0, width - 1)[:, None, None].expand(x.shape)
    inside = ((row_of >= 0) & (row_of < height))[:, None, :, None] & ((column_of >= 0) & (column_of < width))[
        :, None, None
    ]
    return torch.where(inside, x.gather(2, rows).gather(3, columns), 0)
