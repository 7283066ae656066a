"""What is looked at while a model trains, and the samples that it is looked at on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import to_float
from imagegen_dist.data.stream import StreamConfig, read_samples
from imagegen_dist.storage import PATIENCE_S, Store

CHUNK = 50
"""Samples looked at at a time; their randomness depends on the chunk's number alone: any number of ranks, one value."""


class Evaluator(Protocol):
    """What is looked at while a kind of model trains."""

    # The figure by which the best checkpoint is kept.
    figure: str
    # The picture that the report shows through time, and what it is of.
    picture: str
    picture_note: str
    # Pictures that it shows once, each with its caption.
    more_pictures: Mapping[str, str]

    @property
    def column_labels(self) -> Mapping[str, Sequence[str]]:
        """Of pictures by name, what each column of samples is."""
        ...

    def figures(self) -> dict[str, float]:
        """Figures by plain name; called on every rank, equal on all of them; empty where none can be taken."""
        ...

    def pictures(self) -> dict[str, tuple[np.ndarray, int]]:
        """By name, samples uint8 [N, C, *S] and in how many columns they are shown; called on rank 0."""
        ...

    def copies(self) -> Copies | None:
        """Whether the model repeats training samples, once it is trained; None where that is not asked for.

        Called on rank 0, after `figures`.
        """
        ...


class Copies(NamedTuple):
    """What was found of a model that may repeat its training data.

    figures: "authenticity", the share of samples that lie further from the nearest training sample than that one from
    the next (arXiv:2102.08921); and with held-out samples theirs as "authenticity_real", and "copying_z", far below 0
    where samples lie nearer to the training data than held-out ones do (arXiv:2004.05675), "copied", "copied_real" and
    "copied_z", by which copies are told, and "farther", by which samples off the data are (metrics/copying.py).
    samples: of a picture, uint8 [N, C, *S], in rows of `columns`. captions: what stands under each of them.
    """

    figures: dict[str, float]
    samples: np.ndarray
    columns: int
    captions: list[str]


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

    def read(self, ids: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Samples by their numbers: uint8 [N, C, *S], and labels [N] or None. Raises ShardError."""
        return read_samples(self.index, self.store, ids, replace(self.reading, decoded_bytes=0))


def batches(dataset: Dataset, device: torch.device, size: int = 250) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The whole dataset once, in the order of its shards: [B, C, *S] in [-1, 1] and labels."""
    for start in range(0, dataset.index.samples, size):
        sample, label = dataset.read(range(start, min(start + size, dataset.index.samples)))
        yield to_float(sample.to(device)), None if label is None else label.to(device)
