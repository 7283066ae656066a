"""A compiled loss under DistributedDataParallel, with several microbatches: the gradients of the eager loss."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from imagegen_dist.distributed import World, process_group
from imagegen_dist.models import mlp
from imagegen_dist.models.mlp import MLPConfig
from imagegen_dist.nn import compiling
from imagegen_dist.objectives.gan import GAN, GANConfig
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.loop import Batching, Trainer
from imagegen_dist.training.optim import AdamConfig
from tests.distributed.test_gradients import CLASSES, MICROBATCH_SIZE, SHAPE, Recorder, advance
from tests.ranks import run_ranks

MICROBATCHES = 3
# Of more than the first bucket's megabyte: DistributedDataParallel would cut a compiled graph at its end.
NETWORKS = MLPConfig(hidden=(600, 600), z_dim=6, embed_dim=4)


def gradients(world: World, compiled: bool) -> dict[str, torch.Tensor]:
    """Of every weight in a step with a penalty, and in one without."""
    seed = torch.Generator().manual_seed(1)
    networks = {
        "generator": mlp.Generator(SHAPE, CLASSES, NETWORKS, generator=seed),
        "discriminator": mlp.Discriminator(SHAPE, CLASSES, NETWORKS, classifies=True, generator=seed),
    }
    networks["discriminator"].classifier.weight.data.normal_(std=0.1, generator=seed)  # zeros tell nothing of fakes
    config = GANConfig(gamma=constant(0.5), penalty_every=2, auxiliary_classifier=Schedule(0.3, 0.0, 1000))
    how = [lambda function: compiling.compiled(function, "aot_eager")] if compiled else []
    trainer = Trainer(
        GAN(*networks.values(), config, *how),
        {name: Recorder(network, AdamConfig()) for name, network in networks.items()},
        EMA(networks, ["generator"], constant(100)),
        Batching(MICROBATCHES * MICROBATCH_SIZE, MICROBATCH_SIZE),
        world,
        torch.device("cpu"),
        seed=5,
    )
    advance(trainer, 2)
    return {
        f"{name}/{step}/{weight}": gradient
        for name, recorder in trainer.optimizers.items()
        for step, recorded in enumerate(recorder.turns)
        for weight, gradient in zip(recorder.names, recorded, strict=True)
    }


def work(rank: int, folder: str) -> None:
    world = World(rank, 2)
    with process_group(world, f"{folder}/meet"):
        for name, compiled in (("eager", False), ("compiled", True)):
            save_file(gradients(world, compiled), f"{folder}/{name}-{rank}.safetensors")


def test_both_ranks_have_the_gradients_of_the_eager_loss(tmp_path: Path) -> None:
    run_ranks(2, work, str(tmp_path))
    eager, *compiled = (
        load_file(tmp_path / f"{name}-{rank}.safetensors")
        for name, rank in (("eager", 0), ("compiled", 0), ("compiled", 1))
    )
    assert any(name.startswith("generator/") for name in eager)
    for found in compiled:
        for name, gradient in eager.items():
            assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
