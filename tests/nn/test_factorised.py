"""Convolutions over three axes as one in space and one in time."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from imagegen_dist.models.r3gan import Discriminator, Generator, R3GANConfig
from imagegen_dist.nn.blocks import ResidualBlock
from imagegen_dist.nn.layers import Layers
from imagegen_dist.shape import SampleShape


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_space_then_an_activation_then_time():
    conv = Layers(factorised=True).conv(3, 2, 4, generator=seeded()).double()
    x = torch.randn(2, 2, 3, 5, 4, generator=seeded(1), dtype=torch.float64)
    frames = F.conv2d(x.transpose(1, 2).flatten(0, 1), conv.space.weight.squeeze(2), padding=1)
    frames = F.silu(frames).unflatten(0, (2, 3)).permute(0, 3, 4, 2, 1)  # [B, H, W, C, T]
    lines = F.conv1d(frames.flatten(0, 2), conv.time.weight[..., 0, 0], padding=1)
    torch.testing.assert_close(conv(x), lines.unflatten(0, (2, 5, 4)).permute(0, 3, 4, 1, 2))
    assert conv.space.weight.numel() + conv.time.weight.numel() == 9 * 2 * 4 + 3 * 4 * 4


def test_a_gan_of_factorised_blocks_has_gradients_of_both_orders():
    block = ResidualBlock(3, 4, 1, 2, 1, factorised=True, generator=seeded()).double()
    torch.nn.init.normal_(block.project.weight, generator=seeded(2))
    x = torch.randn(1, 4, 2, 2, 2, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    assert gradcheck(block, (x,), fast_mode=True)
    assert gradgradcheck(lambda x: block(x).pow(3), (x,), fast_mode=True)


def test_a_gan_keeps_the_scale_of_its_blocks_and_needs_three_axes():
    config = R3GANConfig(widths=(16, 8), group_channels=4, z_dim=8, convolutions="factorised")
    generator = Generator(SampleShape(3, (4, 8, 8)), 0, config, generator=seeded())
    discriminator = Discriminator(SampleShape(3, (4, 8, 8)), 0, config, generator=seeded())
    logits = discriminator(generator(torch.randn(8, 8, generator=seeded(1))))
    assert logits.shape == (8,)
    assert 0.01 < logits.std() < 10
    with pytest.raises(ValueError, match=r"--model\.convolutions factorised is for videos and volumes"):
        Generator(SampleShape(3, (8, 8)), 0, config, generator=seeded())
