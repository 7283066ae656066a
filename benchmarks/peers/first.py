"""Time to the first batch of a dataset of very many shards, `python -m peers.first JSON`."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

SAMPLES = 2


def write_dataset(shards: int, folder: Path) -> None:
    """Small shards of two 64 × 64 PNGs, each of other bytes, and their index."""
    from imagegen_dist.data.index import build_index
    from imagegen_dist.storage import Store
    from peers.pictures import pictures, write_tar

    few = list(pictures("png", 64))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for shard in range(shards):
        chosen = (few[(shard + place) % len(few)] for place in range(SAMPLES))
        write_tar(folder / f"shard-{shard:06d}.tar", chosen, "png", f"{shard:06d}")
    build_index(Store(folder)).save(Store(folder))


def run(began: float, url: str, workers: int, cache: str) -> dict[str, Any]:
    """Seconds from the process's start until the imports, the index and the first batch of 64 are there."""
    from imagegen_dist.data.cache import CacheConfig
    from imagegen_dist.data.index import DatasetIndex
    from imagegen_dist.data.order import Plan, default_block
    from imagegen_dist.data.stream import StreamConfig, prepare_loaders, stream
    from imagegen_dist.storage import Store

    imported = time.time()
    store = Store(url)
    config = StreamConfig(workers=workers, cache=CacheConfig(directory=cache))
    prepare_loaders(store, config)
    index = DatasetIndex.load(store)
    loaded = time.time()
    plan = Plan(seed=0, microbatches=1, microbatch_size=64, draws=1, lanes=64, block=default_block(index.counts, 64))
    item = next(items := stream(index, store, plan, range(1), 0, 100, config))
    first = time.time()
    assert item.sample.shape[2] == 64
    items.close()
    return {
        "shards": len(index.shards),
        "imports_s": imported - began,
        "index_s": loaded - imported,
        "batch_s": first - loaded,
        "together_s": first - began,
    }


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
