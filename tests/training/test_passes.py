"""Passes of several microbatches: they change results by rounding alone, and are halved if memory is short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.prediction import samples_of
from imagegen_dist import config, experiment
from imagegen_dist.distributed import World, process_group
from imagegen_dist.experiment import Experiment
from imagegen_dist.objectives.base import Batch, Draw, Terms
from imagegen_dist.objectives.gan import GAN, GANConfig
from imagegen_dist.objectives.interface import Build
from imagegen_dist.run.passes import predicted_microbatches
from imagegen_dist.training.optim import ScheduledAdam
from imagegen_dist.training.passes import fit_pass
from tests.ranks import run_ranks
from tests.runs import noise, one_step, tiny
from tests.test_vae_runs import OBJECTIVES
from tests.test_vae_runs import tiny as tiny_vae

DIMS, CLASSES = (1, 28, 28), 10
GANS = {
    "gan": {"objective.augment_p": 0.7, "data.flip": True, "objective.auxiliary_classifier": 0.3},
    "gan r1": {
        "objective.penalty": "r1",
        "objective.loss": "non-saturating",
        "objective.auxiliary_classifier": 0.3,
    },
    # A larger step than the default, whose square divides rounding.
    "gan differences": {"objective.estimator": "finite-difference", "objective.epsilon": 0.1},
    "gan wgan-gp": {"objective.penalty": "wgan-gp", "objective.critic_steps": 2},
}
NOW = {
    "vae-gan": {"objective.adversarial_from_images": 0},
    "free-bits": {"objective.warmup_images": 0},
    "beta-tcvae": {"objective.decomposition": "mss"},
    "ladder": {"objective.free_bits": (0.4,), "objective.warmup_images": 0},
}
"""Settings by which each term of a loss counts in the first step."""


class Recorder(ScheduledAdam):
    """Keeps each turn's gradients, and leaves the weights as they are."""

    turns: list[Tensor]

    def step(self, images_seen: int, bad: Tensor) -> None:
        self.turns = [
            *getattr(self, "turns", []),
            torch.cat([weight.grad.flatten() for weight in self.parameters]).double(),
        ]


def experiment_of(name: str, pass_images: int) -> Experiment:
    changed = {**(GANS.get(name) or NOW.get(name, {})), "training.pass_images": pass_images}
    return config.overrides(tiny() if name in GANS else tiny_vae(name), changed.items())


@pytest.mark.parametrize("name", [*GANS, *OBJECTIVES])
def test_a_pass_of_several_microbatches_changes_gradients_by_rounding_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of losses that compare the samples of a microbatch, and if the last pass of a step is smaller."""
    monkeypatch.setattr(experiment, "ScheduledAdam", Recorder)
    single = one_step(experiment_of(name, 4), "image", DIMS, CLASSES)
    means = single.means()
    for microbatches in (2, 4, 6):
        joint = one_step(experiment_of(name, 4 * microbatches), "image", DIMS, CLASSES)
        for phase, optimizer in joint.optimizers.items():
            assert isinstance(optimizer, Recorder)
            for ours, theirs in zip(optimizer.turns, single.optimizers[phase].turns, strict=True):
                assert theirs.norm() > 0
                assert (ours - theirs).norm() < 1e-5 * theirs.norm()
        assert joint.means() == pytest.approx(means, rel=1e-4, abs=1e-5)


class _Small:
    """A phase's loss on a device that takes so many samples at once."""

    def __init__(self, loss: object, most: int) -> None:
        self.loss, self.most = loss, most

    def __call__(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
        if len(batch.sample) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.loss(batch, draw)


def short_of_memory(rank: int, meeting: str) -> None:
    """Rank 1 takes 8 images at once; both have passes of 12 to begin with."""
    said = list[str]()
    with process_group(World(rank, 2), meeting):
        trainer, item = noise(experiment_of("vae", 12), "image", DIMS, CLASSES, World(rank, 2))
        before = [weight.clone() for weight in trainer.objective.modules()["encoder"].parameters()]
        for runner in trainer.runners.values() if rank else ():
            phase = getattr(runner, "module", runner)
            phase._loss = _Small(phase._loss, 8)
        fit_pass(trainer, item, said.append)
        assert trainer.pass_microbatches == 2
        assert said == ["a pass of 12 images does not fit into memory: passes are of 8"]
        after = trainer.objective.modules()["encoder"].parameters()
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
        trainer.step(item)
        if rank:
            phase._loss.most = 3
        with pytest.raises(torch.OutOfMemoryError):
            fit_pass(trainer, item, said.append)


def test_a_pass_that_does_not_fit_is_halved_on_all_ranks_together(tmp_path: Path) -> None:
    run_ranks(2, short_of_memory, str(tmp_path / "meeting"))


def test_a_pass_is_of_whole_microbatches_of_a_loss_that_joins_them() -> None:
    with pytest.raises(ValueError, match=r"pass_images 6 is not a whole number of microbatches of 4; set --training"):
        experiment_of("vae", 6)


@dataclass(frozen=True)
class Peeking(GANConfig):
    """A game whose loss reads a value."""

    def objective(self, networks: Mapping[str, nn.Module], build: Build) -> GAN:
        class Game(GAN):
            def generator_loss(self, batch: Batch, draw: Draw) -> tuple[Tensor, Terms]:
                loss, terms = super().generator_loss(batch, draw)
                return loss * float(loss > 0), terms

        return Game(networks["generator"], networks["discriminator"], self)


def test_a_pass_is_as_large_as_memory_is_predicted_to_take() -> None:
    said: list[str] = []
    index = samples_of("digits").index

    def chosen(memory_bytes: float, **changed: GANConfig) -> int:
        asked = replace(tiny(), **changed)
        return predicted_microbatches(asked, index, int(memory_bytes), World(), torch.device("cpu"), said.append)

    assert chosen(1e10) == tiny().training.batching.microbatches > 1
    assert chosen(1) == 1
    assert said == []
    assert chosen(1e10, objective=Peeking()) == 1
    assert said[0].startswith("passes are of one microbatch, since their memory cannot be predicted: ")
