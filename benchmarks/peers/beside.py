"""What stands beside reading and decoding in the data path. `python -m peers.beside JSON` measures it.

In one process, slices of three kinds in turn: batches of the stream, in the training process and without anything kept;
as many members read at random places of the open shards; as many read and decoded, into a new array for each batch. The
first epoch of the stream, in which shards are opened and their headers are walked, comes before. That slices take turns
lets every kind see the same state of the machine.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from imagegen_dist.data.modality import modality
from imagegen_dist.shape import SampleShape
from peers.limits import members_in_random_order
from peers.pictures import EXTENSIONS, SIZES
from peers.shard_stream import BATCH, open_stream

_EVICTING = 1 << 18  # bytes of decoded samples that are kept: fewer than a dataset has, so that none are


def run(began: float, folder: str, kind: str, batches: int, slices: int, cache: str) -> dict[str, Any]:
    """CPU seconds an image of each kind of slice, and quartiles of the stream's excess over the other two."""
    index, items = open_stream(folder, cache, 1_000_000, workers=0, decoded_bytes=_EVICTING)
    for _ in range(index.samples // BATCH + 1):
        next(items)
    places = cycle(members_in_random_order(Path(folder)))
    shape, pictures, extension = SampleShape(3, (SIZES[kind], SIZES[kind])), modality("image"), EXTENSIONS[kind]
    made = (lambda: np.empty((BATCH, *shape.dims), np.uint8)) if kind == "npy" else lambda: pictures.empty(BATCH, shape)
    held = made()

    def streamed() -> None:
        for _ in range(batches):
            next(items)

    def read() -> None:
        for _ in range(batches * BATCH):
            os.pread(*next(places))

    def decoded() -> None:
        nonlocal held
        for _ in range(batches):
            out = made()
            for at in range(BATCH):
                pictures.decode_into(os.pread(*next(places)), extension, out[at])
            held = out  # as a training step holds its batch while the next one is read

    rows = [[_cpu(each) / batches / BATCH for each in (streamed, read, decoded)] for _ in range(slices)]
    streams, reads, decodes = zip(*rows, strict=True)
    return {
        "stream": median(streams),
        "read": median(reads),
        "decode": median(decodes),
        "over_read": quantiles([ours / theirs for ours, theirs in zip(streams, reads, strict=True)], n=4),
        "beside": quantiles([ours - theirs for ours, theirs in zip(streams, decodes, strict=True)], n=4),
    }


def _cpu(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
