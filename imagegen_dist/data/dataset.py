"""A dataset as the rest of the package handles it: its index, its shards, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.data.index import DatasetError, DatasetIndex
from imagegen_dist.data.stream import StreamConfig, read_labels, read_samples
from imagegen_dist.storage import PATIENCE_S, Store


@dataclass(frozen=True)
class Dataset:
    """An indexed dataset, where its shards are, and how they are read."""

    index: DatasetIndex
    store: Store
    reading: StreamConfig = field(default_factory=StreamConfig)

    @classmethod
    def open(cls, url: str, reading: StreamConfig | None = None) -> Dataset:
        """Load the index at `url`. Raises DatasetError."""
        reading = reading or StreamConfig()
        index = DatasetIndex.load(Store(url, PATIENCE_S), reading.allow_remote_shards)
        return cls(index, index.location(Store(url)), reading)

    def told_as(self, known: ConditionRows | None) -> Dataset:
        """The same dataset with conditions as those of another (`DatasetIndex.told_as`). Raises DatasetError."""
        try:
            return replace(self, index=self.index.told_as(known))
        except DatasetError as error:
            raise DatasetError(f"{self.store}: {error}") from error

    def read(self, ids: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Samples by their numbers: uint8 or uint16 [N, C, *S], and labels [N], conditions [N, K] or
        None. Raises ShardError."""
        return read_samples(self.index, self.store, ids, replace(self.reading, decoded_bytes=0))

    def labels(self, ids: Sequence[int]) -> Tensor | None:
        """Labels alone, as `read` returns them. Raises ShardError."""
        if self.index.labels is None:
            return None
        return torch.from_numpy(read_labels(self.index, self.store, ids, self.reading.cache))
