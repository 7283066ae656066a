"""One process, two and three: the same gradients, the same weights, and exact resumption, over gloo.

Three processes are started once; all that they computed is compared here.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World, process_group, same_on_all_ranks
from imagegen_dist.models import mlp, r3gan
from imagegen_dist.models.mlp import MLPConfig
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.nn.recompute import recompute_
from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.gan import GAN, GANConfig
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.shape import SampleShape
from imagegen_dist.training.checkpoint import weights_digest
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.loop import Augment, Batching, Trainer
from imagegen_dist.training.optim import AdamConfig, ScheduledAdam
from imagegen_dist.training.state import below, flatten, load_state_dict, model_of, on_host, state_dict
from tests.ranks import run_ranks

SHAPE, CLASSES, MICROBATCH_SIZE = SampleShape(1, (8, 8)), 3, 4
RELATIVISTIC = GANConfig(gamma=Schedule(1.0, 0.1, 1000))
LOSSES = {
    "relativistic": RELATIVISTIC,
    "augmented": GANConfig(gamma=constant(0.5), augment_p=constant(0.5)),
    "wgan-gp": GANConfig(loss="wasserstein", penalty="wgan-gp", gamma=constant(10.0), critic_steps=2),
    "finite-difference": GANConfig(gamma=constant(0.5), estimator="finite-difference"),
    "lazy": GANConfig(gamma=constant(0.5), penalty_every=2),
}
MICROBATCHES = {"one each": 3, "not divisible": 4, "not divisible, accumulated": 5, "accumulated": 6}
SIZES = (2, 3)

Networks = tuple[nn.Module, nn.Module]


def mlp_networks() -> Networks:
    config, seed = MLPConfig(hidden=(24, 24), z_dim=6, embed_dim=4), torch.Generator().manual_seed(1)
    return tuple(cls(SHAPE, CLASSES, config, generator=seed) for cls in (mlp.Generator, mlp.Discriminator))


def convolutional_networks(recompute_from: int = 0) -> Networks:
    config, seed = R3GANConfig(widths=(16, 8), group_channels=8), torch.Generator().manual_seed(2)
    networks = tuple(cls(SHAPE, CLASSES, config, generator=seed) for cls in (r3gan.Generator, r3gan.Discriminator))
    for network in networks:
        recompute_(network, recompute_from)
    return networks


def patch_networks() -> Networks:
    config = R3GANConfig(widths=(32,), group_channels=0, expansion=1, patch=4, patch_kernel=8)
    seed = torch.Generator().manual_seed(2)
    return tuple(cls(SHAPE, CLASSES, config, generator=seed) for cls in (r3gan.Generator, r3gan.Discriminator))


def make_trainer(
    networks: Networks,
    config: GANConfig,
    microbatches: int,
    world: World,
    optimizer: type[ScheduledAdam] = ScheduledAdam,
    augment: Augment | None = None,
    compressed: bool = False,
) -> Trainer:
    named = {"generator": networks[0], "discriminator": networks[1]}
    adam = AdamConfig(lr=Schedule(2e-3, 5e-4, 400), beta2=Schedule(0.9, 0.99, 200))
    return Trainer(
        GAN(*networks, config),
        {name: optimizer(network, adam) for name, network in named.items()},
        EMA(named, ["generator"], Schedule(0.0, 100.0, 200)),
        Batching(microbatches * MICROBATCH_SIZE, MICROBATCH_SIZE),
        world,
        torch.device("cpu"),
        seed=5,
        augment=augment,
        compress_gradients=compressed,
    )


def item(trainer: Trainer) -> Item:
    """This rank's part of the trainer's next step, cut from samples that depend on the step alone."""
    step, turns = trainer.step_index, len(trainer.objective.phases())
    generator = torch.Generator().manual_seed(step)
    size = (turns, trainer.batching.microbatches, MICROBATCH_SIZE)
    sample = torch.randint(0, 256, (*size, *SHAPE.dims), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, CLASSES, size, generator=generator)
    mine = trainer.world.share(trainer.batching.microbatches)
    share = slice(mine.start, mine.stop)
    return Item(step, sample[:, share], label[:, share], torch.zeros_like(label[:, share]), {}, [])


def advance(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.step(item(trainer))


class Recorder(ScheduledAdam):
    """Keeps each turn's gradients, and leaves the weights as they are."""

    def __init__(self, module: nn.Module, config: AdamConfig) -> None:
        super().__init__(module, config)
        self.turns: list[list[Tensor]] = []

    def step(self, images_seen: int, bad: Tensor) -> None:
        self.turns.append([parameter.grad.clone() for parameter in self.parameters])


def gradients(
    networks: Networks, config: GANConfig, microbatches: int, world: World, compressed: bool = False
) -> dict[str, Tensor]:
    """Every gradient of every turn of two steps, in float64."""
    networks = (networks[0].double(), networks[1].double())
    trainer = make_trainer(networks, config, microbatches, world, Recorder, lambda x, _: x.double(), compressed)
    advance(trainer, 2)
    return {
        f"{name}/turn {turn}/{parameter}": gradient
        for name, recorder in trainer.optimizers.items()
        for turn, recorded in enumerate(recorder.turns)
        for parameter, gradient in zip(recorder.names, recorded, strict=True)
    }


def all_gradients(world: World) -> dict[str, Tensor]:
    found = {}
    for split, microbatches in MICROBATCHES.items():
        for loss, config in LOSSES.items():
            for key, value in gradients(mlp_networks(), config, microbatches, world).items():
                found[f"{loss} | {split} | {key}"] = value
        # Several processes compute activations again in the backward pass; one keeps them.
        networks = convolutional_networks(recompute_from=int(world.size > 1))
        for key, value in gradients(networks, RELATIVISTIC, microbatches, world).items():
            found[f"convolutions | {split} | {key}"] = value
    return found


def state(trainer: Trainer) -> dict[str, Tensor]:
    """Everything that a checkpoint keeps."""
    return on_host(flatten({"state": state_dict(trainer), "model": model_of(trainer)}))


def restore(trainer: Trainer, images: int, kept: dict[str, Tensor]) -> Trainer:
    trainer.images = images
    load_state_dict(trainer, below(kept, "model"), below(kept, "state"))
    return trainer


def weights_after_20_steps(world: World) -> dict[str, Tensor]:
    """Weights and averages, in float32."""
    found = {}
    for name, networks in (("mlp", mlp_networks()), ("patches", patch_networks())):
        trainer = make_trainer(networks, RELATIVISTIC, 5, world)
        advance(trainer, 20)
        found |= {f"{name}/{key}": value for key, value in state(trainer).items() if "/optimizers/" not in f"/{key}"}
    return found


def compressed_gradients(world: World) -> dict[str, Tensor]:
    return gradients(convolutional_networks(), RELATIVISTIC, 5, world, compressed=True)


def undisturbed_and_resumed(
    make_networks: Callable[[], Networks],
    microbatches: int,
    world: World,
    config: GANConfig = RELATIVISTIC,
    compressed: bool = False,
) -> dict[str, Tensor]:
    """The state after 8 steps: in one go, and stopped after 0, 1 and 5 steps."""
    undisturbed = make_trainer(make_networks(), config, microbatches, world, compressed=compressed)
    kept = {}
    for step in range(8):
        if step in (0, 1, 5):
            kept[step] = (undisturbed.images, state(undisturbed))
        advance(undisturbed, 1)
    found = {f"undisturbed/{key}": value for key, value in state(undisturbed).items()}
    for step, (images, values) in kept.items():
        other = make_networks()
        for network in other:
            for parameter in network.parameters():
                nn.init.constant_(parameter, 0.5)
        resumed = make_trainer(other, config, microbatches, world, compressed=compressed)
        restore(resumed, images, values)
        advance(resumed, 8 - step)
        found |= {f"resumed at {step}/{key}": value for key, value in state(resumed).items()}
    return found


def skipped_on_all_ranks(world: World) -> dict[str, Tensor]:
    """The weights around a step in which the last rank alone meets NaN, and the number of steps skipped."""
    bad_images = 2 * 5 * MICROBATCH_SIZE

    def poison(x: Tensor, draw: Draw) -> Tensor:
        return x * torch.nan if draw.images == bad_images and world.rank == world.size - 1 else x

    trainer = make_trainer(mlp_networks(), RELATIVISTIC, 5, world, augment=poison)
    advance(trainer, 2)
    before = {f"before/{key}": value for key, value in state(trainer).items() if key.startswith("state/weights")}
    advance(trainer, 1)
    after = {f"after/{key}": value for key, value in state(trainer).items() if key.startswith("state/weights")}
    advance(trainer, 1)
    return before | after | {"skipped": trainer.skipped_steps, "longest": trainer.longest_bad_run}


def digests_agree(world: World) -> dict[str, Tensor]:
    """Whether the ranks find each other's weights equal: as they are, and with one bit changed on the last rank."""
    weights = {"a": torch.ones(7), "b": torch.arange(5)}
    changed = copy.deepcopy(weights)
    if world.rank == world.size - 1:
        changed["a"].view(torch.int32)[3] ^= 1
    agreed = [same_on_all_ranks(weights_digest(tensors), world) for tensors in (weights, changed)]
    return {"agreed": torch.tensor(agreed)}


CHECKS: dict[str, Callable[[World], dict[str, Tensor]]] = {
    "gradients": all_gradients,
    "weights": weights_after_20_steps,
    "resume-mlp": lambda world: undisturbed_and_resumed(mlp_networks, 4, world),
    "resume-patches": lambda world: undisturbed_and_resumed(patch_networks, 5, world),
    "resume-lazy": lambda world: undisturbed_and_resumed(patch_networks, 5, world, LOSSES["lazy"]),
    "resume-compressed": lambda world: undisturbed_and_resumed(mlp_networks, 4, world, compressed=True),
    "compressed": compressed_gradients,
    "skip": skipped_on_all_ranks,
    "digests": digests_agree,
}


def work(rank: int, folder: str) -> None:
    """What one process does, in a group of three and then, if it is one of the first two, in a group of two."""
    for size in sorted(SIZES, reverse=True):
        if rank < size:
            world = World(rank, size)
            with process_group(world, f"{folder}/meet-{size}"):
                for name, check in CHECKS.items():
                    save_file(check(world), f"{folder}/{name}-{rank}-of-{size}.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    run_ranks(3, work, str(path))
    return path


@pytest.fixture(scope="module")
def one_process_gradients() -> dict[str, Tensor]:
    return all_gradients(World())


@pytest.fixture(scope="module")
def one_process_weights() -> dict[str, Tensor]:
    return weights_after_20_steps(World())


def results(folder: Path, check: str, size: int) -> list[dict[str, Tensor]]:
    """What every rank found."""
    return [load_file(folder / f"{check}-{rank}-of-{size}.safetensors") for rank in range(size)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("split", MICROBATCHES)
@pytest.mark.parametrize("loss", [*LOSSES, "convolutions"])
def test_every_phase_has_the_gradients_of_one_process(folder, one_process_gradients, loss, split, size):
    expected = {key: value for key, value in one_process_gradients.items() if key.startswith(f"{loss} | {split} |")}
    assert any("discriminator" in key for key in expected)
    assert any("generator" in key for key in expected)
    assert max(value.abs().max() for value in expected.values()) > 1e-3
    for found in results(folder, "gradients", size):
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key], gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_weights_after_20_steps_are_those_of_one_process(folder, one_process_weights, size):
    for found in results(folder, "weights", size):
        for key, weight in one_process_weights.items():
            assert (found[key] - weight).norm() <= 1e-5 * weight.norm(), key


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("networks", ["mlp", "patches", "lazy", "compressed"])
@pytest.mark.parametrize("step", [0, 1, 5])
def test_a_resumed_run_ends_with_the_undisturbed_ones_bits(folder, networks, step, size):
    for found in results(folder, f"resume-{networks}", size):
        undisturbed = [key for key in found if key.startswith("undisturbed/")]
        assert any("exp_avg_sq" in key for key in undisturbed)
        for key in undisturbed:
            assert torch.equal(found[key], found[key.replace("undisturbed", f"resumed at {step}")]), key


@pytest.mark.parametrize("size", SIZES)
def test_compressed_gradients_are_equal_on_all_ranks_and_those_of_one_process_to_bfloat16(folder, size):
    expected = compressed_gradients(World())
    plain = gradients(convolutional_networks(), RELATIVISTIC, 5, World())
    assert all(torch.equal(gradient, plain[key]) for key, gradient in expected.items())  # alone, nothing is exchanged
    first, *others = results(folder, "compressed", size)
    exact = 0
    for key, gradient in expected.items():
        assert all(torch.equal(first[key], other[key]) for other in others)
        # One rounding to 8 bits on each rank, and one of each sum.
        assert (first[key] - gradient).norm() <= (size + 1) * 2**-8 * gradient.norm(), key
        exact += torch.equal(first[key], gradient)
    assert exact < len(expected)  # those of zeros are exact


@pytest.mark.parametrize("size", SIZES)
def test_nan_on_one_rank_skips_the_step_on_all(folder, size):
    for found in results(folder, "skip", size):
        assert found["skipped"] == 1
        assert found["longest"] == 1
        before = [key for key in found if key.startswith("before/")]
        assert before
        for key in before:
            assert torch.equal(found[key], found[key.replace("before", "after")]), key
            assert found[key].isfinite().all()


@pytest.mark.parametrize("size", SIZES)
def test_a_bit_that_differs_on_one_rank_is_seen_by_all(folder, size):
    for found in results(folder, "digests", size):
        assert found["agreed"].tolist() == [True, False]
