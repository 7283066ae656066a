"""Directions of a latent space: named axes, along which samples change in one respect.

The coordinate of a latent z along a unit vector v is z·v, which is N(0, 1) over the prior. A slider sets it and leaves
the rest of z as it is. Coordinates within ±2 hold 95 % of the prior; beyond them, a generator sees latents that it was
hardly trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

USUAL = 2.0
"""The largest coordinate, in absolute value, that sliders and sweeps take."""

_LEAST_NEW = 0.35
"""Length of what orthogonalisation leaves of a unit vector, below which it is a repetition of those before it."""

_DIGITS = 6


@dataclass(frozen=True, eq=False)
class Direction:
    """One axis. name: as users set it. vector: float32 [Z], of length 1. explains: from 0 to 1, what `of` says.

    of: whose variance the coordinate explains: a score, the activations of a layer, or the first layer's output.
    """

    name: str
    vector: Tensor
    explains: float
    of: str


class Directions:
    """Axes by name, in the order in which they are shown."""

    def __init__(self, entries: Iterable[Direction]) -> None:
        self.entries = tuple(entries)
        self._by_name = {entry.name: entry for entry in self.entries}

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._by_name)

    def named(self, name: str) -> Direction:
        """The direction with this name. Raises ValueError if there is none."""
        if name not in self._by_name:
            near = get_close_matches(name, self.names, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"direction {name}: this model has {', '.join(self.names) or 'none'}{meant}")
        return self._by_name[name]

    def coordinates(self, z: Tensor) -> Tensor:
        """Latents [B, Z] -> their coordinate along each direction, [B, directions]."""
        return z.flatten(1) @ self._matrix(self.names).T.to(z)

    def set(self, z: Tensor, values: Mapping[str, float]) -> Tensor:
        """The nearest latents [B, Z] whose coordinates have these values. Raises ValueError for an unknown name."""
        if not values:
            return z
        v = self._matrix(list(values)).to(z)
        flat, wanted = z.flatten(1), torch.tensor(list(values.values())).to(z)
        return (flat + torch.linalg.solve(v @ v.T, (wanted - flat @ v.T).T).T @ v).reshape(z.shape)

    def payload(self) -> list[dict[str, Any]]:
        """JSON values from which `from_payload` makes equal directions, to six decimals."""
        return [
            {
                "name": entry.name,
                "explains": round(entry.explains, 4),
                "of": entry.of,
                "vector": [round(value, _DIGITS) for value in entry.vector.tolist()],
            }
            for entry in self.entries
        ]

    @classmethod
    def from_payload(cls, payload: Sequence[Mapping[str, Any]]) -> Directions:
        """Directions from JSON values. Raises ValueError if they are damaged."""
        try:
            return cls(
                Direction(str(each["name"]), torch.tensor(each["vector"]), float(each["explains"]), str(each["of"]))
                for each in payload
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"directions are damaged ({error})") from error

    def _matrix(self, names: Sequence[str]) -> Tensor:
        return torch.stack([self.named(name).vector for name in names])


def orthogonalised(vectors: Tensor) -> tuple[Tensor, list[int]]:
    """(orthonormal rows [M, Z], the numbers of those that are kept), earlier ones first: Gram-Schmidt.

    vectors: [N, Z]. One that is nearly a combination of earlier ones is left out.
    """
    kept: list[Tensor] = []
    numbers = []
    for number, vector in enumerate(vectors):
        rest = vector / vector.norm().clamp_min(1e-12)
        for _ in range(2):  # the second time removes what rounding left
            for other in kept:
                rest = rest - (rest @ other) * other
        if float(rest.norm()) >= _LEAST_NEW:
            kept.append(rest / rest.norm())
            numbers.append(number)
    return torch.stack(kept) if kept else vectors[:0], numbers
