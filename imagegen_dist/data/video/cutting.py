"""Which frames of a video make its clips: pure functions of the times at which frames are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.video.film import Shown, check_frame_count
from imagegen_dist.wording import counted

ALL = 0
"""As many clips as fit side by side."""

_ROUNDING = 1e-3  # share of a step by which time stamps are rounded, in containers that count milliseconds
_UNEVEN = 1.5  # gap between two frames, in usual gaps, from which a video's rate counts as variable


@dataclass(frozen=True)
class Cut:
    """How clips are cut. Raises ValueError for unusable values."""

    frames: int | None = None  # of a clip; None takes all frames of a video
    stride: int = 1  # take every stride-th frame
    fps: float | None = None  # take so many frames a second first; None takes each frame once
    clips: int = 1  # of a video, evenly spread; ALL for as many as fit side by side

    def __post_init__(self) -> None:
        for flag, value, least in (("frames", self.frames, 1), ("stride", self.stride, 1)):
            if value is not None and value < least:
                raise ValueError(f"--{flag} {value}: a number from {least}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"--fps {self.fps:g}: a rate above 0 and up to 1000 frames a second")
        if self.clips < 0:
            raise ValueError(f"--clips-per-video {self.clips}: a number from 1, or all")
        if self.frames is None and self.clips != 1:
            raise ValueError("--clips-per-video says how many clips of --frames are cut: give --frames as well")

    def clips_of(self, count: int, shown: Shown | None) -> list[list[int]]:
        """The numbers of the frames of each clip of a video with `count` frames. Raises DecodeError if it is too short.

        The same frame may come twice, where it is shown for longer than a step.
        """
        steps = steps_of(count, shown, self.fps)
        if self.frames is None:
            return [steps[:: self.stride]]
        span = (self.frames - 1) * self.stride + 1
        if len(steps) < span:
            found = counted(len(steps), "frame") + ("" if self.fps is None else f" at {self.fps:g} a second")
            clip = counted(self.frames, "frame") + ("" if self.stride == 1 else f" with --stride {self.stride}")
            raise DecodeError(f"has {found}: too few for a clip of {clip}")
        return [steps[start : start + span : self.stride] for start in _starts(len(steps), span, self.clips)]


def steps_of(count: int, shown: Shown | None, fps: float | None) -> list[int]:
    """The number of the frame at each step of time.

    With a rate, a step is 1 / fps and shows the frame that is on the screen then. Without one, a step is a frame; if
    the rate is variable, a step is as long as most frames are, so that motion keeps its speed.
    """
    if shown is None:
        return list(range(count))
    starts = np.array(shown.starts)
    gaps = np.diff(starts)
    usual = float(np.median(gaps)) if gaps.size else shown.end - shown.starts[0]
    if fps is None and (not gaps.size or usual <= 0 or gaps.max() < _UNEVEN * usual):
        return list(range(count))
    step = usual if fps is None else 1 / fps
    if step <= 0:
        return list(range(count))
    length = shown.end - shown.starts[0]
    number = max(1, int(np.floor(length / step + _ROUNDING)))
    check_frame_count(number)
    at = starts[0] + step * (np.arange(number) + _ROUNDING)
    return (np.searchsorted(starts, at, side="right") - 1).clip(0, count - 1).tolist()


def _starts(steps: int, span: int, clips: int) -> Sequence[int]:
    """The first step of each clip: in the middle for one, else from the beginning to the end, each at another step."""
    if clips == ALL:
        return range(0, steps - span + 1, span)
    if clips == 1:
        return [(steps - span) // 2]
    return np.unique(np.linspace(0, steps - span, clips).round().astype(int)).tolist()
