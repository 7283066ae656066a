"""Turn a volume to the patient's axes: (D, H, W) = (superior, anterior, right)."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.volumes.volume import Affine, Reals, Volume


def canonical(values: Reals, affine: Affine, kind: str) -> Volume:
    """The same volume with its axes permuted and flipped to those of a sample; nothing is interpolated.

    values: [i, j, k]. affine: [4, 4], from (i, j, k, 1) to positions in mm, in RAS+. The assignment of axes is the one
    whose directions agree best, so that an oblique scan keeps its own grid.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # Axis n of a sample is the axis of the file that points most along z, y, x.
    order = max(permutations(range(3)), key=lambda axes: sum(abs(directions[2 - n, axes[n]]) for n in range(3)))
    turned, columns, origin = values.transpose(order), [], affine[:3, 3].copy()
    for n, axis in enumerate(order):
        column = affine[:3, axis]
        if directions[2 - n, axis] < 0:
            turned = np.flip(turned, n)
            origin = origin + column * (values.shape[axis] - 1)
            column = -column
        columns.append(column)
    return Volume(np.ascontiguousarray(turned)[None], affine=_affine(columns, origin), kind=kind)


def _affine(columns: list[NDArray], origin: NDArray) -> Affine:
    found = np.eye(4)
    found[:3, :3] = np.stack(columns, axis=1)
    found[:3, 3] = origin
    return found
