"""Doubling and halving of all or some spatial axes, by a separable FIR filter, a box filter or max pooling."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from imagegen_dist.nn.convolve import convolve

ResampleKernel = Literal["fir", "box"]
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_LARGEST = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _fir_weight(x: Tensor, strides: tuple[int, ...], gain: int = 1) -> Tensor:
    """Outer product of gain · [1, 3, 3, 1] / 8 over the axes of stride 2, one filter per channel: [C, 1, *kernel].

    The kernel's extent is 4 along these axes, and 1 along those of stride 1.
    """
    # Filled on x's device: copying a constant there on every call would stall the host.
    taps = x.new_full((4,), gain / 8)
    taps[1:3].fill_(3 * gain / 8)
    filters = [taps if stride == 2 else x.new_ones(1) for stride in strides]
    weight = filters[0]
    for axis in filters[1:]:
        weight = weight.unsqueeze(-1) * axis
    return weight.expand(x.shape[1], 1, *weight.shape)


def _padding(strides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(stride - 1 for stride in strides)


def upsample(x: Tensor, kernel: ResampleKernel = "fir", strides: tuple[int, ...] | None = None) -> Tensor:
    """Twice the extent on every spatial axis, or on those of stride 2: [B, C, *S] -> [B, C, *S · strides].

    "fir" interpolates with the separable filter [1, 3, 3, 1], normalised so that a constant keeps its value, with zeros
    beyond the edges; "box" repeats each value. strides: 1 or 2 for each axis; None for 2. Twice differentiable.
    """
    strides = strides or (2,) * (x.ndim - 2)
    if max(strides) == 1:
        return x
    if kernel == "box":
        factors = 2.0 if min(strides) == 2 else tuple(map(float, strides))
        return F.interpolate(x, scale_factor=factors, mode="nearest")
    # Inserted zeros halve the signal along each axis: the filter compensates.
    weight = _fir_weight(x, strides, gain=2)
    return convolve(x, weight, stride=strides, padding=_padding(strides), groups=x.shape[1], transposed=True)


def downsample(x: Tensor, kernel: ResampleKernel = "fir", strides: tuple[int, ...] | None = None) -> Tensor:
    """Half the extent on every spatial axis, or on those of stride 2: [B, C, *S] -> [B, C, *S / strides].

    "fir" filters with the separable [1, 3, 3, 1], normalised, with zeros beyond the edges; "box" takes the mean.
    strides: 1 or 2 for each axis; None for 2. Twice differentiable.
    """
    strides = strides or (2,) * (x.ndim - 2)
    if max(strides) == 1:
        return x
    if kernel == "box":
        return _AVERAGE[x.ndim - 2](x, strides)
    weight = _fir_weight(x, strides)
    return convolve(x, weight, stride=strides, padding=_padding(strides), groups=x.shape[1])


def max_pool(x: Tensor) -> Tensor:
    """The maximum of every two values along each spatial axis: [B, C, *S] -> [B, C, *(S // 2)].

    An odd axis loses its last value; an axis with a single position is unchanged.
    """
    return _LARGEST[x.ndim - 2](x, tuple(min(extent, 2) for extent in x.shape[2:]))
