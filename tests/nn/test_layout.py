"""Channels last in memory: the same training but for rounding, for images and volumes, also from a checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imagegen_dist import experiment
from imagegen_dist.data.stream import Item
from imagegen_dist.nn.layout import memory_format
from imagegen_dist.training.loop import Trainer
from imagegen_dist.training.optim import ScheduledAdam
from imagegen_dist.training.state import load_state_dict, model_of, on_host, state_dict
from tests.runs import noise, tiny

DIMS = {"image": (1, 8, 8), "voxels": (1, 4, 8, 8)}


class Recorder(ScheduledAdam):
    """Keeps the gradients of every turn beside taking the step."""

    turns: list[Tensor]

    def step(self, images_seen: int, bad: Tensor) -> None:
        flat = torch.cat([weight.grad.flatten() for weight in self.parameters])
        self.turns = [*getattr(self, "turns", []), flat]
        super().step(images_seen, bad)


def prepared(modality: str, channels_last: bool) -> tuple[Trainer, Item]:
    patches = {"model__patch": 1, "model__patch_kernel": 1, "model__group_channels": 8, "model__widths": (16, 16)}
    settings = tiny(training__channels_last=channels_last, training__pass_images=8, objective__augment_p=0.5, **patches)
    return noise(settings, modality, DIMS[modality], 3)


def moved(trainer: Trainer, item: Item, steps: int) -> Trainer:
    for _ in range(steps):
        trainer.step(item)
    return trainer


@pytest.mark.parametrize("modality", DIMS)
def test_gradients_and_resumed_runs_are_those_of_the_plain_layout(
    modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "ScheduledAdam", Recorder)
    layout = memory_format(len(DIMS[modality]) - 1, channels_last=True)
    plain, ours = (moved(*prepared(modality, channels_last), steps=3) for channels_last in (False, True))
    networks = [ours.objective.modules()["discriminator"], ours.averages.modules()["generator"]]
    for network in networks:
        kernels = [weight for weight in network.parameters() if weight.ndim > 3 and weight.shape[-1] == 3]
        assert kernels
        assert all(weight.is_contiguous(memory_format=layout) for weight in kernels)
    for name, optimizer in ours.optimizers.items():
        for mine, theirs in zip(optimizer.turns, plain.optimizers[name].turns, strict=True):
            assert (mine - theirs).norm() < 1e-4 * theirs.norm()

    kept = on_host(model_of(ours)), on_host(state_dict(ours))
    resumed, item = prepared(modality, channels_last=True)
    resumed.images = ours.images
    load_state_dict(resumed, *kept)
    for trainer in (ours, resumed):
        trainer.step(item)
    for name, tensor in state_dict(ours).items():
        assert torch.equal(tensor, state_dict(resumed)[name]), name
