"""Doubling and halving every spatial axis, by a separable FIR filter, a box filter or max pooling."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from imagegen_dist.nn.convolve import convolve

ResampleKernel = Literal["fir", "box"]
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_LARGEST = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _fir_weight(x: Tensor, gain: int = 1) -> Tensor:
    """Outer product of gain · [1, 3, 3, 1] / 8 over the spatial axes of x, one filter per channel: [C, 1, 4, ...]."""
    # Filled on x's device: copying a constant there on every call would stall the host.
    taps = x.new_full((4,), gain / 8)
    taps[1:3].fill_(3 * gain / 8)
    weight = taps
    for _ in range(x.ndim - 3):
        weight = weight.unsqueeze(-1) * taps
    return weight.expand(x.shape[1], 1, *weight.shape)


def upsample(x: Tensor, kernel: ResampleKernel = "fir") -> Tensor:
    """Twice the extent on every spatial axis: [B, C, *S] -> [B, C, *2S]. Twice differentiable.

    "fir" interpolates with the separable filter [1, 3, 3, 1], normalised so that a constant keeps its value, with zeros
    beyond the edges; "box" repeats each value.
    """
    ndim = x.ndim - 2
    if kernel == "box":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    # Inserted zeros halve the signal along each axis: the filter compensates.
    weight = _fir_weight(x, gain=2)
    return convolve(x, weight, stride=(2,) * ndim, padding=(1,) * ndim, groups=x.shape[1], transposed=True)


def downsample(x: Tensor, kernel: ResampleKernel = "fir") -> Tensor:
    """Half the extent on every spatial axis: [B, C, *2S] -> [B, C, *S]. Twice differentiable.

    "fir" filters with the separable [1, 3, 3, 1], normalised, with zeros beyond the edges; "box" takes the mean.
    """
    ndim = x.ndim - 2
    if kernel == "box":
        return _AVERAGE[ndim](x, 2)
    return convolve(x, _fir_weight(x), stride=(2,) * ndim, padding=(1,) * ndim, groups=x.shape[1])


def max_pool(x: Tensor) -> Tensor:
    """The maximum of every two values along each spatial axis: [B, C, *S] -> [B, C, *(S // 2)].

    An odd axis loses its last value; an axis with a single position is unchanged.
    """
    return _LARGEST[x.ndim - 2](x, tuple(min(extent, 2) for extent in x.shape[2:]))
