"""Groups of the normalisation, and the residual block around it."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from imagegen_dist.nn.norm import group_norm
from imagegen_dist.nn.norm_blocks import NormResidualBlock


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("channels", "groups"), [(512, 32), (128, 32), (96, 24), (64, 16), (100, 25), (8, 2), (37, 1), (3, 1), (1, 1)]
)
def test_groups_are_32_or_leave_four_channels_in_each(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_one_position_is_not_normalised_away():
    x = torch.randn(2, 8, 1, 1, generator=seeded())
    assert group_norm(8)(x).std() > 0.5


@pytest.mark.parametrize("out_channels", [8, 12])
def test_block_is_its_formula(out_channels):
    block = NormResidualBlock(2, 8, out_channels, generator=seeded()).double()
    x = torch.randn(2, 8, 5, 4, generator=seeded(1), dtype=torch.float64)
    inner = F.conv2d(F.silu(F.group_norm(x, 2, eps=1e-6)), block.conv1.weight, padding=1)
    inner = F.conv2d(F.silu(F.group_norm(inner, out_channels // 4, eps=1e-6)), block.conv2.weight, padding=1)
    around = x if out_channels == 8 else F.conv2d(x, block.shortcut.weight)
    torch.testing.assert_close(block(x), around + inner)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_gradients_of_block(ndim):
    block = NormResidualBlock(ndim, 4, 2, generator=seeded()).double()
    x = torch.randn(1, 4, *[2] * ndim, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    assert gradcheck(block, (x,))
