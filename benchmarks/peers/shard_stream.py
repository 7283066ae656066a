"""This package's stream over a dataset's shards, as the benchmarks of the data path open it."""

from collections.abc import Generator
from typing import Any

from imagegen_dist.data.cache import CacheConfig
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.order import Plan, default_block
from imagegen_dist.data.stream import StreamConfig, prepare_loaders, stream
from imagegen_dist.storage import Store

BATCH = 64


def open_stream(
    url: str, cache: str, steps: int = 0, lanes: int = 64, block: int = 0, cached_share: float = 0.0, **settings: Any
) -> tuple[DatasetIndex, Generator[Any, None, None]]:
    """The index, and the items of so many batches of 64, of one epoch by default. Reading begins with the first item.

    cached_share: of the dataset's bytes that the cache holds; 0: all. settings: of StreamConfig.
    """
    store = Store(url)
    config = StreamConfig(cache=CacheConfig(directory=cache), **settings)
    prepare_loaders(store, config)
    index = DatasetIndex.load(store)
    if cached_share:
        limit = int(sum(shard.bytes for shard in index.shards) * cached_share)
        config = StreamConfig(cache=CacheConfig(directory=cache, limit_bytes=limit), **settings)
    block = block or default_block(index.counts, lanes)
    plan = Plan(0, microbatches=1, microbatch_size=BATCH, draws=1, lanes=lanes, block=block)
    return index, stream(index, store, plan, range(1), 0, steps or index.samples // BATCH, config)
