"""Convolutions whose derivatives of every order are whole kernels.

<g, x ⋆ w> is linear in g, x and w. Its derivative with respect to g is the convolution, those with respect to x and w
are the convolution's two gradients, and the derivatives of each of these three operations are the other two. PyTorch's
second derivative of a grouped convolution is one convolution per group instead, and that of a dense one is a
convolution with a kernel as large as the sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from imagegen_dist.nn.compiling import in_graph

_plain = False


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Within it, convolutions are PyTorch's own operators, whose gradients a tracer can see and decompose."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


class _Form(NamedTuple):
    """Parameters of a convolution, one number per axis. transposed: the transposed convolution."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int
    transposed: bool

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return torch.ops.aten.convolution(x, weight, bias, *self._arguments())

    def gradients(
        self,
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        wanted: tuple[bool, bool, bool],
        bias_size: list[int] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of the input, the weight and the bias, as far as they are wanted."""
        return torch.ops.aten.convolution_backward(gradient, x, weight, bias_size, *self._arguments(), wanted)

    def gradients_of_input_gradient(
        self, direction: Tensor, gradient: Tensor, weight: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients, for `gradient` and the weight, of <direction, gradient of x>: both in one operator.

        The gradient of x is a transposed convolution of `gradient` (or, of a transposed one, a plain convolution).
        """
        sizes = zip(direction.shape[2:], gradient.shape[2:], weight.shape[2:], self.stride, self.padding, strict=True)
        # A strided convolution leaves out the last positions where the stride does not divide the extent.
        left = [0 if self.transposed else n - ((m - 1) * s - 2 * p + k) for n, m, k, s, p in sizes]
        form = self.stride, self.padding, [1] * len(left), not self.transposed, left, self.groups
        wanted = True, True, False
        return torch.ops.aten.convolution_backward(direction, gradient, weight, None, *form, wanted)[:2]

    def _arguments(self) -> tuple[Any, ...]:
        ones, zeros = [1] * len(self.stride), [0] * len(self.stride)
        return self.stride, self.padding, ones, self.transposed, zeros, self.groups


class _Wanted:
    """Whether backward passes compute gradients of weights: global, since those of GPUs run in threads of their own."""

    weights = True


_wanted = _Wanted()


@contextmanager
def input_gradients_only() -> Iterator[None]:
    """Within it, backward passes leave out the gradients of convolutions' weights.

    torch.autograd.grad of the inputs alone does so for PyTorch's own functions; those written in Python do not learn
    which gradients it asks for.
    """
    before, _wanted.weights = _wanted.weights, False
    try:
        yield
    finally:
        _wanted.weights = before


class _Convolution(Function):
    """x ⋆ weight + bias."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, form: _Form) -> Tensor:
        return form.convolve(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, ctx.form = inputs
        ctx.save_for_backward(x, weight)
        ctx.bias_size = None if bias is None else list(bias.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        of_weight, of_bias = of_weight and _wanted.weights, of_bias and _wanted.weights
        if not torch.is_grad_enabled():
            return *ctx.form.gradients(gradient, x, weight, (of_x, of_weight, of_bias), ctx.bias_size), None
        return (
            _InputGradient.apply(gradient, x, weight, ctx.form) if of_x else None,
            _WeightGradient.apply(gradient, x, weight, ctx.form) if of_weight else None,
            gradient.sum((0, *range(2, gradient.ndim))) if of_bias else None,
            None,
        )


class _InputGradient(Function):
    """The gradient of x, of whose value it does not depend."""

    @staticmethod
    def forward(gradient: Tensor, x: Tensor, weight: Tensor, form: _Form) -> Tensor | None:
        return form.gradients(gradient, x, weight, (True, False, False))[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        gradient, _, weight, ctx.form = inputs
        ctx.save_for_backward(gradient, weight)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        (direction,) = directions
        gradient, weight = ctx.saved_tensors
        of_gradient, _, of_weight, _ = ctx.needs_input_grad
        of_weight = of_weight and _wanted.weights
        if of_gradient and of_weight and not torch.is_grad_enabled():
            for_gradient, for_weight = ctx.form.gradients_of_input_gradient(direction, gradient, weight)
            return for_gradient, None, for_weight, None
        return (
            _Convolution.apply(direction, weight, None, ctx.form) if of_gradient else None,
            None,
            _WeightGradient.apply(gradient, direction, weight, ctx.form) if of_weight else None,
            None,
        )


class _WeightGradient(Function):
    """The gradient of the weight, on whose value it does not depend."""

    @staticmethod
    def forward(gradient: Tensor, x: Tensor, weight: Tensor, form: _Form) -> Tensor | None:
        return form.gradients(gradient, x, weight, (False, True, False))[1]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        gradient, x, _, ctx.form = inputs
        ctx.save_for_backward(gradient, x)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        (direction,) = directions
        gradient, x = ctx.saved_tensors
        of_gradient, of_x, _, _ = ctx.needs_input_grad
        return (
            _Convolution.apply(x, direction, None, ctx.form) if of_gradient else None,
            _InputGradient.apply(gradient, x, direction, ctx.form) if of_x else None,
            None,
            None,
        )


@in_graph
def _apply(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    groups: int,
    transposed: bool,
) -> Tensor:
    return _Convolution.apply(x, weight, bias, _Form(stride, padding, groups, transposed))


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    groups: int = 1,
    transposed: bool = False,
) -> Tensor:
    """Convolution over 1, 2 or 3 spatial axes, as torch.nn.functional's: x [B, C, *S] -> [B, out_channels, *S'].

    weight: [out_channels, C / groups, *kernel], or, transposed, [C, out_channels / groups, *kernel]. stride, padding:
    one number per axis. Differentiable any number of times; a weight that does not require a gradient has none
    computed. Under autocast, it computes in autocast's dtype, as PyTorch's functions do.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = _cast(x, dtype), _cast(weight, dtype)
        bias = None if bias is None else _cast(bias, dtype)
    if torch.is_grad_enabled() and not torch.compiler.is_exporting() and not _plain:
        return _apply(x, weight, bias, stride, padding, groups, transposed)
    return _Form(stride, padding, groups, transposed).convolve(x, weight, bias)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """As autocast does it, which leaves float64 alone."""
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)
