"""Fully connected hidden layers."""

import pytest
import torch

from imagegen_dist.nn.mlp import mlp


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_a_product_a_bias_and_the_activation_after_each_layer():
    layers = mlp((3, 5, 2), torch.nn.Tanh, generator=seeded()).double()
    (a, b), (c, d) = ((layers[i].weight, layers[i].bias.data.fill_(0.3)) for i in (0, 2))
    x = torch.randn(4, 3, generator=seeded(1), dtype=torch.float64)
    torch.testing.assert_close(layers(x), torch.tanh(torch.tanh(x @ a.T + b) @ c.T + d))


def test_the_second_moment_survives_layers_of_relu():
    x = torch.randn(64, 1024, generator=seeded(1))
    y = mlp((1024,) * 4, generator=seeded())(x)
    # One network's second moment strays by about a tenth at this width; a gain of 1 would leave an eighth of it.
    assert y.square().mean().item() == pytest.approx(x.square().mean().item(), rel=0.3)


def test_one_width_is_the_identity():
    x = torch.randn(2, 3, generator=seeded())
    assert torch.equal(mlp((3,), generator=seeded())(x), x)
