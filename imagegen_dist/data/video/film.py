"""A video as its readers hand it out: how many frames it has, when each is shown, and the pictures of some of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image

from imagegen_dist.data.picture import DecodeError, Pixels, times

MAX_FRAME_PIXELS = 1 << 26
"""Positions of a frame above which a video is refused without decoding: 8K has half as many."""

MAX_FRAMES = 1 << 20
"""Frames above which a video is refused: ten hours of 30 a second."""

Frame = Image.Image | Pixels
"""A frame: a picture of mode L, RGB or RGBA, or values [C, H, W] of any number of channels."""


class Shown(NamedTuple):
    """When the frames of a video are shown, in seconds."""

    starts: tuple[float, ...]  # of each frame, ascending
    end: float  # of the last frame


class Film(ABC):
    """An opened video. count: number of frames; shown: None without times."""

    count: int
    shown: Shown | None = None

    @abstractmethod
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of the upright frames. Raises DecodeError."""

    @abstractmethod
    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Decode frames by number, ascending and without repetition: (number, frame). Raises DecodeError."""


def check_frame_size(height: int, width: int) -> None:
    """Raise DecodeError for an empty or huge frame, before one is decoded."""
    if min(height, width) < 1:
        raise DecodeError(f"has frames of {times((height, width))}: they have no pixels")
    if height * width > MAX_FRAME_PIXELS:
        raise DecodeError(f"has frames of {times((height, width))}: at most {MAX_FRAME_PIXELS:,} pixels are allowed")


def check_frame_count(count: int) -> None:
    """Raise DecodeError for a video without frames, or with implausibly many."""
    if count < 1:
        raise DecodeError("has no frames")
    if count > MAX_FRAMES:
        raise DecodeError(f"has {count:,} frames: at most {MAX_FRAMES:,} are allowed")
