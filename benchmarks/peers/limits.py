"""What no contender can beat: decoding alone, reading alone. `python -m peers.limits JSON` measures one of them.

The images of one shard are in memory (decode), or all shards' members are read in random order from open files (read),
or all shards are fetched whole (fetch); passes are repeated for some seconds, after one that is not counted.
"""

import json
import os
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from imagegen_dist.data.modality import modality
from imagegen_dist.shape import SampleShape
from peers.clients import CLIENTS
from peers.contenders import decoder, members
from peers.pictures import EXTENSIONS, SIZES

Pass = Callable[[], int]


def decode(folder: Path, kind: str) -> Pass:
    """The package's own decoder, into a buffer of one batch, as the stream makes it, that is used again."""
    encoded, pictures = _first_shard(folder), modality("image")
    shape = SampleShape(3, (SIZES[kind], SIZES[kind]))
    out = np.empty((64, *shape.dims), np.uint8) if kind == "npy" else pictures.empty(64, shape)
    into, extension = pictures.decode_into, EXTENSIONS[kind]

    def once() -> int:
        for number, member in enumerate(encoded):
            into(member, extension, out[number % 64])
        return len(encoded)

    return once


def bare(folder: Path, name: str) -> Pass:
    """A decoder without anything around it: each call's own [H, W, C] array, dropped."""
    encoded, decoded = _first_shard(folder), decoder(name)

    def once() -> int:
        for member in encoded:
            decoded(member)
        return len(encoded)

    return once


def read(folder: Path) -> Pass:
    """pread of every member, in random order, from open files."""
    places = members_in_random_order(folder)

    def once() -> int:
        for place in places:
            os.pread(*place)
        return len(places)

    return once


def members_in_random_order(folder: Path) -> list[tuple[int, int, int]]:
    """(open file, size, offset) of every sample of a folder of shards."""
    places = []
    for path in sorted(folder.glob("*.tar")):
        file = os.open(path, os.O_RDONLY)
        with tarfile.open(path) as tar:
            places += [(file, member.size, member.offset_data) for member in tar]
    return [places[at] for at in np.random.default_rng(0).permutation(len(places))]


def fetch(folder: Path, client: str, bucket: str, target: str) -> Pass:
    """Every shard fetched whole to a local file."""
    base, get = folder.parents[2], CLIENTS[client](bucket)
    samples = sum(1 for _ in members(folder))
    keys = [f"{bucket}/{path.relative_to(base)}" for path in sorted(folder.glob("*.tar"))]

    def once() -> int:
        for key in keys:
            get(key, target)
        return samples

    return once


LIMITS: dict[str, Callable[..., Pass]] = {"decode": decode, "bare": bare, "read": read, "fetch": fetch}


def run(limit: str, began: float, folder: str, seconds: float, **arguments: Any) -> dict[str, Any]:
    """CPU and wall seconds an image."""
    once = LIMITS[limit](Path(folder), **arguments)
    once()
    images, cpu, wall = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - wall < seconds:
        images += once()
    return {
        "cpu_s_image": (time.process_time() - cpu) / images,
        "wall_s_image": (time.perf_counter() - wall) / images,
    }


def _first_shard(folder: Path) -> list[bytes]:
    first = min(folder.glob("*.tar"))
    with tarfile.open(first) as tar:
        return [file.read() for member in tar if (file := tar.extractfile(member))]


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
