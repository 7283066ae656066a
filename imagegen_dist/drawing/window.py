"""Values of 16 bits as pictures of 8, by a window of levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def eight_bits(samples: NDArray) -> NDArray[np.uint8]:
    """Samples uint16 of any shape -> uint8, the whole range; those of uint8 are returned as they are."""
    return samples if samples.dtype == np.uint8 else ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def windowed(samples: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    """Samples uint8 or uint16 of any shape -> uint8: the level `low` and below are black, `high` and above white."""
    scaled = (samples.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
