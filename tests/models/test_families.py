"""What every family of generator and discriminator promises, in every number of spatial dimensions."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from imagegen_dist.models import dcgan, mlp, r3gan
from imagegen_dist.shape import SampleShape

SHAPES = {
    "sequence": SampleShape(2, (16,)),
    "digit": SampleShape(1, (28, 28)),
    "image": SampleShape(3, (16, 32)),
    "video": SampleShape(3, (4, 8, 12)),
    "voxels": SampleShape(1, (8, 8, 8)),
}
SMALL = SampleShape(1, (8, 8))
FAMILIES = {
    "r3gan": (r3gan, r3gan.R3GANConfig(widths=(16, 8, 8), group_channels=8, z_dim=8, embed_dim=4)),
    "r3gan-patch": (
        r3gan,
        r3gan.R3GANConfig(widths=(8,), group_channels=0, patch=4, patch_kernel=8, z_dim=8, embed_dim=4),
    ),
    "r3gan-pixels": (
        r3gan,
        r3gan.R3GANConfig(
            widths=(8,),
            group_channels=0,
            patch=4,
            patch_kernel=6,
            pixel_channels=3,
            mapping_units=8,
            head_units=8,
            z_dim=8,
            embed_dim=4,
        ),
    ),
    "dcgan": (dcgan, dcgan.DCGANConfig(widths=(16, 8, 4), z_dim=8, embed_dim=4)),
    "mlp": (mlp, mlp.MLPConfig(hidden=(16, 16, 16), z_dim=8, embed_dim=4)),
}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_shape = pytest.mark.parametrize("shape", SHAPES)
with_and_without_classes = pytest.mark.parametrize("classes", [0, 5])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(family: str, shape: SampleShape, classes: int, seed: int = 0):
    module, config = FAMILIES[family]
    generator = seeded(seed)
    return (
        module.Generator(shape, classes, config, generator=generator),
        module.Discriminator(shape, classes, config, generator=generator),
    )


def fill_zero_weights_(network: torch.nn.Module) -> None:
    """Moves weights that start at zero away from it, so that what stands behind them is tested too."""
    generator = seeded(1)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


@every_family
@every_shape
@with_and_without_classes
def test_shapes_and_types(family, shape, classes):
    shape = SHAPES[shape]
    generator, discriminator = build(family, shape, classes)
    label = torch.tensor([0, 4, 2]) if classes else None
    x = generator(torch.randn(3, generator.z_dim, generator=seeded()), label)
    logits = discriminator(x, label)
    assert x.shape == (3, *shape.dims)
    assert logits.shape == (3,)
    assert x.dtype == logits.dtype == torch.float32
    assert generator.shape == discriminator.shape == shape
    assert generator.classes == discriminator.classes == classes


@every_family
def test_one_generator_state_gives_one_network(family):
    for a, b in zip(build(family, SMALL, 3, seed=5), build(family, SMALL, 3, seed=5), strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@every_family
def test_construction_and_forward_leave_the_global_generator_alone(family):
    before = torch.get_rng_state()
    generator, discriminator = build(family, SMALL, 3)
    discriminator(generator(torch.zeros(2, 8), torch.tensor([0, 1])), torch.tensor([0, 1]))
    assert torch.equal(torch.get_rng_state(), before)


@every_family
def test_samples_do_not_depend_on_the_rest_of_the_batch(family):
    generator, discriminator = (network.double() for network in build(family, SMALL, 3))
    z, label = torch.randn(4, 8, generator=seeded(), dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    x = generator(z, label)
    torch.testing.assert_close(generator(z[1:2], label[1:2]), x[1:2])
    torch.testing.assert_close(discriminator(x[1:2], label[1:2]), discriminator(x, label)[1:2])


@every_family
def test_class_changes_samples_and_logits(family):
    generator, discriminator = build(family, SMALL, 3)
    z = torch.randn(1, 8, generator=seeded()).expand(2, -1)
    x = generator(z, torch.tensor([0, 1]))
    logits = discriminator(x[:1].expand(2, -1, -1, -1), torch.tensor([0, 1]))
    assert not torch.allclose(x[0], x[1])
    assert not torch.isclose(logits[0], logits[1], rtol=1e-6, atol=0)


@every_family
def test_conditional_networks_refuse_calls_without_labels(family):
    generator, discriminator = build(family, SMALL, 3)
    with pytest.raises(ValueError, match="needs a label"):
        generator(torch.zeros(1, 8), None)
    with pytest.raises(ValueError, match="needs a label"):
        discriminator(torch.zeros(1, 1, 8, 8), None)


@every_family
def test_unconditional_networks_ignore_labels(family):
    generator, discriminator = build(family, SMALL, 0)
    z = torch.randn(2, 8, generator=seeded())
    x = generator(z, None)
    assert torch.equal(generator(z, torch.tensor([0, 1])), x)
    assert torch.equal(discriminator(x, torch.tensor([0, 1])), discriminator(x, None))


@every_family
def test_every_parameter_gets_a_gradient(family):
    for network in build(family, SMALL, 3):
        fill_zero_weights_(network)
        inputs = torch.randn(3, 8, generator=seeded()) if hasattr(network, "z_dim") else None
        x = torch.randn(3, 1, 8, 8, generator=seeded()) if inputs is None else inputs
        network(x, torch.tensor([0, 1, 2])).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@every_family
@pytest.mark.parametrize("spatial", [(4,), (4, 4), (4, 4, 4)])
def test_discriminator_gradients_of_first_and_second_order(family, spatial):
    module, config = FAMILIES[family]
    if family == "r3gan":
        config = r3gan.R3GANConfig(widths=(4, 2), blocks_per_stage=1, group_channels=2)
    discriminator = module.Discriminator(SampleShape(1, spatial), 2, config, generator=seeded()).double()
    fill_zero_weights_(discriminator)
    x = torch.randn(2, 1, *spatial, generator=seeded(2), dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0, 1])
    assert gradcheck(discriminator, (x, label), fast_mode=True)
    assert gradgradcheck(lambda x: discriminator(x, label).pow(2), (x,), fast_mode=True)
