"""Latents as a dataset: their statistics, and their quantisation to 8 bits.

A latent dataset contains uint8 arrays [Z, *s], like any other: a model trained on it sees values in [-1, 1], which are
(z - mean) / (span * std), per channel. latents.json beside the shards has the parameters of the inverse.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import sqrt

import torch
from torch import Tensor

from imagegen_dist.data.modality import to_float, to_uint8
from imagegen_dist.documents import parse_json
from imagegen_dist.inference.model import AutoencoderModel, Model
from imagegen_dist.storage import Store

NAME = "latents.json"

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
        """Write latents.json. Raises StorageError."""
        store.write(NAME, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, store: Store) -> LatentStatistics:
        """Read latents.json. Raises ValueError if it is not one, FileNotFoundError, StorageError."""
        text = store.read(NAME)
        try:
            payload = parse_json(text)
            return cls(**payload | {name: tuple(map(float, payload[name])) for name in ("mean", "std")})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{store / NAME} is corrupt ({error})") from error

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1, *(1 for _ in like.shape[2:]))
        mean, std = (like.new_tensor(values).reshape(shape) for values in (self.mean, self.std))
        return mean, std * self.span


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


def check_latents(model: Model) -> AutoencoderModel:
    """The model as an autoencoder whose latents can form a dataset. Raises ValueError."""
    if not isinstance(model, AutoencoderModel):
        raise ValueError("a GAN has no encoder: give the checkpoint of an autoencoder")
    dims = model.autoencoder.group_dims
    if len(dims) > 1 or len(dims[0]) == 1:
        said = "of several levels" if len(dims) > 1 else f"a vector of {dims[0][0]}"
        raise ValueError(f"its latents are {said}: a dataset needs maps, as those of resvae (presets kl-f8, fsq-f8)")
    return model
