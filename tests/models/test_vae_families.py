"""What every family of encoder and decoder promises, in every number of spatial dimensions."""

import pytest
import torch

from imagegen_dist.models import conv_vae, mlp_vae, res_vae
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
    "mlp": (mlp_vae, mlp_vae.MLPVAEConfig(hidden=(32, 16), latent=6, embed_dim=4)),
    "mlp-tanh": (mlp_vae, mlp_vae.MLPVAEConfig(hidden=(32,), latent=6, activation="tanh", embed_dim=4)),
    "conv": (conv_vae, conv_vae.ConvVAEConfig((8, 16), (4, 2), hidden=(32,), latent=6, embed_dim=4)),
    "res": (res_vae, res_vae.ResVAEConfig(channels=8, multipliers=(1, 1, 2), blocks=1, latent_channels=3)),
}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_shape = pytest.mark.parametrize("shape", SHAPES)
with_and_without_classes = pytest.mark.parametrize("classes", [0, 5])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(family: str, shape: SampleShape = SMALL, classes: int = 3, seed: int = 0, outputs: int = 2):
    module, config = FAMILIES[family]
    generator = seeded(seed)
    return (
        module.Encoder(shape, classes, config, parameters=2, generator=generator),
        module.Decoder(shape, classes, config, outputs=outputs, generator=generator),
    )


def noise(*size: int) -> torch.Tensor:
    return torch.randn(size, generator=seeded(1))


def with_inputs(networks):
    """Each network with the size of one of its inputs."""
    encoder, decoder = networks
    return [(encoder, encoder.shape.dims), (decoder, decoder.latent_dims)]


@every_family
@every_shape
@with_and_without_classes
def test_shapes_and_types(family, shape, classes):
    shape = SHAPES[shape]
    encoder, decoder = build(family, shape, classes)
    label = torch.tensor([0, 4, 2]) if classes else None
    raw = encoder(noise(3, *shape.dims), label)
    latents, *positions = encoder.latent_dims
    assert decoder.latent_dims == encoder.latent_dims
    assert raw.shape == (3, 2 * latents, *positions)
    x = decoder(raw[:, :latents], label)
    assert x.shape == (3, 2 * shape.channels, *shape.spatial)
    assert x.dtype == raw.dtype == torch.float32
    assert encoder.shape == decoder.shape == shape
    assert encoder.classes == decoder.classes == classes


@every_family
@every_shape
def test_first_outputs_are_of_the_order_of_one(family, shape):
    shape = SHAPES[shape]
    encoder, decoder = build(family, shape, 0)
    raw = encoder(noise(16, *shape.dims).clamp(-1, 1))
    x = decoder(noise(16, *decoder.latent_dims))
    for values in (raw, x):
        assert values.isfinite().all()
        assert 0.1 < values.std() < 3


@every_family
def test_one_generator_state_gives_one_network_and_another_gives_another(family):
    for first, again, other in zip(*(build(family, seed=seed) for seed in (5, 5, 6)), strict=True):
        assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
        drawn = [(p, q) for p, q in zip(first.parameters(), other.parameters(), strict=True) if p.ndim > 1]
        assert not any(torch.equal(p, q) for p, q in drawn)


@every_family
def test_construction_and_forward_leave_the_global_generator_alone(family):
    before = torch.get_rng_state()
    encoder, decoder = build(family)
    label = torch.tensor([0, 1])
    encoder(noise(2, 1, 8, 8), label)
    decoder(noise(2, *decoder.latent_dims), label)
    assert torch.equal(torch.get_rng_state(), before)


@every_family
def test_outputs_do_not_depend_on_the_rest_of_the_batch(family):
    encoder, decoder = (network.double() for network in build(family))
    label = torch.tensor([0, 1, 2, 0])
    x, z = noise(4, 1, 8, 8).double(), noise(4, *decoder.latent_dims).double()
    torch.testing.assert_close(encoder(x[1:2], label[1:2]), encoder(x, label)[1:2])
    torch.testing.assert_close(decoder(z[1:2], label[1:2]), decoder(z, label)[1:2])
    assert not list(encoder.buffers()) + list(decoder.buffers())


@every_family
def test_class_changes_posterior_and_sample(family):
    for network, size in with_inputs(build(family)):
        a, b = network(noise(1, *size).expand(2, *size), torch.tensor([0, 1]))
        assert (a - b).abs().max() > 0.01


@every_family
@every_shape
def test_the_last_layer_is_a_linear_map_to_the_outputs(family, shape):
    """Doubled, it doubles the output of a decoder whose last bias is 0."""
    _, decoder = build(family, SHAPES[shape], 0)
    z = noise(2, *decoder.latent_dims)
    before = decoder(z)
    decoder.last_layer.data *= 2
    torch.testing.assert_close(decoder(z), 2 * before)


@every_family
def test_conditional_networks_refuse_calls_without_labels(family):
    for network, size in with_inputs(build(family)):
        with pytest.raises(ValueError, match="needs a label"):
            network(noise(1, *size), None)


@every_family
def test_unconditional_networks_ignore_labels(family):
    for network, size in with_inputs(build(family, classes=0)):
        inputs = noise(2, *size)
        assert torch.equal(network(inputs, torch.tensor([0, 1])), network(inputs))


@every_family
def test_every_parameter_gets_a_gradient(family):
    label = torch.tensor([0, 1, 2])
    for network, size in with_inputs(build(family)):
        network(noise(3, *size), label).pow(3).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@every_family
@pytest.mark.parametrize("spatial", [(8,), (8, 4), (4, 4, 4)])
def test_an_autoencoder_learns_to_tell_two_samples_apart(family, spatial):
    shape = SampleShape(1, spatial)
    encoder, decoder = build(family, shape, 0, outputs=1)
    x = torch.where(noise(2, *shape.dims) > 0, 0.9, -0.9)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
    for _ in range(100):
        mean = encoder(x)[:, : encoder.latent_dims[0]]
        loss = (decoder(mean) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # A decoder that ignored its latents could reach no less than the variance between the two.
    assert loss < 0.25 * x.var(0, correction=0).mean()
