"""Activations that are computed again: the same gradients of every order, in less memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from imagegen_dist import config
from imagegen_dist.experiment import Experiment
from imagegen_dist.models.r3gan import Discriminator, R3GANConfig
from imagegen_dist.nn.recompute import recompute_
from imagegen_dist.prediction.counting import count_step
from imagegen_dist.prediction.predict import Samples
from imagegen_dist.presets import find_preset
from imagegen_dist.shape import SampleShape
from tests.runs import one_step, tiny

_GAN = {"kind": "r3gan", "widths": [16, 8], "group_channels": 8, "resample": "fir", "z_dim": 8}
_RES = {"kind": "resvae", "channels": 8, "multipliers": [1, 2], "blocks": 1, "latent_channels": 2, "attention": False}
CLIP = (1, 4, 8, 8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def autoencoder(**changes: Any) -> Experiment:
    preset = find_preset("digits-vae").experiment
    return config.overrides(preset, {"model": _RES, "data.conditional": False, **changes}.items())


def weights_after_a_step(experiment: Experiment) -> list[torch.Tensor]:
    trainer = one_step(experiment, "video", CLIP, None)
    assert trainer.skipped_steps == 0
    return [tensor for phase in trainer.objective.phases() for tensor in phase.trains.parameters()]


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_a_step_is_the_same_bit_for_bit(kind: str) -> None:
    given = tiny(model=_GAN, data__conditional=False) if kind == "gan" else autoencoder()
    kept = weights_after_a_step(given)
    again = weights_after_a_step(config.override(given, "training.recompute_from", 1))
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def test_blocks_recompute_from_a_size_on_and_under_a_penalty() -> None:
    """The penalty on gradients differentiates what is computed again twice."""
    network = Discriminator(
        SampleShape(2, (4, 8, 8)), 0, R3GANConfig(widths=(16, 8), group_channels=4), generator=seeded()
    ).double()
    passes = {16: 0, 8: 0}
    for stage, width in zip(network.stages, (8, 16), strict=True):
        torch.nn.init.normal_(stage[0].project.weight, generator=seeded(3))

        def count(module: torch.nn.Module, given: Any, output: Any, width: int = width) -> None:
            passes[width] += 1

        stage[0].mix.register_forward_hook(count)
    x = torch.randn(2, 2, 4, 8, 8, generator=seeded(1), dtype=torch.float64)

    def gradients(least: int) -> list[torch.Tensor]:
        recompute_(network, least)
        network.zero_grad()
        given = x.clone().requires_grad_()
        logits = network(given)
        (slope,) = torch.autograd.grad(logits.sum(), given, create_graph=True)
        (logits.exp().mean() + slope.square().sum()).backward()
        return [weight.grad.clone() for weight in network.parameters()]

    kept = gradients(0)
    assert passes == {16: 1, 8: 1}
    for least, computed in ((8 * 4 * 8 * 8, {16: 1}), (1, {})):
        passes.update({16: 0, 8: 0})
        assert all(torch.equal(a, b) for a, b in zip(gradients(least), kept, strict=True))
        assert passes[8] > 1
        assert passes[16] == computed.get(16, passes[8])


def test_predictions_know_of_less_memory_and_more_work() -> None:
    index = Samples.of_preset(SampleShape(1, (4, 16, 16)), 0, "").index
    # A Gaussian has a weight of its own, which predictions could not copy once.
    experiment = autoencoder(**{"model": {**_RES, "blocks": 3}, "objective.likelihood": "gaussian"})
    training = replace(experiment.training, recompute_from=1)
    kept, again = (count_step(each, index, 32) for each in (experiment, replace(experiment, training=training)))
    assert again.peak_bytes - again.state_bytes < 0.5 * (kept.peak_bytes - kept.state_bytes)
    assert 1.2 < again.flops / kept.flops < 1.5


def test_compiled_training_keeps_its_activations() -> None:
    with pytest.raises(config.ConfigError, match=r"set --training\.compile false") as error:
        autoencoder(**{"training.recompute_from": 1, "training.compile": True})
    assert "\n" not in str(error.value)
