"""Convolutions over one, two or three spatial axes, and linear layers; weights are drawn from an explicit generator."""

from math import prod, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.nn.casting import cast_weight
from imagegen_dist.nn.convolve import convolve
from imagegen_dist.shape import PerAxis, per_axis
from imagegen_dist.wording import counted


def scaled_normal(shape: tuple[int, ...], fan_in: float, gain: float, generator: torch.Generator) -> nn.Parameter:
    """A parameter of this shape drawn from N(0, gain² / fan_in); a gain of 0 draws nothing and gives zeros."""
    if gain == 0:
        return nn.Parameter(torch.zeros(shape))
    return nn.Parameter(torch.randn(shape, generator=generator) * (gain / sqrt(fan_in)))


def append_dims(x: Tensor, ndim: int) -> Tensor:
    """x with axes of extent 1 appended until it has ndim axes."""
    return x[(..., *[None] * (ndim - x.ndim))]


class Conv(nn.Module):
    """Convolution over ndim spatial axes: [B, in_channels, *S] -> [B, out_channels, *S / stride].

    kernel, stride, padding: one int, or one per axis. padding None gives S / stride, with zero padding.
    gain: weights are initialised from N(0, gain² / fan_in) with `generator`; the optional bias is initialised to 0.
    The computation uses x's dtype: a bfloat16 x is convolved in bfloat16, whatever the dtype of the weights.
    Raises ValueError if groups does not divide the channels.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        kernel: PerAxis,
        stride: PerAxis = 1,
        padding: PerAxis | None = None,
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
            # Half of the overlap k - s on either side, rounded up: an odd overlap has one more zero on the left.
            padding = tuple((k - s + 1) // 2 for k, s in zip(self.kernel, self.stride, strict=True))
        self.padding = per_axis(padding, ndim)
        self.groups = groups
        shape = (out_channels, in_channels // groups, *self.kernel)
        self.weight = scaled_normal(shape, prod(shape[1:]), gain, generator)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """bias: [out_channels], added in place of the layer's own."""
        bias = self.bias if bias is None else bias
        bias = None if bias is None else cast_weight(bias, x.dtype)
        weight = cast_weight(self.weight, x.dtype)
        if self._cuts_patches(x):
            return F.linear(_patches(x, self.kernel), weight.flatten(1), bias).movedim(-1, 1)
        if self._weighs_whole(x):
            total = (x * weight.squeeze(1)).flatten(2).sum(2)
            return append_dims(total if bias is None else total + bias, x.ndim)
        return convolve(x, weight, bias, stride=self.stride, padding=self.padding, groups=self.groups)

    def _cuts_patches(self, x: Tensor) -> bool:
        """True if this is one matrix product over non-overlapping, unpadded patches.

        For large patches or a single position, a matrix product and its derivatives are several times faster.
        """
        extents = tuple(x.shape[2:])
        return (
            self.groups == 1
            and self.kernel == self.stride
            and not any(self.padding)
            and all(extent % size == 0 for extent, size in zip(extents, self.kernel, strict=True))
            and (max(self.kernel) > 1 or max(extents) == 1)
        )

    def _weighs_whole(self, x: Tensor) -> bool:
        """True if this is a weighted sum over each channel: a depthwise kernel as large as the sample."""
        depthwise = self.groups == x.shape[1] == self.weight.shape[0]
        return depthwise and self.kernel == tuple(x.shape[2:]) and not any(self.padding)

    def extra_repr(self) -> str:
        out_channels, in_channels = self.weight.shape[0], self.weight.shape[1] * self.groups
        return f"{in_channels}, {out_channels}, kernel={self.kernel}, stride={self.stride}, groups={self.groups}"


class TransposedConv(nn.Module):
    """Transpose of Conv over ndim spatial axes: [B, in_channels, *S] -> [B, out_channels, *S · stride].

    kernel, stride: one int, or one per axis; raises ValueError unless kernel - stride is even and not negative.
    gain: weights are initialised from N(0, gain² / fan_in); each output sums in_channels · kernel / stride inputs.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        kernel: PerAxis,
        stride: PerAxis,
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
            raise ValueError(f"transposed kernel {self.kernel}: must be stride {self.stride} plus an even number")
        self.padding = tuple(extent // 2 for extent in overlap)
        fan_in = in_channels * prod(self.kernel) / prod(self.stride)
        self.weight = scaled_normal((in_channels, out_channels, *self.kernel), fan_in, gain, generator)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else cast_weight(self.bias, x.dtype)
        weight = cast_weight(self.weight, x.dtype)
        if self.kernel == self.stride:
            x = _join_patches(x.movedim(1, -1) @ weight.flatten(1), self.kernel)
            return x if bias is None else x + append_dims(bias, x.ndim - 1)
        return convolve(x, weight, bias, stride=self.stride, padding=self.padding, transposed=True)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, kernel={self.kernel}, stride={self.stride}"


def _patches(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Adjacent patches, flattened: [B, C, *S] -> [B, *(S / size), C · prod(size)]."""
    ndim = len(size)
    for axis, extent in enumerate(size):
        x = x.unflatten(2 + 2 * axis, (-1, extent))  # [B, C, S1/k1, k1, S2/k2, k2, ...]
    positions, inside = range(2, 2 + 2 * ndim, 2), range(3, 3 + 2 * ndim, 2)
    return x.permute(0, *positions, 1, *inside).flatten(1 + ndim)


def _join_patches(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """The inverse of `_patches`: [B, *P, C · prod(size)] -> [B, C, *(P · size)]."""
    ndim = len(size)
    x = x.unflatten(-1, (-1, *size))  # [B, P1, P2, ..., C, k1, k2, ...]
    order = [axis for pair in zip(range(1, 1 + ndim), range(2 + ndim, 2 + 2 * ndim), strict=True) for axis in pair]
    x = x.permute(0, 1 + ndim, *order)
    for axis in range(2, 2 + ndim):
        x = x.flatten(axis, axis + 1)
    return x


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
        bias = None if self.bias is None else cast_weight(self.bias, x.dtype)
        return F.linear(x, cast_weight(self.weight, x.dtype), bias)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, bias={self.bias is not None}"


class AuxiliaryClassifier(Linear):
    """Features [B, features] -> logits of the classes, [B, classes], which are 0 at first (arXiv:1610.09585)."""

    def __init__(self, features: int, classes: int, *, generator: torch.Generator) -> None:
        super().__init__(features, classes, bias=True, gain=0, generator=generator)


def auxiliary_classifier(features: int, classes: int, *, generator: torch.Generator) -> AuxiliaryClassifier | None:
    """The classifier of a discriminator's features; None without classes."""
    return AuxiliaryClassifier(features, classes, generator=generator) if classes else None


class ClassEmbedding(nn.Module):
    """One learned vector per class: label int64 [B] in [0, classes) -> [B, features], weights N(0, gain²).

    A floating-point label [B, classes] holds a weight for each class: the result is the weighted sum of their vectors.
    Raises ValueError if called without labels.
    """

    def __init__(self, classes: int, features: int, gain: float = 1.0, *, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = scaled_normal((classes, features), 1.0, gain, generator)

    def forward(self, label: Tensor | None) -> Tensor:
        if label is None:
            raise ValueError(f"a network of {counted(len(self.weight), 'class')} needs a label for every sample")
        if label.is_floating_point():
            return label.to(self.weight.dtype) @ self.weight
        return F.embedding(label, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"
