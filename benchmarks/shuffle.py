"""How well orders shuffle, and what it costs: `python benchmarks/shuffle.py [--quick] [--folder DIR]`

An order is the sequence of sample ids of one epoch as the whole run takes them, global batch by global batch of 256.
With p(s, r) the place in it of row r of shard s, n samples in all, every shard as large as the others:

- distance: the mean over all shards s and rows r of |p(s, r + 1) - p(s, r)| / n, that is, how far apart in the epoch
  two samples come that lie next to each other in a shard. A uniform permutation has 1/3.
- near: the share of those pairs that are less than ten batches (2,560 places) apart.
- shards in a batch: the mean number of distinct shards in a batch of 256.
- shards held: the mean over the places of the order of the number of shards of which an earlier sample (or this one)
  has been read and a later one (or this one) is still to come: what a cache must hold for every shard to be fetched
  once. Part of a shard counts as a whole one. (Ours cuts a shard where two lanes meet, and holds it from the one lane's
  head to the other one's tail; a cache with less room fetches these few twice, one a lane.)

Ours is `Order` at some lanes and blocks. mosaicml-streaming's is its py1e at its defaults, on one node and on eight
nodes of eight ranks, by its own functions in its own environment. webdataset's is shardshuffle=100 and a buffer of
1,000 or 5,000 samples, with its own filter, in one process, and in 8 ranks of 4 loader processes, each with a buffer of
its own.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import webdataset
from numpy.typing import NDArray
from peers.environments import environment
from peers.server import measure

from imagegen_dist.data.order import Order, Plan, default_block

BATCH = 256
NEAR = 10 * BATCH
Ids = NDArray[np.int64]


def ours(shards: int, samples: int, lanes: int, block: int) -> Ids:
    """The first epoch; block 0: the default. Microbatches are no part of the order: one large one reads quickest."""
    block = block or default_block([samples] * shards, lanes)
    plan = Plan(seed=0, microbatches=1, microbatch_size=1 << 16, draws=1, lanes=lanes, block=block)
    order, total = Order(np.full(shards, samples), plan), shards * samples
    steps = [order.step(step, range(1)).id for step in range(-(-total // plan.microbatch_size))]
    return np.concatenate(steps)[:total]


def uniform(shards: int, samples: int) -> Ids:
    return np.random.default_rng(0).permutation(shards * samples)


def streaming(shards: int, samples: int, nodes: int, python: str, folder: Path) -> Ids:
    """mosaicml-streaming's order; eight ranks a node, two loader processes each."""
    path = folder / "order.npy"
    ranks = {"nodes": nodes, "ranks": 8, "workers": 2, "batch": BATCH}
    done = measure(
        "peers.streaming_order", {"shards": shards, "samples": samples, "path": str(path), **ranks}, {}, python
    )
    if "failed" in done:
        raise ValueError(done["failed"])
    return np.load(path)


def buffered(shards: int, samples: int, buffer: int, ranks: int, workers: int) -> Ids:
    """webdataset's order: every loader process shuffles its shards' names, then its samples in a buffer."""
    numbers = range(ranks * workers)
    streams = [_buffered_stream(range(at, shards, len(numbers)), samples, buffer, at) for at in numbers]
    ends = min(len(stream) for stream in streams) // (each := BATCH // ranks)
    stacked = np.stack([stream[: ends * each].reshape(ends, each) for stream in streams])
    # [rank, worker, batch, sample] -> a rank takes its loader processes in turn.
    return stacked.reshape(ranks, workers, ends, each).transpose(2, 1, 0, 3).ravel()


def _buffered_stream(shards: range, samples: int, buffer: int, seed: int) -> Ids:
    chosen = webdataset.shuffle(100, rng=random.Random(seed))(iter(shards))

    def rows() -> Iterator[int]:
        for shard in chosen:
            yield from range(shard * samples, (shard + 1) * samples)

    shuffled = webdataset.shuffle(buffer, initial=buffer, rng=random.Random(seed))(rows())
    return np.fromiter(shuffled, np.int64, len(shards) * samples)


def quality(order: Ids, shards: int, samples: int) -> tuple[float, float, float, float]:
    """(distance, near, shards in a batch, shards held) of an order; ids that it lacks are left out, -1 is padding."""
    order = order[order >= 0]
    total = order.size
    places = np.full(shards * samples, -1, np.int64)
    places[order] = np.arange(total)
    by_shard = places.reshape(shards, samples)
    known = (by_shard[:, 1:] >= 0) & (by_shard[:, :-1] >= 0)
    apart = np.abs(np.diff(by_shard, axis=1))[known]
    batches = np.sort(order[: total // BATCH * BATCH].reshape(-1, BATCH) // samples, axis=1)
    distinct = 1 + (np.diff(batches, axis=1) != 0).sum(axis=1)
    last = by_shard.max(axis=1)
    begun = np.where(by_shard < 0, total, by_shard).min(axis=1)
    held = (last - begun + 1)[last >= 0].sum() / total
    return float(apart.mean() / total), float((apart < NEAR).mean()), float(distinct.mean()), float(held)


def contenders(python: str | None, folder: Path, plans: list[tuple[int, int]]) -> dict[str, Callable[[int, int], Ids]]:
    """Title in the table -> the order for so many shards of so many samples."""
    found: dict[str, Callable[[int, int], Ids]] = {"uniform permutation": uniform}
    for lanes, block in plans:
        title = f"ours, lanes {lanes}, block {block or 'by default'}"
        found[title] = partial(ours, lanes=lanes, block=block)
    for nodes in (1, 8) if python else ():
        found[f"mosaicml-streaming py1e, nodes {nodes}"] = partial(streaming, nodes=nodes, python=python, folder=folder)
    for ranks, workers in ((1, 1), (8, 4)):
        for buffer in (1000, 5000):
            title = f"webdataset, processes {ranks * workers}, buffer {buffer:,}"
            found[title] = partial(buffered, buffer=buffer, ranks=ranks, workers=workers)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="640x500,10000x1000", help="SHARDSxSAMPLES of each dataset, comma-separated")
    parser.add_argument(
        "--plans", default="64x0,64x4,64x8,64x16,256x8,1x512", help="LANESxBLOCK of ours, comma-separated"
    )
    parser.add_argument("--folder", type=Path, help="keeps the peer's environment; else a temporary folder")
    parser.add_argument("--quick", action="store_true", help="the small dataset alone")
    options = parser.parse_args()
    sizes = ["640x500"] if options.quick else options.sizes.split(",")
    plans = [(int(lanes), int(block)) for lanes, block in (plan.split("x") for plan in options.plans.split(","))]

    with tempfile.TemporaryDirectory(prefix="imagegen-shuffle-") as temporary:
        folder = Path(options.folder or temporary).resolve()
        python = None
        try:
            python = environment("streaming", folder)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"mosaicml-streaming: not run: no environment: {error}")
        print(f"{time.strftime('%Y-%m-%d')}, python {' '.join(sys.argv)}")
        for shards, samples in ((int(a), int(b)) for a, b in (size.split("x") for size in sizes)):
            print(f"\n{shards:,} shards of {samples:,} samples, batches of {BATCH}:\n")
            print(f"| order | distance, of the epoch | near (< {NEAR:,}) | shards in a batch | shards held |")
            print("|---|---|---|---|---|")
            for title, order in contenders(python, folder, plans).items():
                distance, near, distinct, held = quality(order(shards, samples), shards, samples)
                print(f"| {title} | {distance:.4f} | {near:.2%} | {distinct:.1f} | {held:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
