"""Rates of samples that are arrays: volumes, and clips in .npy members.

A figure is what a second of CPU time, of the process and of its loader processes, reads: the decoder alone on bytes in
memory, and a stream from the local disk that decodes every sample anew.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

CASES = {
    "32³, 8 bits": ("voxels", (1, 32, 32, 32), np.uint8),
    "64³, 8 bits": ("voxels", (1, 64, 64, 64), np.uint8),
    "64³, 16 bits": ("voxels", (1, 64, 64, 64), np.uint16),
    "128³, 16 bits": ("voxels", (1, 128, 128, 128), np.uint16),
    "clips 16 × 64 × 64 × 3": ("video", (3, 16, 64, 64), np.uint8),
}
_DATASET_BYTES = 32 << 20
_BATCH = 4
_SHORT, _LONG = 4, 64  # times that a dataset is read


def rates_table(folder: Path, rounds: int) -> str:
    """A table in Markdown."""
    lines = ["| samples | MB each | decoding alone | 0 loaders | 2 loaders |", "|---|---|---|---|---|"]
    for name, (modality, dims, kind) in CASES.items():
        place, size = _dataset(
            folder / "arrays" / modality / f"{'x'.join(map(str, dims))}-{kind.__name__}", *CASES[name]
        )
        best = [max(_rate(measure) for _ in range(rounds)) for measure in _measures(place)]
        cells = [f"{each:,.0f}/s, {each * size / 1e6:,.0f} MB/s" for each in best]
        lines.append(f"| {name} | {size / 1e6:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _dataset(folder: Path, modality: str, dims: tuple[int, ...], kind: type) -> tuple[Path, int]:
    """(the dataset's folder, bytes of a sample)."""
    from imagegen_dist.data.pack import pack
    from imagegen_dist.storage import Store

    size = int(np.prod(dims)) * np.dtype(kind).itemsize
    if not (folder / "index.json").exists():
        random = np.random.default_rng(0)
        samples = (random.integers(0, np.iinfo(kind).max, dims, dtype=kind) for _ in range(_DATASET_BYTES // size))
        pack(((sample, None) for sample in samples), Store(folder), modality, "npy", shard_bytes=16 << 20)
    return folder, size


def _measures(place: Path) -> list[Callable[[int], int]]:
    """Functions that read the dataset so many times and return the number of samples."""
    from imagegen_dist.data.dataset import Dataset
    from imagegen_dist.data.index import DatasetIndex
    from imagegen_dist.data.modality import modality
    from imagegen_dist.data.order import Plan
    from imagegen_dist.data.stream import StreamConfig, stream
    from imagegen_dist.storage import Store

    index = DatasetIndex.load(Store(place))
    kind = modality(index.modality)
    samples = Dataset.open(str(place)).read(range(index.samples))[0].numpy()
    members, out = [kind.encode(sample, "npy") for sample in samples], np.empty_like(samples)

    def decode(epochs: int) -> int:
        for _ in range(epochs):
            for number, member in enumerate(members):
                kind.decode_into(member, "npy", out[number])
        return epochs * index.samples

    def read(loaders: int) -> Callable[[int], int]:
        def measure(epochs: int) -> int:
            plan = Plan(seed=0, microbatches=1, microbatch_size=_BATCH, draws=1, lanes=1, block=2)
            steps = epochs * index.samples // _BATCH
            config = StreamConfig(workers=loaders, decoded_bytes=0)
            return sum(item.id.numel() for item in stream(index, Store(place), plan, range(1), 0, steps, config))

        return measure

    return [decode, read(0), read(2)]


def _rate(measure: Callable[[int], int]) -> float:
    """Samples in a second of CPU time, of a long run less a short one, which has the same start."""
    measure(1)
    marks, counts = [_cpu_s()], []
    for epochs in (_SHORT, _LONG):
        counts.append(measure(epochs))
        marks.append(_cpu_s())
    return (counts[1] - counts[0]) / ((marks[2] - marks[1]) - (marks[1] - marks[0]))


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
