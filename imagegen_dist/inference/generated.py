"""Samples of a model as a source of records: packed into shards as pictures are, one task per shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from imagegen_dist.cpu_threads import torch_threads
from imagegen_dist.data.modality import modality
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import Record, Records, Source
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.engines import EngineName, use_engine_
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.inference.sampling_request import SamplingRequest
from imagegen_dist.storage import PATIENCE_S, Store


@dataclass(frozen=True)
class Maker:
    """A model by URL, and how it computes: what a task on another machine needs."""

    url: str
    device: str = "cpu"
    engine: EngineName = "eager"
    batch: int = 8


@dataclass(frozen=True)
class GeneratedSource(Source):
    """The requested samples, in order; `place` is the checkpoint or exported folder."""

    maker: Maker = Maker("")
    asked: SamplingRequest = SamplingRequest(())

    def select(self, rows: IntArray) -> Records:
        """The samples with these numbers, ascending, and with only their seeds, since sources are sent to tasks."""
        first, last = rows[0] // self.asked.columns, rows[-1] // self.asked.columns
        asked = replace(self.asked, seeds=self.asked.seeds[first : last + 1])
        return _Generated(self.maker, asked, tuple((rows - first * self.asked.columns).tolist()))


@dataclass(frozen=True)
class _Generated(Records):
    maker: Maker
    asked: SamplingRequest
    rows: tuple[int, ...]

    def read(self) -> Iterator[Record]:
        """Each sample as a shard holds it. Single-threaded, so that the bytes do not depend on the machine."""
        with torch_threads(1):
            model = model_of(self.maker)
            kind, extension = modality(model.modality), sample_extension(model)
            for start in range(0, len(self.rows), model.batch):
                some = self.rows[start : start + model.batch]
                label = self.asked.label(model, some)
                samples = model.generate(self.asked.drawn(model, some), label, self.asked.truncation).cpu().numpy()
                for at, (row, sample) in enumerate(zip(some, samples, strict=True)):
                    name = f"the sample of seed {self.asked.seeds[row // self.asked.columns]}"
                    condition = None
                    if model.conditions is not None and label is not None:
                        condition = model.conditions.decode(label[at].numpy())
                    data = kind.encode(sample, extension)
                    yield Record(name, self.asked.class_of(model, row), data, condition=condition)


def sample_extension(model: GeneratorModel | AutoencoderModel) -> str:
    """Lossless storage format of a sample: PNG for a picture of 8 bits with 1 or 3 channels, else an array."""
    is_plain = model.modality == "image" and model.shape.channels in (1, 3) and model.shape.bits == 8
    return "png" if is_plain else "npy"


@lru_cache(maxsize=1)
def model_of(maker: Maker) -> GeneratorModel | AutoencoderModel:
    """The model, which a process caches for its next task."""
    model = build_model(read_trained(Store(maker.url, PATIENCE_S))).to(maker.device)
    model.batch = maker.batch
    use_engine_(model, maker.engine, threads=1)
    return model
