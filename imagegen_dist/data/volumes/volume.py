"""A volume as a file holds it: real values on a grid, and where the grid lies in space.

The axes of a sample of voxels are (D, H, W) = (z, y, x). Of a medical volume, they point to the patient's superior,
anterior and right, so that a slice along D is axial.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.picture import MAX_PIXELS, DecodeError, times
from imagegen_dist.data.sources.base import UnfitError
from imagegen_dist.extras import install_hint

Reals = NDArray[np.float32]
Affine = NDArray[np.float64]
"""[4, 4]: maps the index of a voxel, (d, h, w, 1), to its position (x, y, z, 1) in mm, in RAS+."""

_SOLIDS = ("mesh", "solid", "bool")


@dataclass(frozen=True)
class Volume:
    """Values on a grid.

    values: [C, D, H, W], as stored or as real values. bits: of the stored levels if the values are these, from 0: 8 or
    16; 0 for real values, which need a window. affine: of the grid; None if the file does not state one. solid: False
    if the values are the surface of a mesh that is not closed.
    """

    values: NDArray
    bits: int = 0
    affine: Affine | None = None
    solid: bool = True
    kind: str = field(default="", compare=False)  # what the file's values are, for errors: int16

    @property
    def is_solid(self) -> bool:
        """True if the values are 0 and 255 for outside and inside, which no window changes."""
        return self.kind in _SOLIDS

    @property
    def spatial(self) -> tuple[int, int, int]:
        """(D, H, W)."""
        depth, height, width = self.values.shape[1:]
        return depth, height, width

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Distances of adjacent voxels along D, H and W in mm; None if the file does not state any."""
        if self.affine is None:
            return None
        depth, height, width = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return depth, height, width


def check_extent(spatial: tuple[int, ...], what: str = "is") -> None:
    """Raise DecodeError for an empty or huge volume, before memory is taken for it."""
    voxels = 1
    for extent in spatial:
        voxels *= int(extent)
        if extent < 1 or voxels > MAX_PIXELS:
            raise DecodeError(f"{what} {times(spatial)}: from 1 to {MAX_PIXELS} voxels are allowed")


def needs(what: str, error: ImportError) -> UnfitError:
    """The error of a file whose library is not installed."""
    return UnfitError(f"{what} is read and written by {error.name}: {install_hint('volume')}")
