"""What the whole path costs over a bare DDP loop: `python benchmarks/overhead.py [--preset digits] [--rounds 3]`

The whole path is the job as users run it: Ray Train, the shard stream, the loop, metrics, two workers. The peer is two
gloo processes with the same networks, loss, optimizers, averages, batch and threads on tensors in memory: no stream, no
metrics, no Ray. Both are run in turn, several rounds, and compared in steady state (medians). Then: the seconds from
the command to the first step, and what they were spent on.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from imagegen_dist import config
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import read_samples
from imagegen_dist.experiment import Experiment, build_networks
from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.gan import GAN
from imagegen_dist.presets import find_preset
from imagegen_dist.storage import Store

WORKERS = 2
ROOT = Path(__file__).parents[1]


class Loss(torch.nn.Module):
    """What DDP wraps: one network, the loss as forward."""

    def __init__(self, network: torch.nn.Module, loss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: Batch, draw: Draw) -> torch.Tensor:
        return self.loss(batch, draw)[0]


def bare_rank(rank: int, experiment: Experiment, data: str, meeting: str, steps: int, out: str) -> None:
    """A plain two-process loop; rank 0 writes its images a second, the first quarter left out."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(meeting, WORKERS), rank=rank, world_size=WORKERS)
    index = DatasetIndex.load(Store(data))
    pixels, labels = read_samples(index, Store(data), range(index.samples))
    pixels = pixels.float() / 127.5 - 1
    networks = build_networks(experiment, index.shape, index.labels)
    average = copy.deepcopy(networks["generator"])
    gan = GAN(networks["generator"], networks["discriminator"], experiment.objective)
    losses = {"discriminator": gan.discriminator_loss, "generator": gan.generator_loss}
    wrapped, adams = {}, {}
    for name, network in networks.items():
        for other in networks.values():
            other.requires_grad_(other is network)
        wrapped[name] = DistributedDataParallel(Loss(network, losses[name]))
        adams[name] = torch.optim.Adam(network.parameters(), 1e-3, betas=(0.0, 0.99), fused=True)
    generator = torch.Generator().manual_seed(rank)
    local = experiment.training.batch_size // WORKERS
    for step in range(steps):
        if step == steps // 4:
            began = time.perf_counter()
        for name, network in networks.items():
            for other in networks.values():
                other.requires_grad_(other is network)
            chosen = torch.randint(len(pixels), (local,), generator=generator)
            adams[name].zero_grad(set_to_none=True)
            wrapped[name](Batch(pixels[chosen], labels[chosen]), Draw(0, generator, step=step)).backward()
            adams[name].step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(networks["generator"].parameters()), 0.01)
    seconds = time.perf_counter() - began
    if rank == 0:
        counted = (steps - steps // 4) * experiment.training.batch_size
        Path(out).write_text(json.dumps(counted / seconds))
    dist.destroy_process_group()


def bare(experiment: Experiment, data: str, steps: int) -> float:
    """Images a second of the bare loop."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out"
        arguments = (experiment, data, f"{folder}/meeting", steps, out)
        torch.multiprocessing.spawn(bare_rank, arguments, nprocs=WORKERS)
        return json.loads(Path(out).read_text())


def whole(
    preset: str, changes: dict[str, str], storage: str, run: str
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Rows of metrics of the job, and the seconds at which its console's phases began."""
    words = [word for path, value in changes.items() for word in (f"--{path}", value)]
    command = [sys.executable, "-u", "jobs/train_gan.py", preset, "--storage", storage, "--run", run]
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, "--workers", str(WORKERS), *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    marks: dict[str, float] = {}
    for line in process.stdout:
        now = time.monotonic() - began
        for phase in ("starting Ray", "starting 2 workers", "building networks"):
            if phase in line:
                marks.setdefault(phase, now)
        if "img/s" in line:
            marks.setdefault("row", now)
    if process.wait():
        raise SystemExit(f"the job failed: see {storage}/{run}/driver.log")
    rows = [json.loads(line) for line in Path(storage, run, "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "system/images_per_s" in row], marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=19_200, help="images of one run")
    options = parser.parse_args()

    experiment = find_preset(options.preset).experiment
    batch = experiment.training.batch_size
    changes = {
        "training.total-images": str(options.images),
        "training.report-every": str(batch * 25),
        "training.sample-every": str(options.images),
        "training.checkpoint-every": str(options.images // 2),
        "evaluation.samples": "0",
    }
    experiment = config.overrides(experiment, changes.items())
    ours, peer, starts = [], [], []
    with tempfile.TemporaryDirectory() as storage:
        data = builtin_dataset("digits", "train", Store(storage) / ".data").url
        for number in range(options.rounds):
            rows, marks = whole(options.preset, changes, storage, f"run-{number}")
            steady = rows[len(rows) // 4 :]
            ours.append(len(steady) / sum(1 / row["system/images_per_s"] for row in steady))
            marks["first step"] = marks["row"] - (rows[0]["images"] - batch) / rows[0]["system/images_per_s"]
            starts.append(marks)
            peer.append(bare(experiment, data, options.images // batch))
            print(f"round {number + 1}: whole path {ours[-1]:,.0f}, bare loop {peer[-1]:,.0f} images/s", flush=True)

    print(f"\n{options.preset}, batch {batch}, {WORKERS} workers of one thread, torch {torch.__version__}")
    print("| | images/s (median of rounds) |\n|---|---|")
    print(f"| whole path: Ray Train, stream, loop, metrics | {statistics.median(ours):,.0f} |")
    print(f"| bare DDP loop on tensors in memory | {statistics.median(peer):,.0f} |")
    print(f"| ratio, median of rounds | {statistics.median(o / p for o, p in zip(ours, peer, strict=True)):.3f} |")

    ends = ["starting Ray", "starting 2 workers", "building networks", "first step"]
    names = [
        "importing, checking data and storage",
        "starting Ray",
        "starting the workers (processes, imports, process group)",
        "networks, first data, first step",
    ]
    print("\n| from command to first step | seconds (median) |\n|---|---|")
    before = [0.0] * len(starts)
    for name, end in zip(names, ends, strict=True):
        at = [marks[end] for marks in starts]
        print(f"| {name} | {statistics.median(a - b for a, b in zip(at, before, strict=True)):.1f} |")
        before = at
    print(f"| together | {statistics.median(marks['first step'] for marks in starts):.1f} |")


if __name__ == "__main__":
    main()
