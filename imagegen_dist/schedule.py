"""Values that change with the clock, images seen."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import cos, isfinite, pi
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """A cosine from `start` to `end` over the first `images` images, then `end` (arXiv:2501.05441, appendix).

    v(n) = end + (start - end) * (1 + cos(pi * n / images)) / 2 for n < images, else end; images = 0 is a constant.
    Written as a number (a constant), as "START:END:IMAGES", or as its three fields.
    """

    start: float
    end: float
    images: int = 0

    def __post_init__(self) -> None:
        if not (isfinite(self.start) and isfinite(self.end)) or self.images < 0:
            raise ValueError("a schedule needs finite values and images >= 0")
        # Equal schedules have one form, so that equal configurations have one fingerprint.
        object.__setattr__(self, "end", float(self.end))
        object.__setattr__(self, "start", float(self.start) if self.images else self.end)

    def __call__(self, images_seen: int) -> float:
        """The value at `images_seen`."""
        if images_seen >= self.images:
            return self.end
        return self.end + (self.start - self.end) * 0.5 * (1 + cos(pi * images_seen / self.images))

    @property
    def minimum(self) -> float:
        """The smallest value ever taken."""
        return min(self.start, self.end) if self.images else self.end

    @classmethod
    def from_json(cls, data: Any) -> Schedule:
        """Read a number, "START:END:IMAGES" or an object with the three fields. Raises ValueError otherwise."""
        if isinstance(data, dict):
            if not {"start", "end"} <= data.keys() <= {"start", "end", "images"}:
                raise ValueError("a schedule has the fields start, end and images")
            parts = [data["start"], data["end"], data.get("images", 0)]
        else:
            parts = data.split(":") if isinstance(data, str) else [data]
        if len(parts) not in (1, 3):
            raise ValueError("write NUMBER or START:END:IMAGES")
        values = [_number(part) for part in parts]
        if len(values) == 1:
            return constant(values[0])
        if not values[2].is_integer():
            raise ValueError(f"{parts[2]} is not a whole number of images")
        return cls(values[0], values[1], int(values[2]))

    def to_json(self) -> Any:
        """A number where the value never changes, else the three fields."""
        if self.images == 0:
            return self.end
        return {"start": self.start, "end": self.end, "images": self.images}

    def __str__(self) -> str:
        return f"{self.end:g}" if self.images == 0 else f"{self.start:g}:{self.end:g}:{self.images}"


def _number(data: Any) -> float:
    if not isinstance(data, bool) and isinstance(data, int | float | str):
        with suppress(ValueError):
            return float(data)
    raise ValueError("write NUMBER or START:END:IMAGES")


def constant(value: float) -> Schedule:
    """A schedule that never changes."""
    return Schedule(value, value)
