"""The classifier whose features serve where no Inception weights exist."""

import pytest
import torch
import torch.nn.functional as F

from imagegen_dist.models.classifier import (
    ChannelClassifier,
    Classifier,
    ClassifierConfig,
    PooledClassifier,
    build_classifier,
)
from imagegen_dist.shape import SampleShape


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("channels", "spatial"),
    [(1, (28, 28)), (3, (32, 48)), (3, (64, 64)), (3, (4, 16, 16)), (1, (9, 8, 7)), (2, (50,)), (1, (1, 1))],
)
def test_features_and_logits_of_any_shape(channels, spatial):
    network = Classifier(SampleShape(channels, spatial), 7, ClassifierConfig(widths=(4, 8)), generator=seeded())
    x = torch.randn(3, channels, *spatial, generator=seeded())
    assert network.features(x).shape == (3, 96)
    assert network(x).shape == (3, 7)
    torch.testing.assert_close(network.output(network.features(x)), network(x))


def test_large_samples_are_halved_until_the_hidden_layer_is_small():
    network = Classifier(SampleShape(3, (128, 128)), 10, ClassifierConfig(widths=(4, 8)), generator=seeded())
    assert network.hidden.weight.shape == (96, 8 * 8 * 8)


@pytest.mark.parametrize("spatial", [(8, 32, 32), (1, 5, 3), (20, 64, 64)])
def test_samples_of_three_axes_are_pooled_over_all_positions(spatial):
    network = build_classifier(SampleShape(2, spatial), 7, generator=seeded())
    assert isinstance(network, PooledClassifier)
    x = torch.randn(2, 2, *spatial, generator=seeded())
    assert network.features(x).shape == (2, 96)
    torch.testing.assert_close(network.output(network.features(x)), network(x))
    assert isinstance(build_classifier(SampleShape(2, (32, 32)), 7, generator=seeded()), Classifier)


def test_features_do_not_depend_on_the_rest_of_the_batch():
    network = Classifier(SampleShape(1, (28, 28)), 10, ClassifierConfig(), generator=seeded()).double()
    x = torch.randn(4, 1, 28, 28, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(network.features(x[:1]), network.features(x)[:1])


def test_it_learns_to_tell_bars_apart():
    x = torch.full((8, 1, 8, 8), -1.0)
    for index in range(4):
        x[index, :, 2 * index] = 1
        x[4 + index, :, :, 2 * index] = 1
    label = torch.tensor([0] * 4 + [1] * 4)
    network = Classifier(SampleShape(1, (8, 8)), 2, ClassifierConfig(widths=(8,)), generator=seeded())
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(network(x), label).backward()
        optimizer.step()
    assert torch.equal(network(x).argmax(1), label)


@pytest.mark.parametrize("fields", [{"widths": ()}, {"widths": (0,)}, {"kernel": 4}, {"kernel": 1}, {"features": 0}])
def test_sizes_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        ClassifierConfig(**fields)


def test_a_classifier_of_channels_is_as_sure_of_a_whole_sample_as_of_its_channels_together():
    single = Classifier(SampleShape(1, (16, 16)), 3, ClassifierConfig(widths=(4, 8)), generator=seeded()).double()
    shown = torch.cartesian_prod(torch.arange(3), torch.arange(3))[torch.randperm(9, generator=seeded())]
    network = ChannelClassifier(single, shown)
    x = torch.randn(5, 2, 16, 16, generator=seeded(), dtype=torch.float64)
    channels = [single(x[:, at : at + 1]).softmax(1) for at in range(2)]
    expected = torch.stack([channels[0][:, a] * channels[1][:, b] for a, b in shown.tolist()], 1)
    torch.testing.assert_close(network(x).exp(), expected)
    torch.testing.assert_close(network(x).exp().sum(1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(network.features(x)[:, 96:], single.features(x[:, 1:]))
    assert network.features(x).shape == (5, 192)
