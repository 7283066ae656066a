"""A source of one's own: pictures of circles that are drawn as they are read, `circles://N` for N of them."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from imagegen_dist.data.order import IntArray
from imagegen_dist.data.sources.base import Record, Records, Source, SourceFiles, listing_digest, register_source

SIDE = 28


@dataclass(frozen=True)
class Circles(Records):
    """Some of the pictures, by their numbers."""

    rows: tuple[int, ...]

    def read(self) -> Iterator[Record]:
        """Each as a PNG, labelled by its size: small or large."""
        for row in self.rows:
            random, label = np.random.default_rng(row), row % 2
            y, x = np.mgrid[:SIDE, :SIDE] - random.uniform(10, 18, size=(2, 1, 1))
            inside = x**2 + y**2 < (3 + 4 * label) ** 2
            data = io.BytesIO()
            Image.fromarray(inside.astype(np.uint8) * 255).save(data, "png")
            yield Record(f"circle {row}", label, data.getvalue())


@dataclass(frozen=True)
class CircleSource(Source):
    """All of them."""

    def select(self, rows: IntArray) -> Records:
        """The pictures with these numbers."""
        return Circles(tuple(rows.tolist()))


@register_source("circles://")
def open_circles(files: SourceFiles) -> Source:
    """circles://1000 has a thousand."""
    count = int(files.url.removeprefix("circles://"))
    labels, names = np.arange(count) % 2, ("small", "large")
    return CircleSource(files.url, count, listing_digest([files.url]), True, labels, 2, names)
