"""Clips as .npy and as animated WebP without loss: their bytes, and how fast they are read.

Clips are parts of photographs over which the camera moves by one or two pixels a frame, and moving digits in grey. A
figure is what a second of CPU time reads, of one process.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import modality
from imagegen_dist.data.order import Plan
from imagegen_dist.data.pack import pack
from imagegen_dist.data.stream import StreamConfig, read_samples, stream
from imagegen_dist.storage import Store

CASES = {"8 × 32 × 32 × 1, digits": (8, 32, 1), "16 × 64 × 64 × 3": (16, 64, 3), "16 × 128 × 128 × 3": (16, 128, 3)}
_EPOCHS = {"npy": 30, "webp": 3}  # times that a dataset is read
_CLIPS, _BATCH = 64, 8


def formats_table(folder: Path, rounds: int) -> str:
    """A table in Markdown."""
    head = ["clips", "format", "kB each", "of npy", "decoding alone", "stream, 0 loaders", "MB/s read"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, dims in CASES.items():
        whole = 0.0
        for extension, epochs in _EPOCHS.items():
            place = folder / "clips" / f"{'x'.join(map(str, dims))}-{extension}"
            size = _dataset(place, extension, *dims)
            whole = whole or size
            found = [max(each(place, epochs) for _ in range(rounds)) for each in (_decoded, _streamed)]
            cells = [f"{size / 1e3:.0f}", f"{size / whole:.2f}", *(f"{rate:,.0f}/s" for rate in found)]
            lines.append(f"| {name} | {extension} | {' | '.join(cells)} | {found[1] * size / 1e6:,.0f} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def _decoded(place: Path, epochs: int) -> float:
    """Clips a CPU second that the decoder makes of bytes in memory."""
    index, kind = DatasetIndex.load(Store(place)), modality("video")
    out = np.empty(index.shape.dims, np.uint8)
    extension = place.name.rpartition("-")[2]
    clips = read_samples(index, Store(place), range(index.samples))[0].numpy()
    members = [kind.encode(clip, extension) for clip in clips]
    began = time.process_time()
    for member in members * epochs:
        kind.decode_into(member, extension, out)
    return len(members) * epochs / (time.process_time() - began)


def _streamed(place: Path, epochs: int) -> float:
    """Clips a CPU second that a stream reads from the local disk, without keeping any of them decoded."""
    index = DatasetIndex.load(Store(place))
    plan = Plan(seed=0, microbatches=1, microbatch_size=_BATCH, draws=1, lanes=1, block=2)
    config = StreamConfig(decoded_bytes=0)
    steps = epochs * index.samples // _BATCH
    items = stream(index, Store(place), plan, range(1), 0, steps + 1, config)
    next(items)  # opens the shards
    began = time.process_time()
    read = sum(item.id.numel() for item in items)
    return read / (time.process_time() - began)


def _dataset(folder: Path, extension: str, frames: int, side: int, channels: int) -> float:
    """Write a dataset, and return the bytes of a clip in its shards."""
    if not (folder / "index.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        made = _digits(folder.parent) if channels == 1 else _panned(frames, side)
        pack(((clip, None) for clip in made), Store(folder), "video", extension)
    index = DatasetIndex.load(Store(folder))
    return sum(shard.bytes for shard in index.shards) / index.samples


def _panned(frames: int, side: int) -> Iterator[np.ndarray]:
    """Clips [3, T, H, W] of a photograph of four times their side."""
    random = np.random.default_rng(0)
    for number in range(_CLIPS):
        source = (data.astronaut, data.coffee)[number % 2]()
        picture = np.asarray(Image.fromarray(source).resize((4 * side, 4 * side), Image.Resampling.LANCZOS))
        (top, left), (down, right) = random.integers(0, 3 * side - 2 * frames, 2), random.integers(1, 3, 2)
        parts = [picture[top + down * at :, left + right * at :][:side, :side] for at in range(frames)]
        yield np.ascontiguousarray(np.moveaxis(np.stack(parts), -1, 0))


def _digits(folder: Path) -> Iterator[np.ndarray]:
    place = builtin_dataset("moving-digits:640", "val", Store(folder / "digits"))
    yield from read_samples(DatasetIndex.load(place), place, range(_CLIPS))[0].numpy()
