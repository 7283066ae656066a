"""Every VAE objective: two and three processes have the gradients of one, in float64, over gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World, process_group
from imagegen_dist.experiment import Experiment, build_networks, build_objective
from imagegen_dist.models.conv_vae import ConvVAEConfig
from imagegen_dist.models.ladder_vae import LadderVAEConfig
from imagegen_dist.objectives.factor_vae import FactorVAEConfig
from imagegen_dist.objectives.hierarchical_vae import HierarchicalVAEConfig
from imagegen_dist.objectives.iwae import IWAEConfig
from imagegen_dist.objectives.vae import VAEConfig
from imagegen_dist.objectives.vae_gan import VAEGANConfig
from imagegen_dist.schedule import constant
from imagegen_dist.settings import TrainingConfig
from imagegen_dist.shape import SampleShape
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.loop import Batching, Trainer
from imagegen_dist.training.optim import AdamConfig, ScheduledAdam
from tests.ranks import run_ranks

SHAPE, MICROBATCH_SIZE, SAMPLES = SampleShape(1, (8, 8)), 4, 100
OBJECTIVES = {
    "vae": VAEConfig(beta=constant(2.0), warmup_images=100),
    "capacity": VAEConfig(capacity=2.0),
    "free-bits": VAEConfig(free_bits=0.1),
    "beta-tcvae": VAEConfig(decomposition="mws", beta=constant(4.0)),
    "gaussian": VAEConfig(likelihood="gaussian"),
    "fsq": VAEConfig(latent="fsq", levels=(5, 5, 4)),
    "iwae": IWAEConfig(samples=3, binarize="dynamic"),
    "dreg": IWAEConfig(samples=3, gradient="dreg"),
    "factor-vae": FactorVAEConfig(discriminator_hidden=(32, 32)),
    "ladder": HierarchicalVAEConfig(warmup_images=100),
    "ladder-free-bits": HierarchicalVAEConfig(free_bits=(0.0, 5.0)),
    "vae-gan": VAEGANConfig(perceptual="random", discriminator_channels=4, discriminator_layers=1),
    "vae-gan-at-rest": VAEGANConfig(discriminator_channels=4, discriminator_layers=1, adversarial_from_images=10**6),
}
MICROBATCHES = (3, 5)
SIZES = (2, 3)


class Recorder(ScheduledAdam):
    """Keeps the gradients, and leaves the weights as they are."""

    def step(self, images_seen: int, bad: Tensor) -> None:
        self.seen = {name: value.grad.clone() for name, value in zip(self.names, self.parameters, strict=True)}


def gradients(objective: Any, microbatches: int, world: World) -> dict[str, Tensor]:
    """Every gradient of the second step."""
    model: ConvVAEConfig | LadderVAEConfig = ConvVAEConfig(channels=(4, 4), kernels=(4,), hidden=(12,), latent=3)
    if isinstance(objective, HierarchicalVAEConfig):
        model = LadderVAEConfig(channels=(4, 4), latents=(0, 2), units=(6,), vectors=(3,))
    optim = objective.optimizers()
    experiment = Experiment(model=model, objective=objective, optim=optim, training=TrainingConfig(seed=3))
    networks = {name: network.double() for name, network in build_networks(experiment, SHAPE, None).items()}
    index = DatasetIndex("image", SHAPE, (ShardInfo("0.tar", 1, SAMPLES, 0, "0" * 64),))
    built = build_objective(experiment, networks, index)
    for module in built.modules().values():
        module.double()
    adams = {phase.name: Recorder(phase.trains, AdamConfig()) for phase in built.phases()}
    averages = EMA(built.modules(), built.averaged(), constant(10))
    batching = Batching(microbatches * MICROBATCH_SIZE, MICROBATCH_SIZE)
    device = torch.device("cpu")
    trainer = Trainer(built, adams, averages, batching, world, device, seed=5, augment=lambda x, _: x.double())
    for step in range(2):
        size = (len(built.phases()), microbatches, MICROBATCH_SIZE)
        random = torch.Generator().manual_seed(step)
        sample = torch.randint(0, 256, (*size, *SHAPE.dims), generator=random, dtype=torch.uint8)
        mine = world.share(microbatches)
        part = sample[:, mine.start : mine.stop]
        trainer.step(Item(step, part, None, torch.zeros(part.shape[:3], dtype=torch.int64), {}, []))
    return {f"{phase}/{name}": value for phase, adam in adams.items() for name, value in adam.seen.items()}


def all_gradients(world: World) -> dict[str, Tensor]:
    return {
        f"{name} | {microbatches} | {parameter}": value
        for name, objective in OBJECTIVES.items()
        for microbatches in MICROBATCHES
        for parameter, value in gradients(objective, microbatches, world).items()
    }


def _rank(rank: int, size: int, folder: str) -> None:
    world = World(rank, size)
    with process_group(world, f"{folder}/meeting-{size}"):
        found = all_gradients(world)
    if world.is_main:
        save_file(found, f"{folder}/{size}.safetensors")


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("gradients")
    for size in SIZES:
        run_ranks(size, _rank, size, str(folder))
    return {1: all_gradients(World()), **{size: load_file(Path(folder) / f"{size}.safetensors") for size in SIZES}}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("size", SIZES)
def test_gradients_equal_those_of_one_process(
    computed: dict[int, dict[str, Tensor]], size: int, objective: str
) -> None:
    compared = 0
    for name, expected in computed[1].items():
        if name.startswith(f"{objective} |"):
            torch.testing.assert_close(computed[size][name], expected, rtol=1e-9, atol=1e-12, msg=name)
            compared += expected.abs().max() > 0
    assert compared > 10
