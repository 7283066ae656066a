"""Convolutions against PyTorch's: values, derivatives of every order, and how many kernels they take."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from imagegen_dist.nn.convolve import convolve, input_gradients_only

PLAIN = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

# channels in and out, groups, kernel, stride, padding, transposed
FORMS = {
    "dense": (2, 3, 1, 3, 1, 1, False),
    "one by one": (3, 2, 1, 1, 1, 0, False),
    "grouped": (4, 6, 2, 3, 1, 1, False),
    "depthwise": (3, 3, 3, 3, 1, 1, False),
    "depthwise, multiplied": (2, 4, 2, 2, 1, 0, False),
    "strided": (2, 2, 1, 3, 2, 1, False),
    "strided, grouped": (4, 2, 2, 4, 2, 1, False),
    "transposed": (2, 3, 1, 4, 2, 1, True),
    "transposed, grouped": (4, 2, 2, 4, 2, 1, True),
    "transposed, depthwise": (2, 2, 2, 4, 2, 1, True),
}


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Case:
    """A form of convolution over some spatial axes, with its tensors."""

    def __init__(self, form: str, ndim: int, batch: int = 2, dtype: torch.dtype = torch.float64) -> None:
        inputs, outputs, self.groups, kernel, stride, padding, self.transposed = FORMS[form]
        self.stride, self.padding = (stride,) * ndim, (padding,) * ndim
        first, second = (inputs, outputs) if self.transposed else (outputs, inputs)
        extents = (4, 5, 4)[:ndim] if ndim < 3 else (4, 3, 4)
        self.x = noise(batch, inputs, *extents, dtype=dtype).requires_grad_()
        self.weight = noise(first, second // self.groups, *[kernel] * ndim, seed=1, dtype=dtype).requires_grad_()
        self.bias = noise(outputs, seed=2, dtype=dtype).requires_grad_()
        self.plain = (TRANSPOSED if self.transposed else PLAIN)[ndim]

    def ours(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        form = {"stride": self.stride, "padding": self.padding, "groups": self.groups, "transposed": self.transposed}
        return convolve(x, weight, bias, **form)

    def theirs(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.plain(x, weight, bias, stride=self.stride, padding=self.padding, groups=self.groups)


def derivatives(convolution, x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Gradients of a loss with a gradient penalty in it, as in a discriminator's turn, and of their squares again."""
    y = F.leaky_relu(convolution(x, weight, bias), 0.2)
    weights = [weight] if bias is None else [weight, bias]
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    second = torch.autograd.grad(gradient.pow(3).sum() + y.sum(), [x, *weights], create_graph=True)
    third = torch.autograd.grad(sum(each.square().sum() for each in second), [x, *weights])
    return [y, gradient, *second, *third]


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_values_and_derivatives_up_to_the_third_order_are_pytorchs(form, ndim):
    case = Case(form, ndim)
    for bias in (None, case.bias):
        ours = derivatives(case.ours, case.x, case.weight, bias)
        for mine, theirs in zip(ours, derivatives(case.theirs, case.x, case.weight, bias), strict=True):
            assert (mine - theirs).abs().max() <= 1e-12 * theirs.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_derivatives_agree_with_finite_differences(form):
    case = Case(form, 1)
    tensors = (case.x, case.weight, case.bias)
    assert gradcheck(case.ours, tensors)
    assert gradgradcheck(case.ours, tensors)


@pytest.mark.parametrize("form", ["grouped", "transposed, grouped"])
def test_an_empty_batch_has_gradients_of_zero(form):
    case = Case(form, 2, batch=0)
    y, _, _, of_weight, of_bias, *_ = derivatives(case.ours, case.x, case.weight, case.bias)
    assert y.shape == case.theirs(case.x, case.weight).shape
    assert of_weight.shape == case.weight.shape
    assert not of_weight.any()
    assert not of_bias.any()


@pytest.mark.parametrize("form", ["dense", "grouped", "transposed"])
def test_bfloat16_and_autocast_give_pytorchs_types_and_values(form):
    case = Case(form, 2, dtype=torch.float32)
    low = [tensor.detach().bfloat16().requires_grad_() for tensor in (case.x, case.weight, case.bias)]
    of_low = derivatives(case.ours, *low)
    assert all(each.dtype == torch.bfloat16 for each in of_low)
    with torch.autocast("cpu", torch.bfloat16):
        y, ours = case.ours(case.x, case.weight, case.bias), derivatives(case.ours, case.x, case.weight, case.bias)
        theirs = derivatives(case.theirs, case.x, case.weight, case.bias)
    assert y.dtype == torch.bfloat16
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine.dtype == expected.dtype
        assert (mine - expected).norm() <= 0.05 * expected.norm()
    double = Case(form, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert case.ours(double.x, double.weight).dtype == torch.float64


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.found[function.__name__] += 1
        return function(*args, **(kwargs or {}))


def kernels(convolution, case: Case) -> int:
    """Convolutions, and gradients of convolutions, of a gradient penalty and its backward."""
    with Counting() as counting:
        y = F.leaky_relu(convolution(case.x, case.weight), 0.2)
        with input_gradients_only():
            (gradient,) = torch.autograd.grad(y.sum(), case.x, create_graph=True)
        (gradient.square().sum() + y.sum()).backward()
    return sum(number for name, number in counting.found.items() if name.startswith("convolution"))


def test_a_penalty_takes_as_many_kernels_for_many_groups_as_for_one():
    case = Case("depthwise", 2)
    # The convolution, its gradient; of that the gradients of both its arguments, and those of the convolution.
    assert kernels(case.ours, case) == 4
    assert kernels(case.theirs, case) > 5


def test_a_constant_filter_has_no_gradient_of_its_weight():
    case = Case("depthwise", 2)
    case.weight.requires_grad_(False)
    assert kernels(case.ours, case) == 4


def test_weights_have_no_gradient_where_only_inputs_are_asked_for():
    case = Case("dense", 2)
    y = case.ours(case.x, case.weight)
    with input_gradients_only():
        y.sum().backward(retain_graph=True)
    assert case.weight.grad is None
    assert case.x.grad is not None
    y.sum().backward()
    assert case.weight.grad is not None
