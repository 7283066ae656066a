"""Images a second of presets on one GPU: `python benchmarks/gpu.py [PRESET ...]`

Each preset at its own microbatch, eager and compiled, on uint8 noise in memory: what networks, penalties and optimizers
cost, without data or Ray.

`PYTHONPATH=. python benchmarks/gpu.py --first [--seconds 700] [--parts PART,...]` is for the first minutes on a GPU:
what only a GPU can tell (gpu_parts.py), the most important first, each part in a process of its own, in lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from imagegen_dist import config
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
    trainer = build_trainer(experiment, preset.imagined_index(), World(), torch.device("cuda"))
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


def first(seconds: float, device: str, chosen: Sequence[str] = ()) -> int:
    """Run the parts one after another, each within its own limit and what is left; returns how many failed."""
    from gpu_parts import PARTS  # beside this script

    began, failed = time.monotonic(), 0
    for name in chosen or PARTS:
        limit = min(float(PARTS[name][0]), seconds - (time.monotonic() - began))
        why = "no time is left" if limit < 5 else _part(name, device, limit)
        if why:
            failed += 1
            print(json.dumps({"part": name, "error": why}), flush=True)
    print(json.dumps({"part": "end", "seconds": round(time.monotonic() - began), "failed": failed}), flush=True)
    return failed


def _part(name: str, device: str, limit: float) -> str:
    """Run one part, which prints its own lines; why it failed, or nothing."""
    command = [sys.executable, str(Path(__file__).with_name("gpu_parts.py")), name, "--device", device]
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile("w+") as errors:
        try:
            code = subprocess.run(command, stderr=errors, timeout=limit, env=environment).returncode
        except subprocess.TimeoutExpired:
            return f"not done after {limit:.0f} s"
        errors.seek(0)
        said = errors.read().strip().splitlines()
    return "" if code == 0 else (said[-1][:300] if said else f"exit code {code}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=["r3gan-cifar10", "r3gan-ffhq256"])
    parser.add_argument("--microbatches", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--first", action="store_true", help="the first minutes on a GPU")
    parser.add_argument("--seconds", type=float, default=700)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default="", help="some parts of --first, by comma")
    options = parser.parse_args()
    if options.first:
        sys.exit(bool(first(options.seconds, options.device, [name for name in options.parts.split(",") if name])))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| preset | eager, images/s | compiled, images/s |\n|---|---|---|")
    for name in options.presets:
        with find_preset(name).experiment.training.numerics.applied():
            eager, compiled = (images_per_s(name, mode, options.microbatches, options.steps) for mode in (False, True))
        print(f"| {name} | {eager:,.0f} | {compiled:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
