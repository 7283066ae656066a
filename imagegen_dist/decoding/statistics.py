"""Statistics of latents, and their quantisation to 8 bits.

A latent dataset contains uint8 arrays [Z, *s], like any other: a model trained on it sees values in [-1, 1], which are
(z - mean) / (span * std), per channel. latents.json beside the shards has the parameters of the inverse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from imagegen_dist.data.modality import to_float, to_uint8
from imagegen_dist.decoding.document import NAME, read_document, write_document
from imagegen_dist.storage import Store

_LARGEST_SPAN = 8.0


@dataclass(frozen=True)
class LatentStatistics:
    """Statistics of an autoencoder's latents over a dataset, without noise.

    mean, std: of each channel, over samples and positions. span: the largest distance from the mean in units of std, at
    most 8; values beyond are clamped. scale_factor: one over the standard deviation of all channels' values together,
    by which latent diffusion scales (arXiv:2112.10752, appendix). samples: number of samples.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    span: float
    scale_factor: float
    samples: int

    def store(self, z: Tensor) -> Tensor:
        """Quantise latents [B, Z, *s] to uint8; a step is span * std / 127.5."""
        mean, width = self._columns(z)
        return to_uint8((z - mean) / width)

    def restore(self, stored: Tensor) -> Tensor:
        """Stored latents uint8 [B, Z, *s] as the decoder takes them."""
        values = to_float(stored)
        mean, width = self._columns(values)
        return values * width + mean

    def save(self, store: Store) -> None:
        """Write latents.json without an origin. Raises StorageError."""
        write_document(store, self.payload())

    @classmethod
    def load(cls, store: Store) -> LatentStatistics:
        """Read latents.json. Raises ValueError if it is not one, FileNotFoundError, StorageError."""
        payload = read_document(store)
        try:
            return cls.from_payload(payload)
        except ValueError as error:
            raise ValueError(f"{store / NAME} is corrupt ({error})") from error

    def payload(self) -> dict[str, Any]:
        """JSON values from which `from_payload` makes equal statistics."""
        return asdict(self)

    @classmethod
    def from_payload(cls, payload: Any) -> LatentStatistics:
        """Statistics from JSON values. Raises ValueError with what is wrong."""
        try:
            known = {field.name: payload[field.name] for field in fields(cls)}
            return cls(**known | {name: tuple(map(float, known[name])) for name in ("mean", "std")})
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from error

    def columns(self, ndim: int) -> tuple[Tensor, Tensor]:
        """Each channel's mean, and the width of its values, span * std, as float32 [1, Z, 1, ...] of `ndim` axes."""
        shape = (1, -1, *(1 for _ in range(ndim - 2)))
        mean, std = (torch.tensor(values).reshape(shape) for values in (self.mean, self.std))
        return mean, std * self.span

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, width = self.columns(like.ndim)
        return mean.to(like), width.to(like)


def latent_statistics(latents: Iterable[Tensor]) -> LatentStatistics:
    """Statistics of batches of latents, [B, Z, *s] each, in one pass. A constant channel has std 1."""
    count = samples = 0
    total = squares = lowest = highest = torch.zeros(())
    for z in latents:
        values = z.double().transpose(0, 1).flatten(1).cpu()  # [Z, positions of all]
        low, high = values.amin(1), values.amax(1)
        first = samples == 0
        lowest, highest = (low, high) if first else (lowest.minimum(low), highest.maximum(high))
        total, squares = total + values.sum(1), squares + values.square().sum(1)
        count, samples = count + values.shape[1], samples + len(z)
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    std = torch.where(std > 1e-6, std, torch.ones_like(std))
    farthest = ((highest - mean) / std).maximum((mean - lowest) / std)
    deviation = sqrt(max(float((squares / count).mean() - mean.mean().square()), 1e-24))
    span = min(max(float(farthest.max()), 1.0), _LARGEST_SPAN)
    return LatentStatistics(tuple(mean.tolist()), tuple(std.tolist()), span, 1 / deviation, samples)


def codes_as_they_are(channels: int, samples: int) -> LatentStatistics:
    """For codes of finite scalar quantisation, which are in [-1, 1] already."""
    return LatentStatistics((0.0,) * channels, (1.0,) * channels, 1.0, 1.0, samples)
