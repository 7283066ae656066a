"""Real samples for evaluation, a chunk at a time, read in blocks: to open shards costs more than a chunk's pixels."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from imagegen_dist.evaluation.evaluator import CHUNK, Dataset

_BLOCK_BYTES = 64 << 20


def chunks_of(ids: range, size: int = CHUNK) -> Iterator[range]:
    """Numbers of samples, so many at a time."""
    for start in range(ids.start, ids.stop, size):
        yield range(start, min(start + size, ids.stop))


def read_chunks(dataset: Dataset, ids: range) -> Iterator[tuple[range, Tensor]]:
    """Numbers and samples uint8 [B, C, *S] of a chunk after the other. Raises ShardError."""
    for block in chunks_of(ids, CHUNK * max(1, _BLOCK_BYTES // (CHUNK * dataset.index.shape.numel))):
        samples, _ = dataset.read(block)
        for chunk in chunks_of(block):
            yield chunk, samples[chunk.start - block.start : chunk.stop - block.start]
