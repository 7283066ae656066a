"""What clients may ask: bodies with their limits, and the rows of a batch that they become."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from imagegen_dist.data.modality import array_to_stored
from imagegen_dist.inference.array_model import Floats, Stored
from imagegen_dist.inference.class_names import Class
from imagegen_dist.inference.sampling_request import SamplingRequest
from imagegen_dist.inference.told import Labels
from imagegen_dist.serving.served import Row, Served
from imagegen_dist.wording import counted

Format = Literal["png", "webp", "mp4", "glb", "npy"]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
Steps = Annotated[int, Field(ge=1, le=1000)]
"""Of a projection."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Weights = dict[str, Finite]

_MOST_LISTED = 4096
"""Entries of a list in a body; how many samples they may be together is checked beside the model."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    classes: list[int | str | Weights] = Field(default=[], max_length=_MOST_LISTED)
    """By number or name, or blends: the weight of each class in the embedding, {"3": 0.5, "7": 0.5}."""
    conditions: list[dict[str, Any]] = Field(default=[], max_length=_MOST_LISTED)
    """Values by part, {"digit": 7, "slant": 0.2}, of a model that is told conditions."""


class Generate(_Body):
    """Samples by seed, each with every class or condition, as `imagegen sample` makes them."""

    seeds: list[Seed] = Field(default=[0], min_length=1, max_length=_MOST_LISTED)
    truncation: float = Field(default=1.0, ge=0, le=1)
    format: Format = "png"
    columns: int = Field(default=0, ge=0, le=100)
    """Samples in a row of a picture; 0: one class or condition a column, else as many as rows."""
    scale: int = Field(default=1, ge=1, le=16)
    """Whole factor by which pictures are enlarged."""


class Decode(_Body):
    """Samples of latents, one of each. Latents are flat lists, of an autoencoder or of a GAN's noise."""

    latents: list[list[Finite]] = Field(min_length=1, max_length=_MOST_LISTED)
    format: Format = "png"
    columns: int = Field(default=0, ge=0, le=100)
    scale: int = Field(default=1, ge=1, le=16)


def rows_of(body: Generate | Decode, served: Served) -> list[Row]:
    """The rows that a body asks for. Raises ValueError for what this model does not have or take."""
    model = served.model
    classes = tuple(_as_class(each, model.told.class_names) for each in body.classes)
    seeds = tuple(body.seeds) if isinstance(body, Generate) else tuple(range(len(body.latents)))
    truncation = body.truncation if isinstance(body, Generate) else 1.0
    asked = SamplingRequest(seeds, classes, truncation, tuple(body.conditions)).resolved(model)
    if len(asked) > served.settings.most:
        raise ValueError(f"{counted(len(asked), 'sample')}: a request is for {served.settings.most} at most")
    asked.check(model)
    numbers = range(len(asked))
    label = asked.labels(model, numbers)
    if isinstance(body, Decode):
        z = _latents(body.latents, served.latent_dims)[[number // asked.columns for number in numbers]]
    else:
        z = model.latents_of(asked.seeds_of(numbers)) * np.float32(truncation)
    decoded = isinstance(body, Decode) and served.decodes
    return [Row(z[number], None if label is None else label[number], decoded) for number in numbers]


def columns_of(body: Generate | Decode, rows: int) -> int:
    """Samples in a row of a picture."""
    return body.columns or len(body.classes) or len(body.conditions) or max(1, round(rows**0.5))


def rows_of_bytes(body: bytes, served: Served, decoded: bool) -> list[Row]:
    """The rows of a body of float32: the latents of all samples, then the label weights or conditions of all.

    decoded: latents are an autoencoder's, not draws of the prior. Little-endian. Raises ValueError.
    """
    dims = served.latent_dims if decoded else served.model.drawn_dims
    z, label = _split(body, prod(dims), served)
    if decoded and not served.decodes:
        raise ValueError("a GAN has no latents of its own: leave decoded out")
    if not served.model.gaussian:
        z = z.clip(-1, 1)
    return [Row(each.reshape(dims), told, decoded) for each, told in zip(z, label, strict=True)]


def samples_of_bytes(body: bytes, served: Served) -> tuple[Stored, Labels | None]:
    """Samples as stored, [B, C, *S], and labels of a body of float32: all samples in [-1, 1], then all labels."""
    shape = served.model.shape
    x, label = _split(body, shape.numel, served)
    told = None if label[0] is None else np.stack([each for each in label if each is not None])
    return array_to_stored(x.reshape(-1, *shape.dims), shape.bits), told


def _split(body: bytes, size: int, served: Served) -> tuple[Floats, list[Labels | None]]:
    """The parts of each sample, [B, size] and [K] or None each. Raises ValueError."""
    width = served.model.told.width
    count, rest = divmod(len(body), 4 * (size + width))
    if rest or not 1 <= count <= served.settings.most:
        raise ValueError(
            f"a body has {size} and {width} float32 for each of 1 to {served.settings.most} samples, not "
            f"{counted(len(body), 'byte')}"
        )
    values = _numbers(body)
    first, second = values[: count * size].reshape(count, size), values[count * size :]
    return first, list(second.reshape(count, width)) if width else [None] * count


def _numbers(data: bytes) -> Floats:
    """Little-endian float32 as an array, [N]. Raises ValueError for numbers that are not finite."""
    values = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("latents, samples and weights are finite")
    return values


def stream_row(message: bytes, served: Served) -> tuple[bytes, Row]:
    """The number and the row of a stream's message: uint32, float32 latents, float32 label weights or conditions.

    All little-endian. Raises ValueError.
    """
    size, width = prod(served.latent_dims), served.model.told.width
    if len(message) != 4 * (1 + size + width):
        raise ValueError(f"a message has 4 bytes, {size} latents and {width} weights: {4 * (1 + size + width)} bytes")
    (row,) = rows_of_bytes(message[4:], served, served.decodes)
    return message[:4], row


def stream_message(number: int, z: ArrayLike, label: ArrayLike | None) -> bytes:
    """The message of a stream that asks for a sample; what `stream_row` reads. The arrays may be tensors."""
    parts = [z, *([] if label is None else [label])]
    return struct.pack("<I", number) + b"".join(np.asarray(part).astype("<f4").tobytes() for part in parts)


def _latents(rows: list[list[float]], dims: tuple[int, ...]) -> Floats:
    if wrong := next((row for row in rows if len(row) != prod(dims)), None):
        raise ValueError(f"latents of {len(wrong)} numbers: this model's have {prod(dims)} ({list(dims)})")
    return np.array(rows, np.float32).reshape(-1, *dims)


def _as_class(asked: int | str | Mapping[str, float], names: tuple[str, ...] | None) -> Class:
    """A class as JSON gives it: the keys of a blend are text, and digits are a number unless they are a name."""
    if isinstance(asked, Mapping):
        return {_as_key(key, names): weight for key, weight in asked.items()}
    return asked


def _as_key(key: str, names: tuple[str, ...] | None) -> int | str:
    return int(key) if key.isdecimal() and key not in (names or ()) else key
