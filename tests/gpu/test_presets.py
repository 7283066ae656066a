"""Every preset on CUDA, and a step on as many GPUs as there are: run where there is a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file, save_file

from imagegen_dist import config
from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World, process_group
from imagegen_dist.experiment import Experiment, build_trainer
from imagegen_dist.objectives.vae_gan import VAEGANConfig
from imagegen_dist.presets import PRESETS
from imagegen_dist.training.prefetch import ahead

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def smaller_batch(preset: str, compiled: bool) -> Experiment:
    """The preset with two microbatches of four images, and every term of its loss from the start."""
    changes: dict[str, Any] = {"training.batch_size": 8, "training.microbatch_size": 4, "training.compile": compiled}
    experiment = PRESETS[preset].experiment
    if isinstance(experiment.objective, VAEGANConfig):
        changes |= {"objective.perceptual": "random", "objective.adversarial_from_images": 0}
    return config.overrides(experiment, changes.items())


def random_item(preset: str, microbatches: int, size: int, seed: int = 0) -> Item:
    """Noise as one step's two draws."""
    made_for = PRESETS[preset]
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randint(
        0, 256, (2, microbatches, size, *made_for.shape.dims), dtype=torch.uint8, generator=generator
    )
    label = (
        torch.randint(0, made_for.classes, (2, microbatches, size), generator=generator) if made_for.classes else None
    )
    return Item(0, sample, label, torch.zeros(2, microbatches, size, dtype=torch.int64), {}, [])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("preset", PRESETS)
def test_two_steps_of_every_preset_are_finite_and_change_the_weights(preset: str, compiled: bool) -> None:
    device = torch.device("cuda")
    trainer = build_trainer(smaller_batch(preset, compiled), PRESETS[preset].imagined_index(), World(), device)
    modules = trainer.objective.modules()
    before = {name: [parameter.clone() for parameter in module.parameters()] for name, module in modules.items()}
    for seed in range(2):
        trainer.step(random_item(preset, 2, 4, seed))
    assert float(trainer.skipped_steps) == 0
    assert all(value == value for value in trainer.means().values())
    for name, module in modules.items():
        changed = [not torch.equal(old, new) for old, new in zip(before[name], module.parameters(), strict=True)]
        assert any(changed)
        assert all(parameter.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("preset", ["r3gan-cifar10", "r3gan-ffhq256"])
def test_compiled_and_eager_losses_agree_to_bf16(preset: str) -> None:
    means = []
    for compiled in (False, True):
        trainer = build_trainer(
            smaller_batch(preset, compiled), PRESETS[preset].imagined_index(), World(), torch.device("cuda")
        )
        trainer.step(random_item(preset, 2, 4))
        means.append(trainer.means())
    for name, value in means[0].items():
        assert means[1][name] == pytest.approx(value, rel=0.05, abs=0.05)


def test_samples_that_are_sent_ahead_arrive_as_they_are_while_the_gpu_computes() -> None:
    device = torch.device("cuda")
    items = [random_item("r3gan-cifar10", 4, 64, seed) for seed in range(6)]
    busy, found = torch.randn(4096, 4096, device=device), []
    for item in ahead(iter(items), device):
        for _ in range(10):
            busy = (busy @ busy).tanh()
        found.append((item.sample.clone(), item.label.clone()))
    for item, (sample, label) in zip(items, found, strict=True):
        assert torch.equal(sample.cpu(), item.sample)
        assert torch.equal(label.cpu(), item.label)


def _nccl_rank(rank: int, ranks: int, meeting: str, out: str) -> None:
    torch.cuda.set_device(rank)
    world, device = World(rank, ranks), torch.device("cuda", rank)
    with process_group(world, meeting, "nccl"):
        experiment = config.overrides(smaller_batch("r3gan-cifar10", False), [("training.batch_size", 4 * ranks)])
        trainer = build_trainer(experiment, PRESETS["r3gan-cifar10"].imagined_index(), world, device)
        trainer.step(random_item("r3gan-cifar10", 1, 4, seed=rank))
        total = torch.stack(
            [parameter.double().sum() for parameter in trainer.objective.modules()["generator"].parameters()]
        )
        save_file({"sums": total.cpu()}, f"{out}-{rank}.safetensors")


def test_nccl_on_all_gpus_leaves_equal_weights(tmp_path: Path) -> None:
    ranks = torch.cuda.device_count()
    torch.multiprocessing.spawn(_nccl_rank, (ranks, str(tmp_path / "meeting"), str(tmp_path / "out")), nprocs=ranks)
    sums = [load_file(tmp_path / f"out-{rank}.safetensors")["sums"] for rank in range(ranks)]
    assert all(torch.equal(sums[0], other) for other in sums)
