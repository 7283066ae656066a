"""What a run on latents shows and measures: samples of the autoencoder's kind, beside the encoded dataset's."""

from __future__ import annotations

from dataclasses import dataclass

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetError, DatasetIndex
from imagegen_dist.data.stream import StreamConfig
from imagegen_dist.data.trust import check_public
from imagegen_dist.decoding.decoder import DecodingSampler, LatentDecoder
from imagegen_dist.decoding.document import Origin, read_origin
from imagegen_dist.objectives.interface import Sampler
from imagegen_dist.storage import Store


@dataclass(frozen=True)
class Decoding:
    """How a run's generated latents are evaluated.

    measures: whether metrics are of decoded samples, because the encoded datasets can be read; else they are of
    latents. Pictures are of decoded samples in any case.
    """

    decoder: LatentDecoder
    measures: bool

    def shown(self, sampler: Sampler) -> Sampler:
        """What pictures show of the samples of this sampler."""
        return DecodingSampler(sampler, self.decoder)

    def measured(self, sampler: Sampler) -> Sampler:
        """What metrics are of."""
        return self.shown(sampler) if self.measures else sampler


def open_pictures(latents: DatasetIndex, place: Store, reading: StreamConfig) -> Dataset:
    """The dataset that was encoded into the latents at `place`, with their conditions.

    Raises DatasetError if it cannot be found, or is no longer what was encoded; UntrustedPlaceError; StorageError.
    """
    origin = read_origin(place)
    if origin is None:
        raise DatasetError(f"{place} does not say what was encoded")
    check_public(origin.pictures)
    found = Dataset.open(origin.pictures, reading)
    if found.index.fingerprint != origin.fingerprint:
        raise DatasetError(f"{origin.pictures} has changed since it was encoded")
    return found.told_as(latents.known_conditions)


def origin_of(pictures: Store, index: DatasetIndex, autoencoder: str) -> Origin:
    """The origin of latents of a dataset. autoencoder: SHA-256 of the exported weights."""
    return Origin(autoencoder, pictures.url, index.fingerprint)
