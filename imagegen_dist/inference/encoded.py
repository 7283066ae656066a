"""A dataset's latents as a source of records: packed into shards as pictures are, one task per shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imagegen_dist.cpu_threads import torch_threads
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import modality
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import Record, Records, Source
from imagegen_dist.data.stream import read_samples
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.generated import Maker, model_of
from imagegen_dist.inference.latents import LatentStatistics, check_latents
from imagegen_dist.storage import PATIENCE_S, Store


def latents_of(
    model: AutoencoderModel, index: DatasetIndex, store: Store, rows: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """(latents [N, Z, *s], labels [N] or None) of a dataset's samples, by number. Raises ShardError.

    Number i plus the number of samples is sample i, mirrored along its last axis before it is encoded. Samples of other
    extents than the model was trained on are encoded in tiles.
    """
    samples, labels = read_samples(index, index.location(store), [row % index.samples for row in rows])
    mirrored = torch.tensor([row >= index.samples for row in rows])
    samples[mirrored] = samples[mirrored].flip(-1)
    encode = model.encode if model.encodes(index.shape) else model.encode_tiled
    return encode(samples, labels if model.label_width else None), labels


@dataclass(frozen=True)
class EncodedSource(Source):
    """The latents of a dataset, in its order; `place` is its URL.

    count: twice the number of its samples if all are mirrored as well, after the others.
    """

    maker: Maker = Maker("")
    statistics: LatentStatistics = LatentStatistics((), (), 1.0, 1.0, 0)
    remote_shards: bool = False  # allow its index to name shards outside its directory and siblings

    def select(self, rows: IntArray) -> Records:
        """The latents of these samples."""
        return _Encoded(self.place, self.maker, self.statistics, self.remote_shards, tuple(rows.tolist()))


@dataclass(frozen=True)
class _Encoded(Records):
    data: str
    maker: Maker
    statistics: LatentStatistics
    remote_shards: bool
    rows: tuple[int, ...]

    def read(self) -> Iterator[Record]:
        """Each latent as a shard holds it. Single-threaded, as samples are."""
        with torch_threads(1):
            model, store = check_latents(model_of(self.maker)), Store(self.data, PATIENCE_S)
            index = DatasetIndex.load(store, self.remote_shards).told_as(model.known)
            kind = modality(model.modality)
            for start in range(0, len(self.rows), model.batch):
                some = self.rows[start : start + model.batch]
                z, labels = latents_of(model, index, store, some)
                for at, latent in enumerate(self.statistics.store(z).cpu().numpy()):
                    name, data = f"sample {some[at]}", kind.encode(latent, "npy")
                    if index.conditions is not None and labels is not None:
                        condition = index.conditions.decode(labels[at].numpy())
                        yield Record(name, None, data, condition=condition)
                    else:
                        yield Record(name, None if labels is None else int(labels[at]), data)
