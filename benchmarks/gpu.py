"""Images a second of presets on one GPU: `python benchmarks/gpu.py [PRESET ...]`

Each preset at its own microbatch, eager and compiled, on uint8 noise in memory: what networks, penalties and optimizers
cost, without data or Ray.
"""

from __future__ import annotations

import argparse
import time

import torch

from imagegen_dist import config
from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World
from imagegen_dist.experiment import build_trainer
from imagegen_dist.presets import find_preset


def images_per_s(name: str, compiled: bool, microbatches: int, steps: int) -> float:
    """Steady state of a few steps after warm-up."""
    preset = find_preset(name)
    size = preset.experiment.training.microbatch_size
    changes = {"training.batch_size": size * microbatches, "training.compile": compiled}
    experiment = config.overrides(preset.experiment, changes.items())
    shard = ShardInfo("000000.tar", 1, 1_000_000, 0, "0" * 64)
    index = DatasetIndex("image", preset.shape, (shard,), preset.classes or None)
    trainer = build_trainer(experiment, index, World(), torch.device("cuda"))
    sample = torch.randint(0, 256, (2, microbatches, size, *preset.shape.dims), dtype=torch.uint8)
    label = torch.randint(0, preset.classes, (2, microbatches, size)) if preset.classes else None
    item = Item(0, sample.pin_memory(), label, torch.zeros(2, microbatches, size, dtype=torch.int64), {}, [])
    for _ in range(3):
        trainer.step(item)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        trainer.step(item)
    torch.cuda.synchronize()
    return steps * size * microbatches / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=["r3gan-cifar10", "r3gan-ffhq256"])
    parser.add_argument("--microbatches", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| preset | eager, images/s | compiled, images/s |\n|---|---|---|")
    for name in options.presets:
        with find_preset(name).experiment.training.numerics.applied():
            eager, compiled = (images_per_s(name, mode, options.microbatches, options.steps) for mode in (False, True))
        print(f"| {name} | {eager:,.0f} | {compiled:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
