"""The perceptrons of the VAE papers."""

import pytest
import torch

from imagegen_dist.models.mlp_vae import Decoder, Encoder, MLPVAEConfig
from imagegen_dist.shape import SampleShape

DIGIT = SampleShape(1, (28, 28))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(config: MLPVAEConfig, classes: int = 0) -> tuple[Encoder, Decoder]:
    return (
        Encoder(DIGIT, classes, config, parameters=2, generator=seeded()),
        Decoder(DIGIT, classes, config, outputs=1, generator=seeded()),
    )


def widths(network: torch.nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape)[::-1] for p in network.parameters() if p.ndim == 2]


def test_default_is_784_400_40_400_784():
    encoder, decoder = build(MLPVAEConfig())
    assert widths(encoder) == [(784, 400), (400, 80)]
    assert widths(decoder) == [(40, 400), (400, 784)]
    assert sum(p.numel() for network in (encoder, decoder) for p in network.parameters()) == 676_864


def test_the_importance_weighted_autoencoder_is_an_instance():
    encoder, decoder = build(MLPVAEConfig(hidden=(200, 200), latent=50, activation="tanh"))
    assert widths(encoder) == [(784, 200), (200, 200), (200, 100)]
    assert widths(decoder) == [(50, 200), (200, 200), (200, 784)]


def test_decoder_has_the_hidden_layers_in_reverse():
    encoder, decoder = build(MLPVAEConfig(hidden=(30, 20), latent=5))
    assert widths(encoder) == [(784, 30), (30, 20), (20, 10)]
    assert widths(decoder) == [(5, 20), (20, 30), (30, 784)]


@pytest.mark.parametrize(("activation", "lowest", "highest"), [("tanh", -1, 1), ("relu", 0, float("inf"))])
def test_activation_bounds_the_hidden_layers(activation, lowest, highest):
    encoder, _ = build(MLPVAEConfig(hidden=(16, 16), activation=activation))
    features = encoder.hidden(100 * torch.randn(64, 784, generator=seeded(1)))
    assert features.min().item() == pytest.approx(lowest, abs=0.01)
    assert 0.99 < features.max() <= highest


def test_a_black_pixel_moves_no_weight():
    encoder, _ = build(MLPVAEConfig(hidden=(30,), latent=5))
    x = torch.rand(4, 1, 28, 28, generator=seeded(1)) * 2 - 1
    x[..., :14] = -1
    encoder(x).sum().backward()
    moved = encoder.hidden[0].weight.grad.unflatten(1, (28, 28)) != 0
    assert not moved[..., :14].any()
    assert moved[..., 14:].any()


def test_neither_latents_nor_samples_are_squashed():
    encoder, decoder = build(MLPVAEConfig())
    assert encoder(50 * torch.randn(4, 1, 28, 28, generator=seeded(1))).abs().max() > 10
    assert decoder(50 * torch.randn(4, 40, generator=seeded(1))).abs().max() > 10


@pytest.mark.parametrize(
    "fields",
    [{"hidden": ()}, {"hidden": (8, 0)}, {"latent": 0}, {"embed_dim": -1}, {"activation": "gelu"}, {"init": "x"}],
)
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(ValueError, match=f"--model.{next(iter(fields)).replace('_', '-')}"):
        MLPVAEConfig(**fields)


def test_initial_weights_are_those_that_keep_values_or_those_of_pytorch() -> None:
    for init, hidden, output in (("he", 2 / 784, 1 / 400), ("pytorch", 1 / 3 / 784, 1 / 3 / 400)):
        config = MLPVAEConfig(init=init)
        encoder, _ = build(config)
        assert encoder.hidden[0].weight.var().item() == pytest.approx(hidden, rel=0.02)
        assert encoder.output.weight.var().item() == pytest.approx(output, rel=0.05)
    assert torch.nn.Linear(784, 400).weight.var().item() == pytest.approx(1 / 3 / 784, rel=0.02)
