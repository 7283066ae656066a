"""The data path of one checkout, a slice at a time: `PYTHONPATH=CHECKOUT python -m peers.paired URL CACHE`.

Each line on standard input is a number of batches to read; the answer is the CPU seconds that they took. Two such
processes of two checkouts that take turns see the same state of the machine, so that their ratio is steadier than
either figure.
"""

import sys
import time
from collections.abc import Iterator

BATCH = 64


def batches(url: str, cache: str) -> Iterator[int]:
    """Steps of a stream without end. A cache of two fifths of the dataset keeps fetching where it is remote."""
    from imagegen_dist.data.cache import CacheConfig
    from imagegen_dist.data.index import DatasetIndex
    from imagegen_dist.data.order import Plan, default_block
    from imagegen_dist.data.stream import StreamConfig, stream
    from imagegen_dist.storage import Store

    store = Store(url)
    index = DatasetIndex.load(store)
    limit = sum(shard.bytes for shard in index.shards) * 3 // 5
    plan = Plan(0, microbatches=1, microbatch_size=BATCH, draws=1, lanes=2, block=default_block(index.counts, 2))
    # No decoded samples are kept: every batch is read and decoded anew.
    config = StreamConfig(workers=0, decoded_bytes=1 << 18, cache=CacheConfig(directory=cache, limit_bytes=limit))
    for item in stream(index, store, plan, range(1), 0, 1_000_000, config):
        yield item.sample[0, 0].shape[0]


def main() -> None:
    endless = batches(*sys.argv[1:3])
    for line in sys.stdin:
        began = time.process_time()
        for _ in range(int(line)):
            next(endless)
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
