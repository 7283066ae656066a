"""Arrays of .npy files as videos: frames with or without channels, which may be the first, second or last axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from imagegen_dist.data.picture import DecodeError, Pixels
from imagegen_dist.data.video.film import Film, check_frame_count
from imagegen_dist.data.volumes.array import read_numbers

LAYOUTS = {"first": "CTHW", "second": "TCHW", "last": "THWC"}
"""Where the axis of the channels can be."""

_COUNTS = (1, 3, 4)  # of channels by which an axis is recognised
_AXES = 3


class ArrayFilm(Film):
    """An array [T, H, W], or with channels as `layout` says; "" recognises them by the lengths of the axes.

    Raises DecodeError for other types than uint8, and for an array whose axes are not clear.
    """

    def __init__(self, data: bytes, layout: str = "") -> None:
        values = read_numbers(data)
        if values.dtype != np.uint8:
            raise DecodeError(f"is an array of {values.dtype}: convert it to uint8, from 0 to 255")
        self._clip = _in_order(values, layout)
        self.count = self._clip.shape[1]
        check_frame_count(self.count)

    def frame_size(self) -> tuple[int, int]:
        """The last two axes."""
        return self._clip.shape[2], self._clip.shape[3]

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
        """The frames, [C, H, W] each."""
        for number in wanted:
            yield number, self._clip[:, number]


def _in_order(values: Pixels, layout: str) -> Pixels:
    """The array as [C, T, H, W]. Raises DecodeError."""
    if values.ndim == _AXES:
        return values[None]
    shape = list(values.shape)
    if values.ndim != _AXES + 1:
        raise DecodeError(f"is an array {shape}: a clip has the axes T, H, W, and may have C for channels")
    places = {name: axes.index("C") for name, axes in LAYOUTS.items()}
    fitting = [layout] if layout else [name for name, at in places.items() if shape[at] in _COUNTS]
    if len(fitting) != 1:
        raise DecodeError(
            f"is an array {shape}, of which it is not clear which axis is the channels': say so with --array-layout "
            f"{', '.join(places)} ({', '.join(LAYOUTS.values())})"
        )
    return np.moveaxis(values, places[fitting[0]], 0)
