"""The residual block and its activation."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from imagegen_dist.nn.blocks import LEAKY_GAIN, BiasedLeakyReLU, ResidualBlock


def block(ndim: int = 2, channels: int = 4, group_channels: int = 4, blocks: int = 1) -> ResidualBlock:
    generator = torch.Generator().manual_seed(0)
    return ResidualBlock(ndim, channels, 2, group_channels, blocks, generator=generator)


def test_activation_adds_its_bias_to_each_channel():
    act = BiasedLeakyReLU(2)
    act.bias.data = torch.tensor([1.0, -1.0])
    assert torch.allclose(act(torch.zeros(1, 2, 3, 3))[0, :, 0, 0], torch.tensor([1.0, -0.2]))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_block_starts_as_the_identity(ndim):
    x = torch.randn(2, 4, *[5] * ndim, generator=torch.Generator().manual_seed(1))
    assert torch.equal(block(ndim)(x), x)


def test_parameter_count_is_that_of_the_paper():
    channels, inner = 32, 64
    expected = 2 * channels * inner + inner * 16 * 9 + 2 * inner
    assert sum(p.numel() for p in block(2, channels, 16).parameters()) == expected


def test_gains_fall_with_the_number_of_blocks():
    module = block(2, 64, 0, blocks=16)
    assert module.expand.weight.std().item() == pytest.approx(LEAKY_GAIN / 2 / 64**0.5, rel=0.03)
    assert module.mix.weight.std().item() == pytest.approx(LEAKY_GAIN / 2 / (128 * 9) ** 0.5, rel=0.03)


def test_group_channels_zero_is_one_dense_group():
    assert block(2, 4, 0).mix.groups == 1
    assert block(2, 4, 4).mix.groups == 2


def test_bfloat16_stays_bfloat16():
    assert block()(torch.zeros(1, 4, 3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_gradients_of_first_and_second_order(ndim):
    generator = torch.Generator().manual_seed(1)
    module = block(ndim, 2, 2).double()
    torch.nn.init.normal_(module.project.weight, generator=generator)
    x = torch.randn(1, 2, *[2] * ndim, generator=generator, dtype=torch.float64, requires_grad=True)
    assert gradcheck(module, (x,))
    assert gradgradcheck(lambda x: module(x).pow(2), (x,))
