"""The convolutional networks of the β-VAE papers, layer by layer."""

import pytest
import torch

from imagegen_dist.models.conv_vae import ConvVAEConfig, Decoder, Encoder
from imagegen_dist.shape import SampleShape

SPRITE = SampleShape(1, (64, 64))
BURGESS = ConvVAEConfig(channels=(32, 32, 32, 32), kernels=(4,), hidden=(256, 256))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def build(config: ConvVAEConfig, shape: SampleShape = SPRITE) -> tuple[Encoder, Decoder]:
    return (
        Encoder(shape, 0, config, parameters=2, generator=seeded()),
        Decoder(shape, 0, config, outputs=1, generator=seeded()),
    )


def weights(network: torch.nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in network.parameters() if p.ndim > 1]


def test_default_has_the_layers_of_the_disentanglement_benchmarks():
    encoder, decoder = build(ConvVAEConfig())
    convolutions = [(32, 1, 4, 4), (32, 32, 4, 4), (64, 32, 2, 2), (64, 64, 2, 2)]
    transposed = [(64, 64, 4, 4), (64, 32, 4, 4), (32, 32, 4, 4), (32, 1, 4, 4)]
    assert weights(encoder) == [*convolutions, (256, 1024), (20, 256)]
    assert weights(decoder) == [(256, 10), (1024, 256), *transposed]


def test_the_network_of_burgess_is_an_instance():
    encoder, decoder = build(BURGESS)
    convolutions = [(32, 1, 4, 4), *[(32, 32, 4, 4)] * 3]
    transposed = [*[(32, 32, 4, 4)] * 3, (32, 1, 4, 4)]
    assert weights(encoder) == [*convolutions, (256, 512), (256, 256), (20, 256)]
    assert weights(decoder) == [(256, 10), (256, 256), (512, 256), *transposed]


def test_every_stage_halves_the_extent_and_ends_in_a_relu():
    encoder, _ = build(ConvVAEConfig())
    x, extents = torch.randn(2, 1, 64, 64, generator=seeded()), []
    for layer in encoder.stages:
        x = layer(x)
        extents.append(x.shape[2:])
    assert extents[1::2] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert x.min() == 0


def test_kernels_of_the_decoder_follow_the_order_of_the_stages():
    config = ConvVAEConfig(channels=(3, 5), kernels=(4, 2), decoder_kernels=(4, 2), hidden=())
    encoder, decoder = build(config, SampleShape(1, (8, 8)))
    assert weights(encoder) == [(3, 1, 4, 4), (5, 3, 2, 2), (20, 20)]
    assert weights(decoder) == [(20, 10), (5, 3, 2, 2), (3, 1, 4, 4)]


def test_a_shape_that_does_not_divide_is_refused_with_the_setting_to_change():
    with pytest.raises(ValueError, match=r"\(28, 28\) is not divisible by 16 .* fewer than 4 --model.channels"):
        build(ConvVAEConfig(), SampleShape(1, (28, 28)))


@pytest.mark.parametrize(
    "fields",
    [
        {"channels": ()},
        {"channels": (8, 0, 8, 8)},
        {"kernels": (4, 4, 2)},
        {"kernels": (3,)},
        {"decoder_kernels": (0,)},
        {"decoder_kernels": ()},
        {"hidden": (8, 0)},
        {"latent": 0},
        {"embed_dim": 0},
    ],
)
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=f"--model.{next(iter(fields)).replace('_', '-')}"):
        ConvVAEConfig(**fields)
