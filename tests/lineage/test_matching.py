"""Which weights a network takes over: stages that are added, classes that differ, other shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from imagegen_dist.lineage.matching import match, take_
from imagegen_dist.models import dcgan, r3gan
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.nn.resample import downsample, upsample
from imagegen_dist.shape import SampleShape


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(network: nn.Module) -> nn.Module:
    """The network with all weights away from their initial values, zeros included."""
    random = seeded(7)
    for weight in network.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=random)
    return network.double()


@pytest.mark.parametrize("resample", ["box", "fir"])
def test_an_added_stage_begins_as_resampling(resample: str) -> None:
    """New blocks are identities: the grown generator enlarges the old one's samples, and the discriminator reduces."""
    small = R3GANConfig(widths=(8, 8), group_channels=8, z_dim=6, resample=resample)
    large = R3GANConfig(widths=(8, 8, 8), group_channels=8, z_dim=6, resample=resample)
    here, there = SampleShape(3, (16, 16)), SampleShape(3, (8, 8))
    z, x = torch.randn(5, 6).double(), torch.randn(5, 3, 16, 16).double()
    pairs = {}
    for part in (r3gan.Generator, r3gan.Discriminator):
        old = moved(part(there, 0, small, generator=seeded(1)))
        new = part(here, 0, large, generator=seeded(2)).double()
        found = match(new, old.state_dict(), same_classes=True)
        assert len(found.taken) == len(old.state_dict())
        take_(new, found.taken)
        pairs[part] = old, new
    old, new = pairs[r3gan.Generator]
    torch.testing.assert_close(new(z), upsample(old(z), resample), rtol=1e-12, atol=1e-12)
    old, new = pairs[r3gan.Discriminator]
    torch.testing.assert_close(new(x), old(downsample(x, resample)), rtol=1e-12, atol=1e-12)


def test_stages_of_other_widths_stay_as_initialised() -> None:
    old = moved(
        r3gan.Discriminator(
            SampleShape(3, (8, 8)), 0, R3GANConfig(widths=(8, 4), group_channels=8), generator=seeded(1)
        )
    )
    new = r3gan.Discriminator(
        SampleShape(3, (16, 16)), 0, R3GANConfig(widths=(8, 4, 4), group_channels=8), generator=seeded(2)
    ).double()
    found = match(new, old.state_dict(), same_classes=True)
    assert torch.equal(found.taken["transitions.1.weight"], old.get_parameter("transitions.0.weight"))
    assert torch.equal(found.taken["stages.2.1.mix.weight"], old.get_parameter("stages.1.1.mix.weight"))
    assert not any(name.startswith("stages.0.") for name in found.taken)
    assert {name.split(".")[0] for name in found.missing} == {"stages"}


def test_convolutions_of_a_dcgan_correspond_at_the_lowest_resolution() -> None:
    config = dcgan.DCGANConfig(widths=(16, 8))
    old = moved(dcgan.Discriminator(SampleShape(3, (16, 16)), 0, config, generator=seeded(1)))
    config = dcgan.DCGANConfig(widths=(16, 8, 4))
    new = dcgan.Discriminator(SampleShape(3, (32, 32)), 0, config, generator=seeded(2))
    found = match(new, old.state_dict(), same_classes=True)
    assert set(found.taken) == {"layers.4.weight", "layers.4.bias", "layers.2.bias", "output.weight", "output.bias"}
    assert torch.equal(found.taken["layers.4.weight"], old.get_parameter("layers.2.weight"))


@pytest.mark.parametrize("part", [r3gan.Generator, r3gan.Discriminator, dcgan.Discriminator])
def test_class_tables_are_new_where_classes_differ(part: type[nn.Module]) -> None:
    config = dcgan.DCGANConfig(widths=(8,)) if part.__module__ == dcgan.__name__ else R3GANConfig(widths=(8, 8))
    shape = SampleShape(1, (8, 8))
    old, new = (part(shape, classes, config, generator=seeded()) for classes in (5, 5))
    assert match(new, old.state_dict(), same_classes=True).tables == ()
    found = match(new, old.state_dict(), same_classes=False)
    assert found.tables == ("embed.weight",)
    assert set(found.taken) == set(new.state_dict()) - {"embed.weight"}
    assert found.missing == ()


@pytest.mark.parametrize("mapping_units", [0, 12])
def test_a_generator_gains_and_loses_classes_without_losing_what_it_makes_of_z(mapping_units: int) -> None:
    config = R3GANConfig(widths=(8, 8), group_channels=8, z_dim=6, embed_dim=4, mapping_units=mapping_units)
    shape, z, label = SampleShape(3, (8, 8)), torch.randn(5, 6).double(), torch.tensor([0, 1, 2, 1, 0])
    plain = moved(r3gan.Generator(shape, 0, config, generator=seeded(1)))
    told = r3gan.Generator(shape, 3, config, generator=seeded(2)).double()
    found = match(told, plain.state_dict(), same_classes=False)
    assert found.of_z == ("modulate.0.weight" if mapping_units else "modulate.weight",)
    assert found.missing == ()
    take_(told, found.taken)
    torch.testing.assert_close(told(z, label), plain(z), rtol=1e-12, atol=1e-12)

    told = moved(told)
    told.get_parameter("embed.weight").data.zero_()
    found = match(plain, told.state_dict(), same_classes=False)
    take_(plain, found.taken)
    torch.testing.assert_close(plain(z), told(z, label), rtol=1e-12, atol=1e-12)
