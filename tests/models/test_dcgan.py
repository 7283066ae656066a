"""DCGAN: stages, initialisation, range."""

import pytest
import torch

from imagegen_dist.models.dcgan import DCGANConfig, Discriminator, Generator
from imagegen_dist.shape import SampleShape


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("spatial", "widths", "base"),
    [
        ((64, 64), (512, 256, 128, 64), (4, 4)),
        ((28, 28), (128, 64), (7, 7)),
        ((4, 16, 16), (128, 64), (1, 4, 4)),
        ((128, 128), (512, 256, 128, 64), (8, 8)),
    ],
)
def test_a_sample_is_halved_while_it_divides(spatial, widths, base):
    assert DCGANConfig().stages(SampleShape(1, spatial)) == (widths, base)


def test_odd_samples_are_refused():
    with pytest.raises(ValueError, match="even"):
        DCGANConfig().stages(SampleShape(1, (28, 27)))


def test_a_placement_of_frames_is_refused():
    with pytest.raises(ValueError, match=r"placement 'frames' is not known; set --model\.placement to none or whole"):
        DCGANConfig(placement="frames")


def test_all_weights_start_with_deviation_002_and_biases_at_zero():
    config = DCGANConfig(widths=(64, 32))
    for family in (Generator, Discriminator):
        network = family(SampleShape(3, (16, 16)), 50, config, generator=seeded())
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
            elif name.endswith("bias"):
                assert parameter.abs().sum() == 0


def test_samples_lie_within_the_range_of_the_data():
    generator = Generator(SampleShape(3, (16, 16)), 0, DCGANConfig(widths=(64, 32)), generator=seeded())
    generator.layers[-1].weight.data *= 100
    x = generator(torch.randn(8, 100, generator=seeded()))
    assert x.abs().max() <= 1
    assert x.std() > 0.3


def test_there_are_no_batch_statistics():
    generator = Generator(SampleShape(3, (16, 16)), 0, DCGANConfig(widths=(8, 8)), generator=seeded())
    assert not list(generator.buffers())
