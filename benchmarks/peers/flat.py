"""Whether memory and open files stay flat over many batches, `python -m peers.flat JSON`.

Small pictures, and a configuration that keeps reading: few decoded samples are kept, few shards stay open, and from S3
the cache holds less than half of the dataset, so that shards are evicted and fetched again all the time.
"""

import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

SHARDS, SHARD_SAMPLES, SIZE, BATCH = 64, 512, 16, 64


def write_dataset(folder: Path) -> None:
    """64 shards of 512 pictures of 16 × 16."""
    from PIL import Image

    from imagegen_dist.data.scanning import build_index
    from imagegen_dist.storage import Store
    from peers.pictures import write_tar

    random = np.random.default_rng(0)

    def encoded() -> Iterator[bytes]:
        for pixels in random.integers(0, 256, (SHARD_SAMPLES, SIZE, SIZE, 3), dtype=np.uint8):
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, "PNG", compress_level=1)
            yield out.getvalue()

    folder.mkdir(parents=True)
    for shard in range(SHARDS):
        write_tar(folder / f"shard-{shard:06d}.tar", encoded(), "png", f"{shard:06d}")
    build_index(Store(folder)).save(Store(folder))


def run(began: float, url: str, workers: int, cache: str, steps: int) -> dict[str, Any]:
    """Slope of the resident memory of all processes, least squares after the first tenth, and open files."""
    from peers.shard_stream import open_stream

    settings = {"workers": workers, "open_shards": 12, "decoded_bytes": 1 << 18}
    _, items = open_stream(url, cache, steps, lanes=4, block=2, cached_share=2 / 5, **settings)
    every, at, memory, files, fetched = max(1, steps // 200), [], [], [], 0
    for item in items:
        fetched += item.counters.get("fetched", 0)
        if item.step % every == 0:
            rss, opened = _usage()
            at.append(item.step), memory.append(rss / 1e6), files.append(opened)
    steady = [number for number, step in enumerate(at) if step >= steps // 10]
    slope = np.polyfit(np.array(at)[steady] / 1000, np.array(memory)[steady], 1)[0]
    return {
        "mb_per_1000": float(slope),
        "memory_mb": (memory[steady[0]], memory[-1]),
        "files": (files[steady[0]], max(files[steady[0] :]), files[-1]),
        "fetched_gb": fetched / 1e9,
        "seconds": time.time() - began,
    }


def _usage() -> tuple[int, int]:
    """(resident bytes, open files) of this process and of all below it."""
    this = psutil.Process()
    memory, files = this.memory_info().rss, this.num_fds()
    for child in this.children(recursive=True):
        memory, files = memory + child.memory_info().rss, files + child.num_fds()
    return memory, files


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
