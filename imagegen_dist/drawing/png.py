"""Pictures as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

FRAME_MS = 125
"""Milliseconds for which a frame is shown, where nothing else is asked for."""


def save_png(frames: Sequence[Image.Image]) -> bytes:
    """A PNG, which repeats its frames endlessly if there are several."""
    target = io.BytesIO()
    if len(frames) == 1:
        frames[0].save(target, "PNG", optimize=True)
    else:
        frames[0].save(target, "PNG", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    return target.getvalue()
