"""The order in which mosaicml-streaming reads an epoch: in its environment, `python -m peers.streaming_order JSON`."""

import json
import sys
from typing import Any

import numpy as np


def run(
    began: float, shards: int, samples: int, nodes: int, ranks: int, workers: int, batch: int, path: str
) -> dict[str, Any]:
    """Save the ids of an epoch, batch by batch over all ranks, by the defaults of `StreamingDataset(shuffle=True)`.

    Its defaults: algorithm py1e, partition relaxed, as many canonical nodes as nodes, seed 9176, and a block of
    max(4,000,000 // canonical nodes, 2^18) samples. Padding is -1.
    """
    from streaming.base.partition import get_partitions
    from streaming.base.shuffle import get_shuffle

    sizes = np.full(shards, samples, np.int64)
    block = max(4_000_000 // nodes, 1 << 18)
    shuffled = get_shuffle("py1e", sizes, nodes, 9176, 0, block)
    each = batch // (nodes * ranks)
    parts = get_partitions("relaxed", shards * samples, nodes, nodes, ranks, workers, each)
    # [node, rank, worker, batch, sample] -> batches in the order of the run: a loader takes its workers in turn.
    places = parts.transpose(3, 2, 0, 1, 4).ravel()
    np.save(path, np.where(places < 0, -1, shuffled[places]))
    return {"block": block, "canonical_nodes": nodes}


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
