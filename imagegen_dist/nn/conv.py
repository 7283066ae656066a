"""Convolutions over one, two or three spatial axes, and linear layers; an explicit generator draws the weights."""

from collections.abc import Callable
from math import prod, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONVOLVE_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def scaled_normal(shape: tuple[int, ...], fan_in: float, gain: float, generator: torch.Generator) -> nn.Parameter:
    """Parameter of this shape drawn from N(0, gain² / fan_in); gain 0 draws nothing and gives zeros."""
    if gain == 0:
        return nn.Parameter(torch.zeros(shape))
    return nn.Parameter(torch.randn(shape, generator=generator) * (gain / sqrt(fan_in)))


def append_dims(x: Tensor, ndim: int) -> Tensor:
    """x with axes of extent 1 appended until it has ndim axes."""
    return x[(..., *[None] * (ndim - x.ndim))]


def per_axis(value: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """One value for each of ndim axes: an int serves all of them, a tuple must have ndim entries."""
    axes = (value,) * ndim if isinstance(value, int) else tuple(value)
    if len(axes) != ndim:
        raise ValueError(f"{axes} has {len(axes)} entries for {ndim} spatial axes: give one an axis")
    return axes


class Conv(nn.Module):
    """Convolution over ndim spatial axes: [B, in_channels, *S] -> [B, out_channels, *S / stride].

    kernel, stride, padding: one int, or one an axis. padding None keeps S / stride, with zeros around the sample.
    gain: weights start as N(0, gain² / fan_in), drawn from `generator`; the optional bias starts at 0.
    The computation follows x's dtype: a bfloat16 x is convolved in bfloat16, whatever the weights are kept in.
    Raises ValueError where groups does not divide the channels.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | None = None,
        groups: int = 1,
        bias: bool = False,
        gain: float = 1.0,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{groups} groups do not divide {in_channels} input and {out_channels} output channels")
        self.kernel = per_axis(kernel, ndim)
        self.stride = per_axis(stride, ndim)
        if padding is None:
            # Half of the overlap k - s on either side, rounded up: an odd overlap reads one zero more on the left.
            padding = tuple((k - s + 1) // 2 for k, s in zip(self.kernel, self.stride, strict=True))
        self.padding = per_axis(padding, ndim)
        self.groups = groups
        self.convolve = CONVOLVE[ndim]
        shape = (out_channels, in_channels // groups, *self.kernel)
        self.weight = scaled_normal(shape, prod(shape[1:]), gain, generator)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight = self.weight.to(x.dtype)
        return self.convolve(x, weight, bias, stride=self.stride, padding=self.padding, groups=self.groups)

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[0], self.weight.shape[1] * self.groups
        return f"{in_channels}, {out_channels}, kernel={self.kernel}, stride={self.stride}, groups={self.groups}"


class TransposedConv(nn.Module):
    """Transpose of Conv over ndim spatial axes: [B, in_channels, *S] -> [B, out_channels, *S · stride].

    kernel, stride: one int, or one an axis; kernel - stride is even and not negative, else ValueError.
    gain: weights start as N(0, gain² / fan_in); in_channels · kernel / stride inputs meet in one output.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, ...],
        stride: int | tuple[int, ...],
        bias: bool = False,
        gain: float = 1.0,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.kernel = per_axis(kernel, ndim)
        self.stride = per_axis(stride, ndim)
        overlap = tuple(k - s for k, s in zip(self.kernel, self.stride, strict=True))
        if min(overlap) < 0 or any(extent % 2 for extent in overlap):
            raise ValueError(f"transposed kernel {self.kernel}: stride {self.stride} plus an even number")
        self.padding = tuple(extent // 2 for extent in overlap)
        self.convolve = CONVOLVE_TRANSPOSED[ndim]
        fan_in = in_channels * prod(self.kernel) / prod(self.stride)
        self.weight = scaled_normal((in_channels, out_channels, *self.kernel), fan_in, gain, generator)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return self.convolve(x, self.weight.to(x.dtype), bias, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, kernel={self.kernel}, stride={self.stride}"


class Linear(nn.Module):
    """Linear layer [..., in_features] -> [..., out_features]; weights N(0, gain² / in_features), bias 0."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        gain: float = 1.0,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.weight = scaled_normal((out_features, in_features), in_features, gain, generator)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, bias={self.bias is not None}"


class ClassEmbedding(nn.Module):
    """One learned vector a class: label int64 [B] in [0, classes) -> [B, features], weights N(0, gain²).

    Calling it without labels raises ValueError.
    """

    def __init__(self, classes: int, features: int, gain: float = 1.0, *, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = scaled_normal((classes, features), 1.0, gain, generator)

    def forward(self, label: Tensor | None) -> Tensor:
        if label is None:
            raise ValueError(f"a network of {len(self.weight)} classes needs a label for every sample")
        return F.embedding(label, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"
