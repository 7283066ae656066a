"""What the levels and the grid of stored volumes stand for: intensities, and places in a scanner's space."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAME = 1e-3  # mm by which grids may differ that count as the same


@dataclass(frozen=True)
class VolumeSpace:
    """How stored volumes lie in space, as far as all of a dataset agree. Raises ValueError for unusable values.

    A stored level v stands for the intensity slope * v + intercept.
    """

    slope: float = 1.0
    intercept: float = 0.0
    spacing: tuple[float, ...] = ()
    """Distances of adjacent voxels along D, H and W in mm; () if they are unknown or differ."""
    affine: tuple[float, ...] = ()
    """Row by row, the 4 × 4 matrix from (d, h, w, 1) to the position of a voxel in mm, in RAS+; () if grids differ."""
    oriented: bool = False
    """True if the axes (D, H, W) of all volumes are a patient's, superior, anterior and right; a spacing implies it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "oriented", self.oriented or bool(self.spacing or self.affine))
        numbers = (self.slope, self.intercept, *self.spacing, *self.affine)
        if len(self.spacing) not in (0, 3) or len(self.affine) not in (0, 16) or not np.isfinite(numbers).all():
            raise ValueError("space is not a slope, an intercept, 3 spacings and the 16 numbers of a matrix")
        if self.slope == 0 or min(self.spacing, default=1.0) <= 0:
            raise ValueError("space has a slope or a spacing of zero")

    def shared(self, other: VolumeSpace) -> VolumeSpace:
        """What two volumes of a dataset have in common."""
        return replace(
            self,
            spacing=self.spacing if _equal(self.spacing, other.spacing) else (),
            affine=self.affine if _equal(self.affine, other.affine) else (),
            oriented=self.oriented and other.oriented,
        )

    def matrix(self, spatial: tuple[int, ...]) -> NDArray[np.float64]:
        """The affine, [4, 4], of a volume (D, H, W); where none is known, the volume is centred on the origin."""
        if self.affine:
            return np.array(self.affine).reshape(4, 4)
        found = np.eye(4)
        found[:3, :3] = np.diag(self.spacing or (1.0, 1.0, 1.0))[::-1]
        found[:3, 3] = -(found[:3, :3] @ ((np.array(spatial) - 1) / 2))
        return found

    def payload(self) -> dict[str, Any]:
        """Its JSON form, without what is unknown."""
        lists = {"spacing": list(self.spacing), "affine": list(self.affine)}
        known = {key: at for key, at in lists.items() if at}
        told = {"oriented": True} if self.oriented and not known else {}
        return {"slope": self.slope, "intercept": self.intercept, **known, **told}

    @classmethod
    def from_payload(cls, found: Any) -> VolumeSpace:
        """The space in parsed JSON. Raises ValueError."""
        if not isinstance(found, dict) or not {"slope", "intercept"} <= set(found):
            raise ValueError("space has no slope and intercept")
        lists = [found.get(name, []) for name in ("spacing", "affine")]
        numbers = [found["slope"], found["intercept"], *(at for each in lists if isinstance(each, list) for at in each)]
        if not all(type(number) in (int, float) for number in numbers):
            raise ValueError("space has values that are not numbers")
        spacing, affine = (tuple(float(at) for at in each) for each in lists)
        return cls(float(found["slope"]), float(found["intercept"]), spacing, affine, found.get("oriented") is True)


def _equal(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return len(first) == len(second) and bool(np.abs(np.subtract(first, second)).max(initial=0) <= _SAME)
