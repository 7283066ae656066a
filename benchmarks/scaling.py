"""What N GPUs ask of S3, of a node's cache and of the network, and what binds: the tables of docs/SCALING.md.

    python -m benchmarks.scaling [--counts FILE]   # from the model of imagegen_dist.prediction
    python -m benchmarks.scaling --order          # measured here: order and index of 10^9 samples, 512 workers

--write puts the tables of the model into that page. --counts: counts of every preset's pass, which are read from that
file, or written there if it does not exist.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.prediction import ROOT, counts_of, forecast_of, replace_table
from imagegen_dist.data.index import INDEX_NAME, DatasetIndex, ShardInfo
from imagegen_dist.data.order import Order, Plan, default_block
from imagegen_dist.prediction.counting import StepCount
from imagegen_dist.prediction.gpus import MACHINES, Machine
from imagegen_dist.prediction.predict import Prediction
from imagegen_dist.presets import PRESETS
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store

WORKERS = (8, 64, 512)
MACHINE_NAMES = ("g6e.xlarge", "g6e.12xlarge", "p4d.24xlarge", "p5.48xlarge")
Counts = Mapping[str, StepCount]
_SHORT = {"GPU memory bandwidth": "bandwidth", "kernel launches": "launches"}
SAMPLES, SHARDS, RANKS = 10**9, 100_000, 512
FIRST_STEP, STEPS = 100_000, 1000


def presets() -> list[str]:
    """Those that are made for GPUs."""
    return [name for name, preset in PRESETS.items() if preset.experiment.training.compile]


def machine(name: str) -> Machine:
    return next(each for each in MACHINES if each.name == name)


def at(name: str, workers: int, place: Machine, counts: Counts) -> Prediction | None:
    """A preset on so many GPUs; None where its batch has fewer images.

    Microbatches are smaller where there are not enough of them, or where one does not fit.
    """
    found = forecast_of(name, counts[name], place.gpu)
    training = found.experiment.training
    size = min(training.microbatch_size, training.batch_size // workers)
    while size:
        experiment = replace(found.experiment, training=replace(training, microbatch_size=size))
        smaller = replace(found.in_passes_of(size), experiment=experiment)
        if smaller.fits(workers):
            return smaller.for_workers(workers).at(workers, place)
        size //= 2
    return None


def reading_rows(counts: Counts) -> Iterator[str]:
    """Bytes and requests a second of a run on p5.48xlarge: of S3 by all workers, of a node's cache by its own."""
    yield "| preset | images/s | S3, MB/s | S3, requests/s | a node's cache, MB/s | decoding, cores a GPU |"
    yield "|---|---|---|---|---|---|"
    place = machine("p5.48xlarge")
    for name in presets():
        found = [at(name, workers, place, counts) for workers in WORKERS]
        cells = (
            _cell(found, lambda each: each.images_per_s),
            _cell(found, lambda each: each.store_bytes_per_s / 1e6),
            _cell(found, lambda each: each.store_requests_per_s),
            _cell(found, lambda each: each.store_bytes_per_s / each.machines / 1e6),
            _cell(found, lambda each: each.cores),
        )
        yield f"| `{name}` | {' | '.join(cells)} |"


def network_rows(counts: Counts) -> Iterator[str]:
    """All-reduce against compute, and what binds."""
    yield "| preset | machine | work, ms a step | all-reduce, ms | of it not hidden, ms | of linear | binds |"
    yield "|---|---|---|---|---|---|---|"
    for name in presets():
        for place in map(machine, MACHINE_NAMES):
            alone = at(name, 1, place, counts)
            assert alone
            found = [at(name, workers, place, counts) for workers in WORKERS]
            cells = (
                _cell(found, lambda each: each.work_s * 1e3),
                _cell(found, lambda each: each.reduce_s * 1e3),
                _cell(found, lambda each: each.exposed_s * 1e3),
                _cell(found, partial(_of_linear, alone)) + " %",
                " / ".join(_SHORT.get(each.binds, each.binds) if each else "–" for each in found),
            )
            yield f"| `{name}` | {place.name} | {' | '.join(cells)} |"


def _cell(found: Sequence[Prediction | None], value: Callable[[Prediction], float]) -> str:
    return " / ".join("–" if each is None else _figure(value(each)) for each in found)


def _of_linear(alone: Prediction, found: Prediction) -> float:
    return 100 * found.images_per_s / found.workers / alone.images_per_s


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def big_index() -> DatasetIndex:
    """10^9 samples in 100,000 shards, of a size that differs from shard to shard."""
    sizes = np.random.default_rng(0).integers(9_000, 11_000, SHARDS)
    sizes[-1] += SAMPLES - sizes.sum()
    shards = tuple(
        ShardInfo(f"{number:06}.tar", int(size) * 12_800, int(size), number, hashlib.sha256(b"%d" % number).hexdigest())
        for number, size in enumerate(sizes)
    )
    return DatasetIndex("image", SampleShape(3, (64, 64)), shards, 1000)


def memory_mb() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def order_rows(folder: str) -> Iterator[str]:
    """One worker of 512, in a process of its own: its index, its first step, and the steps after it, in CPU time."""
    store, clock = Store(folder), time.process_time
    imported, began = memory_mb(), clock()
    index = DatasetIndex.load(store)
    loaded_s, loaded = clock() - began, memory_mb()
    began = clock()
    plan = Plan(0, RANKS, 8, 2, RANKS, default_block(index.counts, RANKS))
    order = Order(index.counts, plan)
    first = order.step(FIRST_STEP, range(7, 8))
    first_s, ordered = clock() - began, memory_mb()
    assert len(first.id) == plan.draws * plan.microbatch_size
    began = clock()
    for step in range(FIRST_STEP + 1, FIRST_STEP + 1 + STEPS):
        order.step(step, range(7, 8))
    step_s = (clock() - began) / STEPS
    yield "| one worker of 512, 10^9 samples in 100,000 shards | |"
    yield "|---|---|"
    yield f"| `index.json`, MB | {len(store.read(INDEX_NAME)) / 1e6:.1f} |"
    yield f"| loading it, CPU s | {loaded_s:.2f} |"
    yield f"| memory for it, MB | {loaded - imported:.0f} |"
    yield f"| order, from the index to a step in the middle of the run, CPU s | {first_s:.3f} |"
    yield f"| memory for it, MB | {ordered - loaded:.0f} |"
    yield f"| each further step of 2 × 8 samples, CPU ms | {step_s * 1e3:.3f} |"
    yield f"| memory of the whole process, MB | {memory_mb():.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--order", action="store_true")
    parser.add_argument("--of", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.of:
        print("\n".join(order_rows(options.of)))
    elif options.order:
        with tempfile.TemporaryDirectory() as folder:
            big_index().save(Store(folder))
            subprocess.run([sys.executable, "-m", "benchmarks.scaling", "--of", folder], check=True)
    else:
        counts = counts_of(presets(), options.counts)
        for rows in (reading_rows(counts), network_rows(counts)):
            if options.write:
                replace_table(ROOT / "docs" / "SCALING.md", rows)
            else:
                print("\n".join(rows), end="\n\n")


if __name__ == "__main__":
    main()
