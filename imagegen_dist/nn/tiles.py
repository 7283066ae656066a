"""Large samples through a convolutional network in overlapping tiles, so that memory follows from the tile.

A network's result at a position depends on the positions within its reach. Where a tile has been cut, results closer to
the cut than the reach differ from those of the whole; they are discarded if the halo is as wide as the reach, and the
tiles' results are then those of the whole. Layers that look at a whole sample, as group normalisation and attention
do, have no reach: tiles differ slightly, and a blend hides their seams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from imagegen_dist.nn.attention import SelfAttention
from imagegen_dist.nn.conv import Conv
from imagegen_dist.shape import PerAxis, axes_text, per_axis


def reach(network: nn.Module, factors: Sequence[int], decodes: bool) -> tuple[int, ...]:
    """How far a network sees along each axis, in positions of its lowest resolution; () if it sees a whole sample.

    factors: positions of the highest resolution for each of the lowest. decodes: its results have the highest one.
    Modules have to be registered in the order of their use; what repeats positions says how often by `grows`.
    """
    modules = list(network.modules())
    if any(isinstance(module, nn.GroupNorm | SelfAttention) for module in modules):
        return ()
    found = []
    for axis, factor in enumerate(factors):
        furthest = 0
        for position in range(factor if decodes else 1):
            first, last = _seen(modules, axis, position)
            own = position // factor
            first, last = (first, last) if decodes else (first // factor, last // factor)
            furthest = max(furthest, own - first, last - own)
        found.append(furthest)
    return tuple(found)


def _seen(modules: Sequence[nn.Module], axis: int, position: int) -> tuple[int, int]:
    """The first and the last input position that one result depends on, along one axis."""
    first = last = position
    for module in reversed(modules):
        if isinstance(module, Conv):
            kernel, stride = module.kernel[axis], module.stride[axis]
            before = module.padding[axis] + (getattr(module, "past", 0) if axis == 0 else 0)
            first, last = first * stride - before, last * stride - before + kernel - 1
        elif grows := getattr(module, "grows", ()):
            first, last = first // grows[axis], last // grows[axis]
    return first, last


@dataclass(frozen=True)
class Tiling:
    """How one axis is cut, in positions of the lowest resolution.

    tile: positions of a tile. halo: positions that are discarded at each cut. blend: positions over which two
    neighbours fade into one another. Raises ValueError if nothing of a tile is left.
    """

    tile: int
    halo: int
    blend: int

    def __post_init__(self) -> None:
        if min(self.halo, self.blend) < 0 or self.advance < 1:
            raise ValueError(
                f"tiles of {self.tile} positions leave nothing beside a halo of {self.halo} on either side and a blend "
                f"of {self.blend}: take tiles of {2 * self.halo + self.blend + 1} or more"
            )

    @property
    def advance(self) -> int:
        """Positions from one tile to the next."""
        return self.tile - 2 * self.halo - self.blend

    def starts(self, extent: int) -> list[int]:
        """Where the tiles of an axis begin; the last one ends with the axis."""
        last = max(extent - self.tile, 0)
        return [*range(0, last, self.advance), last]

    def weights(self, start: int, extent: int, scale: int, like: Tensor) -> Tensor:
        """The weight of each result of the tile at `start`, [tile · scale]: 0 in a halo, rising over the blend."""
        tile = min(self.tile, extent)
        at = torch.arange(tile * scale, dtype=like.dtype, device=like.device) + 0.5
        from_cut = torch.full_like(at, torch.inf)
        if start > 0:
            from_cut = torch.minimum(from_cut, at)
        if start + tile < extent:
            from_cut = torch.minimum(from_cut, tile * scale - at)
        beyond_halo = from_cut - self.halo * scale
        return (beyond_halo / (self.blend * scale)).clamp(0, 1) if self.blend else (beyond_halo > 0).to(like.dtype)


def tilings(extents: Sequence[int], tile: PerAxis | None, halo: PerAxis | None, reach: Sequence[int]) -> list[Tiling]:
    """How each axis is cut, if extents are those that the network was trained on, at the lowest resolution.

    tile: None for these extents. halo: None for the reach where a tile has room for it, else for an eighth of a tile,
    with a quarter of it as a blend. reach: () for a network without one. Raises ValueError if they do not fit.
    """
    ndim = len(extents)
    found = []
    for axis, size in enumerate(extents if tile is None else per_axis(tile, ndim)):
        if halo is not None:
            width = per_axis(halo, ndim)[axis]
            is_exact = bool(reach) and width >= reach[axis]
            found.append(Tiling(size, width, 0 if is_exact else min(size // 4, max(size - 2 * width - 1, 0))))
        elif reach and size > 2 * reach[axis]:
            found.append(Tiling(size, reach[axis], 0))
        else:
            found.append(Tiling(size, size // 8, size // 4))
    return found


@torch.no_grad()
def tiled(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    cuts: Sequence[Tiling],
    scale_in: Sequence[int],
    scale_out: Sequence[int],
) -> Tensor:
    """function(x) for x [B, C, *S], in tiles: [B, C', *S · scale_out / scale_in].

    scale_in, scale_out: positions of x, and of the result, for each position that `cuts` counts. The result is on x's
    device. Raises ValueError if x's extents are no whole numbers of these positions.
    """
    if any(size % scale for size, scale in zip(x.shape[2:], scale_in, strict=True)):
        raise ValueError(f"samples of {axes_text(tuple(x.shape[2:]))} are no multiples of {axes_text(tuple(scale_in))}")
    extents = [size // scale for size, scale in zip(x.shape[2:], scale_in, strict=True)]
    starts = [cut.starts(extent) for cut, extent in zip(cuts, extents, strict=True)]
    total: Tensor | None = None
    for corner in product(*starts):
        sides = list(zip(corner, cuts, extents, scale_in, scale_out, strict=True))
        result = function(x[_box([(at * fine, cut.tile * fine) for at, cut, _, fine, _ in sides])])
        if total is None:
            whole = [extent * scale for extent, scale in zip(extents, scale_out, strict=True)]
            total = result.new_zeros(*result.shape[:2], *whole)
        for axis, (at, cut, extent, _, scale) in enumerate(sides):
            result = result * _along(cut.weights(at, extent, scale, result), axis, result)
        total[_box([(at * scale, cut.tile * scale) for at, cut, _, _, scale in sides])] += result
    assert total is not None
    for axis, (cut, extent, scale) in enumerate(zip(cuts, extents, scale_out, strict=True)):
        weight = total.new_zeros(extent * scale)
        for at in starts[axis]:
            weight[at * scale : (at + cut.tile) * scale] += cut.weights(at, extent, scale, total)
        total /= _along(weight, axis, total)
    return total


def _box(sides: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    """The index of [B, C, *S] that takes a box; its first position and its extent for each spatial axis."""
    return (slice(None), slice(None), *(slice(start, start + extent) for start, extent in sides))


def _along(weights: Tensor, axis: int, x: Tensor) -> Tensor:
    """Weights [n] as a factor of x [B, C, *S] along one of its spatial axes."""
    return weights.view(-1, *[1] * (x.ndim - 3 - axis))
