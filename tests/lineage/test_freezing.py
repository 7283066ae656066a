"""Stages of a discriminator that keep their weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from imagegen_dist.distributed import World
from imagegen_dist.models import dcgan, mlp, patch_discriminator, r3gan
from imagegen_dist.shape import SampleShape
from imagegen_dist.training.freezing import frozen_parameters
from tests.runs import noise, tiny

SHAPE, RANDOM = SampleShape(1, (16, 16)), torch.Generator()
NETWORKS = {
    "r3gan": (r3gan.Discriminator(SHAPE, 3, r3gan.R3GANConfig(widths=(8, 8)), generator=RANDOM), 2),
    "dcgan": (dcgan.Discriminator(SHAPE, 3, dcgan.DCGANConfig(widths=(8, 8, 8)), generator=RANDOM), 3),
    "mlp": (mlp.Discriminator(SHAPE, 3, mlp.MLPConfig(hidden=(8, 8)), generator=RANDOM), 2),
    "patches": (patch_discriminator.PatchDiscriminator(SHAPE, generator=RANDOM), 4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_are_frozen_from_the_sample_on_and_the_logit_is_always_trained(name: str) -> None:
    network, stages = NETWORKS[name]
    before = 0
    for count in range(1, stages + 1):
        frozen = frozen_parameters({"discriminator": network}, count)
        names = [key for key, parameter in network.named_parameters() if parameter in frozen]
        assert next(iter(dict(network.named_parameters()))) in names
        assert before < len(names) < len(list(network.parameters()))
        before = len(names)
    assert not frozen_parameters({"discriminator": network}, 0)
    with pytest.raises(ValueError, match=f"--freeze-d {stages + 1}: the discriminator has {stages} stages"):
        frozen_parameters({"discriminator": network}, stages + 1)


def test_a_loss_without_a_discriminator_is_refused() -> None:
    with pytest.raises(ValueError, match="--freeze-d 1: the objective has no discriminator"):
        frozen_parameters({"encoder": nn.Identity()}, 1)


def test_a_step_changes_all_but_frozen_weights() -> None:
    trainer, item = noise(
        tiny(model__widths=(8, 8), model__patch=2, model__patch_kernel=4, training__freeze_d=1),
        "image",
        (1, 12, 12),
        3,
        World(),
    )
    network = trainer.objective.modules()["discriminator"]
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    trainer.step(item)
    trainer.step(item)
    kept = {name for name, weight in network.named_parameters() if torch.equal(weight, before[name])}
    assert kept == {name for name in before if name.startswith(("from_pixels", "stages.0", "transitions.0"))}
    assert not kept & {name.partition("/")[0] for name in trainer.optimizers["discriminator"].tensors()}
