"""Weights are cast once where they do not change, and their gradients are those of casts at every use."""

import torch

from benchmarks.operators import Counting
from imagegen_dist.nn.casting import constant_weights
from imagegen_dist.nn.conv import Conv


def layer() -> Conv:
    return Conv(2, 3, 4, 3, bias=True, generator=torch.Generator().manual_seed(0))


def turn(conv: Conv, xs: list[torch.Tensor]) -> int:
    """The casts of forward and backward passes one after the other, which add up gradients."""
    with Counting() as counting:
        for x in xs:
            conv(x).float().square().sum().backward()
    return counting.operators().by_name["aten._to_copy.default"]


def test_casts_are_shared_by_all_passes_and_gradients_add_up() -> None:
    xs = [torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed)).bfloat16() for seed in range(3)]
    plain, shared = layer(), layer()
    casts = turn(plain, xs)
    with constant_weights():
        assert turn(shared, xs) == casts - 2 * (len(xs) - 1)  # of weight and bias
    for expected, found in zip(plain.parameters(), shared.parameters(), strict=True):
        assert torch.equal(found.grad, expected.grad)


def test_after_a_change_the_new_weights_are_used_and_gradients_are_where_they_are_required() -> None:
    conv, x = layer(), torch.ones(1, 3, 5, 5).bfloat16()
    with constant_weights():
        with torch.no_grad():
            first = conv(x)
        assert conv(x).requires_grad
    with torch.no_grad():
        conv.weight.mul_(2)
    conv.requires_grad_(False)
    with constant_weights():
        second = conv(x)
    assert not second.requires_grad
    torch.testing.assert_close(second, 2 * first)
