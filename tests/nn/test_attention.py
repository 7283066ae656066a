"""Self-attention over positions."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from imagegen_dist.nn.attention import SelfAttention


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attention(ndim: int = 2) -> SelfAttention:
    return SelfAttention(ndim, 8, generator=seeded()).double()


def test_it_is_the_formula_written_out():
    module = attention()
    x = torch.randn(2, 8, 3, 4, generator=seeded(1), dtype=torch.float64)
    normalised = F.group_norm(x, 2, eps=1e-6).flatten(2)
    query, key, value = (module.queries_keys_values.weight.flatten(1) @ normalised).split(8, dim=1)
    weights = torch.einsum("bcq,bck->bqk", query, key).div(8**0.5).softmax(-1)
    mixed = torch.einsum("bqk,bck->bcq", weights, value)
    expected = x + (module.project.weight.flatten(1) @ mixed).unflatten(2, (3, 4))
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_positions_may_come_in_any_order(ndim):
    x = torch.randn(2, 8, *[4] * ndim, generator=seeded(1), dtype=torch.float64)
    module = attention(ndim)
    torch.testing.assert_close(module(x.flip(-1)), module(x).flip(-1))


def test_every_position_sees_every_other():
    x = torch.randn(1, 8, 3, 3, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    module = attention()
    (gradient,) = torch.autograd.grad((module(x) - x)[0, :, 0, 0].sum(), x)
    assert (gradient.abs().sum(1) > 0).all()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_gradients(ndim):
    x = torch.randn(1, 8, *[2] * ndim, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    assert gradcheck(attention(ndim), (x,), fast_mode=True)
