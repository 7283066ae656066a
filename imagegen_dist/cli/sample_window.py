"""Which intensities `imagegen sample` shows in pictures, films and meshes: those of `--window`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from imagegen_dist.drawing.window import windowed
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.model import Model

if TYPE_CHECKING:
    from imagegen_dist.cli.sample import Options


def parse_window(text: str) -> tuple[float, float] | None:
    """The values of black and white in LOW:HIGH; None for no text. Raises UsageError."""
    if not text:
        return None
    try:
        low, high = (float(each) for each in text.split(":"))
    except ValueError:
        low, high = 0.0, 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise UsageError(f"--window {text}: give LOW:HIGH, the intensities of black and white, e.g. 0:80")
    return low, high


def seen(model: Model, samples: Tensor | np.ndarray, options: Options) -> np.ndarray:
    """Samples of any shape as they are drawn: as stored, or uint8 between the two intensities of `--window`."""
    found = samples.cpu().numpy() if isinstance(samples, Tensor) else samples
    window = parse_window(options.window)
    if window is None:
        return found
    low, high = ((intensity - model.space.intercept) / model.space.slope for intensity in window)
    return windowed(found, low, high)
