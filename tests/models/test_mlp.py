"""The article's networks and their wider relatives."""

import pytest
import torch

from imagegen_dist.models.mlp import Discriminator, Generator, MLPConfig
from imagegen_dist.shape import SampleShape

DIGIT = SampleShape(1, (28, 28))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_default_is_the_articles_network():
    generator = Generator(DIGIT, 0, MLPConfig(), generator=seeded())
    discriminator = Discriminator(DIGIT, 0, MLPConfig(), generator=seeded())
    sizes = [[tuple(p.shape) for p in network.parameters() if p.ndim == 2] for network in (generator, discriminator)]
    assert sizes == [[(128, 100), (128, 128), (784, 128)], [(128, 784), (128, 128), (1, 128)]]


def test_samples_lie_within_the_range_of_the_data():
    generator = Generator(DIGIT, 0, MLPConfig(), generator=seeded())
    x = generator(100 * torch.randn(16, 100, generator=seeded()))
    assert x.abs().max() <= 1
    assert x.std() > 0.5


def test_projection_adds_the_product_with_the_class_embedding():
    discriminator = Discriminator(DIGIT, 2, MLPConfig(), generator=seeded())
    x, label = torch.randn(2, 1, 28, 28, generator=seeded()), torch.tensor([0, 1])
    features = discriminator.hidden(x.flatten(1))
    expected = discriminator.output(features)[:, 0] + torch.einsum("bf,bf->b", features, discriminator.embed.weight)
    torch.testing.assert_close(discriminator(x, label), expected)


@pytest.mark.parametrize("fields", [{"hidden": ()}, {"hidden": (8, 0)}, {"z_dim": 0}, {"embed_dim": -1}])
def test_sizes_that_are_not_positive_are_refused(fields):
    with pytest.raises(ValueError, match=f"--model.{next(iter(fields)).replace('_', '-')}"):
        MLPConfig(**fields)
