"""The draws of a model's prior from the noise of seeds, in NumPy: bit for bit those of the model in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.noise import check_seed, normals, uniforms

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prior:
    """dims: of a draw. streams: values that each stream of the standard normal noise gives it, in their order; or
    levels: of each channel of codes, which are drawn uniformly. Raises ValueError if these do not fit together."""

    dims: tuple[int, ...]
    streams: tuple[int, ...] = ()
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.levels:
            fits = not self.streams and len(self.levels) == self.dims[0] and min(self.levels) > 1
        else:
            fits = sum(self.streams) == prod(self.dims) and min(self.streams, default=0) > 0
        if not fits:
            raise ValueError(f"prior of {list(self.dims)}: streams {list(self.streams)}, levels {list(self.levels)}")

    @property
    def gaussian(self) -> bool:
        """True if it is N(0, I), so that its draws can be scaled and interpolated."""
        return not self.levels

    def draws(self, seeds: Sequence[int]) -> Floats:
        """The draw with index 0 of each seed, [N, *dims]. Raises ValueError for a seed outside [0, 2^64)."""
        keys = np.array([check_seed(seed) for seed in seeds], np.uint64)
        indexes = np.zeros_like(keys)
        if self.levels:
            uniform = uniforms(keys, indexes, prod(self.dims)).astype(np.float32).reshape(-1, *self.dims)
            levels = np.array(self.levels, np.float32).reshape(-1, *(1 for _ in self.dims[1:]))
            half = np.floor(levels / 2)
            return (np.minimum(np.floor(uniform * levels), levels - 1) - half) / half
        parts = [normals(keys, indexes, size, stream) for stream, size in enumerate(self.streams)]
        return np.concatenate(parts, 1).astype(np.float32).reshape(-1, *self.dims)

    def payload(self) -> dict[str, Any]:
        """Its JSON form."""
        kind = {"levels": list(self.levels)} if self.levels else {"streams": list(self.streams)}
        return {"dims": list(self.dims), **kind}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Prior:
        """The prior that has this JSON form. Raises ValueError, KeyError and TypeError for what is none."""
        dims, streams, levels = (payload["dims"], payload.get("streams", []), payload.get("levels", []))
        return cls(*(tuple(map(int, each)) for each in (dims, streams, levels)))
