"""By how much each axis changes between the stages of a network.

A setting names the strides of every step between two stages as text: "2" halves every axis, "1x2x2" keeps the first
one, such as the time of a video. One entry for all steps is enough where they are alike.
"""

from __future__ import annotations

import re
from itertools import accumulate
from math import prod

from imagegen_dist.shape import SampleShape, per_axis

Strides = tuple[int, ...]
"""Of one step between stages: 1 or 2 for every axis."""

_FORM = re.compile(r"[12](x[12])*")


def check_strides(strides: tuple[str, ...], steps: int) -> None:
    """Raise ValueError unless there is one entry, or one for each step, of the form 2 or 1x2x2."""
    wrong = [entry for entry in strides if not _FORM.fullmatch(entry)]
    if wrong or len(strides) not in (1, steps):
        raise ValueError(
            f"strides {' '.join(strides) or 'none'}: give 1 or 2 for all axes, or as 1x2x2 for each of them, once or "
            f"for each of the {steps} steps between stages, by --model.strides"
        )


def strides_of(strides: tuple[str, ...], steps: int, ndim: int) -> list[Strides]:
    """The strides of every step. Raises ValueError if an entry is for another number of axes."""
    entries = strides * steps if len(strides) == 1 else strides
    found = [tuple(int(axis) for axis in entry.split("x")) for entry in entries]
    for entry, axes in zip(entries, found, strict=True):
        if len(axes) not in (1, ndim):
            raise ValueError(
                f"strides {entry} has {len(axes)} entries for {ndim} spatial axes: give one for each by --model.strides"
            )
    return [per_axis(axes[0] if len(axes) == 1 else axes, ndim) for axes in found]


def lowest_extent(shape: SampleShape, factors: list[Strides], product: str, remedy: str) -> tuple[int, ...]:
    """The spatial extent after all of these factors. Raises ValueError if it is not an integer.

    product: what the factors are, and remedy: what to change, for the error.
    """
    whole = tuple(prod(axis) for axis in zip(*factors, strict=True)) if factors else (1,) * shape.ndim
    if any(extent % factor for extent, factor in zip(shape.spatial, whole, strict=True)):
        text = str(whole[0]) if len(set(whole)) == 1 else " × ".join(map(str, whole))
        raise ValueError(f"spatial shape {shape.spatial} is not divisible by {text} = {product}: {remedy}")
    return tuple(extent // factor for extent, factor in zip(shape.spatial, whole, strict=True))


def extents_upward(lowest: tuple[int, ...], strides: list[Strides]) -> list[tuple[int, ...]]:
    """The extent of every stage, of which the first is the lowest; strides: of the steps between them."""

    def grow(extent: tuple[int, ...], step: Strides) -> tuple[int, ...]:
        return tuple(positions * factor for positions, factor in zip(extent, step, strict=True))

    return list(accumulate(strides, grow, initial=lowest))
