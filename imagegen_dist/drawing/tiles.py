"""Tiles in rows on a white page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from imagegen_dist.drawing.window import eight_bits

_MIN_TILE_PIXELS = 72
_CAPTION_PIXELS = 14
_GAP = 2

Pixels = NDArray[np.uint8]


def shown(samples: Pixels) -> Pixels:
    """Samples as grey or RGB of 8 bits, [N, 1 or 3, *S]. Four channels are RGBA, which is drawn on white."""
    samples = eight_bits(samples)
    if samples.shape[1] == 4:
        colours, alpha = samples[:, :3].astype(np.uint32), samples[:, 3:].astype(np.uint32)
        return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return samples[:, :3] if samples.shape[1] >= 3 else samples[:, :1]


def readable_scale(side: int) -> int:
    """The whole factor that makes a tile with this longest side large enough to see."""
    return max(1, math.ceil(_MIN_TILE_PIXELS / side))


def grid(tiles: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()) -> Image.Image:
    """Tiles, uint8 [N, 1 or 3, H, W], in rows with gaps between them, and a caption below each.

    scale: whole factor by which each is enlarged without smoothing; None makes small ones readable.
    """
    count, channels, height, width = tiles.shape
    scale = scale or readable_scale(max(height, width))
    rows, below = -(-count // columns), _CAPTION_PIXELS if captions else 0
    tall, wide = height * scale + below, width * scale
    page = np.full((rows * (tall + _GAP) - _GAP, columns * (wide + _GAP) - _GAP, channels), 255, np.uint8)
    enlarged = np.moveaxis(tiles, 1, -1).repeat(scale, axis=1).repeat(scale, axis=2)
    corners = [(number % columns * (wide + _GAP), number // columns * (tall + _GAP)) for number in range(count)]
    for tile, (left, top) in zip(enlarged, corners, strict=True):
        page[top : top + tall - below, left : left + wide] = tile
    picture = Image.fromarray(page[..., 0] if channels == 1 else page)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(_CAPTION_PIXELS - 2) if captions else None
    for caption, (left, top) in zip(captions, corners, strict=False):
        black = 0 if channels == 1 else (0, 0, 0)
        pen.text((left + wide / 2, top + tall - below), caption, black, font, anchor="ma")
    return picture
