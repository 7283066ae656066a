"""Where a training worker's time goes. For logging only: training does not depend on it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Seconds spent on steps, on waiting for data, and on pauses (evaluation, pictures, checkpoints).

    clock: seconds from any origin. `seconds` is the total time since the run's beginning, including earlier attempts.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds_before = 0.0
        self._begun = self._lap_began = clock()
        self._images = 0
        self._bytes = 0.0
        self._paused = self._waited = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the run's beginning, including earlier attempts."""
        return self._seconds_before + self._clock() - self._begun

    def start(self, images: int, seconds: float = 0.0) -> None:
        """Begin the first lap at `images` on the training clock, after `seconds` of earlier attempts."""
        self._seconds_before = seconds
        self._begun = self._lap_began = self._clock()
        self._images = images
        self._paused = self._waited = 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in the block does not count as training."""
        began = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - began

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with the time until each counted as waiting for data."""
        iterator = iter(items)
        while True:
            began = self._clock()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self._waited += self._clock() - began
            yield item

    def lap(self, images: int, data_bytes: float) -> dict[str, float]:
        """Speeds and fraction of time waiting since the last lap; data_bytes: read by all ranks since the first lap."""
        now = self._clock()
        trained = max(now - self._lap_began - self._paused, 1e-9)
        row = {
            "system/images_per_s": (images - self._images) / trained,
            "data/bytes_per_s": (data_bytes - self._bytes) / trained,
            "data/wait_fraction": min(self._waited / trained, 1.0),
        }
        self._lap_began, self._images, self._bytes = now, images, data_bytes
        self._paused = self._waited = 0.0
        return row
