"""A model as a server uses it: NumPy arrays in and out, whatever computes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.modality import drawing_of
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.drawing.views import Drawing
from imagegen_dist.inference.told import Labels, Told
from imagegen_dist.shape import SampleShape

Floats = NDArray[np.float32]
Stored = NDArray[Any]
"""Samples, uint8 or uint16 [B, C, *S]."""


class ArrayModel(ABC):
    """encodes: true for an autoencoder. shape: of one sample. modality, images: as those of a `Model`. told: what it is
    told about each sample. space: what the grid of volumes stands for. drawn_dims, latent_dims: the shapes of a draw of
    the prior, and of what decoding takes. gaussian: the prior is N(0, I). searches: a page can find pictures in it.
    engine, device: what computes, in a word."""

    encodes: bool
    shape: SampleShape
    modality: str
    images: int
    told: Told
    space: VolumeSpace | None
    drawn_dims: tuple[int, ...]
    latent_dims: tuple[int, ...]
    gaussian: bool
    searches: bool
    engine: str
    device: str

    @property
    def drawing(self) -> Drawing:
        """How its samples are drawn."""
        return drawing_of(self.modality, self.space)

    @abstractmethod
    def latents_of(self, seeds: Sequence[int]) -> Floats:
        """The draw of the prior of each seed, [N, *drawn_dims]: the noise of the sample with index 0."""

    @abstractmethod
    def generate(self, drawn: Floats, label: Labels | None = None) -> Stored:
        """Draws of the prior -> samples. label: as `told` gives it. Raises ValueError for what it cannot take."""

    @abstractmethod
    def decode(self, z: Floats, label: Labels | None = None) -> Stored:
        """Latents [B, *latent_dims] -> samples. Raises as `generate`."""

    @abstractmethod
    def encode(self, samples: Stored, label: Labels | None = None) -> Floats:
        """Samples -> latents without noise. Raises as `generate`, and for a GAN."""

    @abstractmethod
    def page(self, url: str) -> dict[str, Any]:
        """What a page shows of it (`web_document.describe_model`); {} if a page cannot steer it."""
