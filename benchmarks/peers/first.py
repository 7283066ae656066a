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
    from imagegen_dist.data.scanning import build_index
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
    from peers.shard_stream import open_stream

    imported = time.time()
    index, items = open_stream(url, cache, 100, workers=workers)
    loaded = time.time()
    item = next(items)
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
