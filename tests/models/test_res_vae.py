"""The autoencoder of latent diffusion: its size, its layers, what its middle does."""

import pytest
import torch
import torch.nn.functional as F

from imagegen_dist.models.res_vae import Decoder, Encoder, ResVAEConfig, _Downsample
from imagegen_dist.nn.attention import SelfAttention
from imagegen_dist.shape import SampleShape

SMALL = ResVAEConfig(channels=8, multipliers=(1, 2), blocks=1, latent_channels=3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(config: ResVAEConfig, shape: SampleShape, classes: int = 0) -> tuple[Encoder, Decoder]:
    return (
        Encoder(shape, classes, config, parameters=2, generator=seeded()),
        Decoder(shape, classes, config, outputs=1, generator=seeded()),
    )


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_default_has_exactly_the_parameters_of_the_published_kl_f8():
    encoder, decoder = build(ResVAEConfig(), SampleShape(3, (256, 256)))
    assert encoder.latent_dims == decoder.latent_dims == (4, 32, 32)
    assert count(encoder) - count(encoder.quant) == 34_163_592
    assert count(decoder) - count(decoder.quant) == 49_490_179
    assert count(encoder) + count(decoder) == 83_653_863


@pytest.mark.parametrize(("multipliers", "extent"), [((1, 2, 2), 16), ((1, 1, 2, 2), 8), ((1, 1, 1, 1, 2, 2), 2)])
def test_each_multiplier_after_the_first_halves_every_axis(multipliers, extent):
    encoder, decoder = build(ResVAEConfig(4, multipliers, 1, 2), SampleShape(1, (64, 32)))
    raw = encoder(torch.zeros(1, 1, 64, 32))
    assert raw.shape == (1, 4, extent, extent // 2)
    assert encoder.latent_dims == (2, extent, extent // 2)
    assert decoder(raw[:, :2]).shape == (1, 1, 64, 32)


def test_one_multiplier_keeps_the_extent():
    encoder, decoder = build(ResVAEConfig(4, (1,), 1, 2), SampleShape(1, (5, 7)))
    assert encoder.latent_dims == (2, 5, 7)
    assert decoder(torch.zeros(1, 2, 5, 7)).shape == (1, 1, 5, 7)


def test_downsampling_reads_zeros_beyond_the_far_edges_alone():
    layer = _Downsample(2, 4, (2, 2), generator=seeded())
    x = torch.randn(2, 4, 6, 8, generator=seeded(1))
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), layer.conv.weight, stride=2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("attention", [True, False])
def test_attention_is_in_the_middle_where_it_is_asked_for(attention):
    config = ResVAEConfig(4, (1, 1), 1, 2, attention=attention)
    for network in build(config, SampleShape(1, (8, 8))):
        found = [isinstance(module, SelfAttention) for module in network.modules()]
        assert sum(found) == attention


def test_attention_makes_every_latent_depend_on_every_pixel():
    encoder, _ = build(ResVAEConfig(8, (1, 1), 1, 2), SampleShape(1, (32, 32)))
    x = torch.randn(1, 1, 32, 32, generator=seeded(1), requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder.middle(encoder.stages(x))[0, :, 0, 0].sum(), x)
    assert (gradient != 0).all()


def test_the_class_is_added_to_the_features_before_the_middle():
    encoder, _ = build(SMALL, SampleShape(1, (8, 8)), classes=3)
    x, label = torch.randn(2, 1, 8, 8, generator=seeded(1)), torch.tensor([2, 0])
    features = encoder.stages(x) + encoder.embed.weight[label][:, :, None, None]
    raw = encoder.quant(encoder.output(F.silu(encoder.norm(encoder.middle(features)))))
    torch.testing.assert_close(encoder(x, label), raw)


def test_a_shape_that_does_not_divide_is_refused_with_the_setting_to_change():
    with pytest.raises(ValueError, match=r"\(28, 28\) is not divisible by 8 .* fewer than 4 --model.multipliers"):
        build(ResVAEConfig(), SampleShape(1, (28, 28)))


@pytest.mark.parametrize(
    "fields", [{"multipliers": ()}, {"multipliers": (1, 0)}, {"channels": 0}, {"blocks": 0}, {"latent_channels": 0}]
)
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=f"--model.{next(iter(fields)).replace('_', '-')}"):
        ResVAEConfig(**fields)
