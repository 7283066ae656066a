"""How well a network recognises the named conditions that samples have, or that were requested of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from imagegen_dist.conditions.part import Conditions

_RIGHT, _ASKED, _SQUARE, _ERROR = range(4)


@dataclass
class Recognition:
    """Additive sums over samples, in float64 on the CPU.

    sums: for each place of the condition's vector, [4, K]: the number of samples whose class (in its part's first
    place) or attribute was recognised; and of numbers, in deviations, the sums of the requested values, of their
    squares, and of the squared errors of the recognised ones.
    """

    conditions: Conditions
    samples: int = 0
    sums: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(4, self.conditions.width, dtype=torch.float64)

    def add(self, outputs: Tensor, told: Tensor) -> None:
        """Add samples. outputs: of the network, [B, K]; told: their conditions as vectors, [B, K]."""
        outputs, told = outputs.detach().double().cpu(), told.double().cpu()
        self.samples += len(told)
        for part, places in zip(self.conditions.parts, self.conditions.slices.values(), strict=True):
            found, asked = outputs[:, places], told[:, places]
            self.sums[_ASKED, places] += asked.sum(0)
            if part.kind == "class":
                self.sums[_RIGHT, places.start] += (found.argmax(1) == asked.argmax(1)).sum()
            elif part.kind == "attributes":
                self.sums[_RIGHT, places] += ((found > 0) == (asked > 0.5)).sum(0)
            else:
                moments = asked.square(), (found - asked).square()
                self.sums[_SQUARE:, places] += torch.stack([moment.sum(0) for moment in moments])

    def copy(self) -> Recognition:
        """Equal sums, to which others can be added."""
        found = Recognition(self.conditions)
        found.merge(self)
        return found

    def merge(self, other: Recognition) -> None:
        """Add the sums of other samples."""
        self.samples += other.samples
        self.sums = self.sums + other.sums

    def reduce(self, all_reduce: Callable[[Tensor], Tensor], device: torch.device) -> Recognition:
        """The sums over all ranks."""
        count = torch.tensor([self.samples], dtype=torch.float64)
        total = all_reduce(torch.cat([count, self.sums.flatten()]).to(device)).cpu()
        found = Recognition(self.conditions, int(total[0]))
        found.sums = total[1:].view_as(self.sums)
        return found

    def figures(self) -> dict[str, float]:
        """Metrics by name; {} without samples.

        "agreement/PART": share of samples whose class was recognised. "accuracy/PART", or "accuracy/PART/NAME" if the
        part has several: share of samples with the attribute recognised as present or absent. "r2/PART": the
        coefficient of determination of numbers, 1 less the squared errors over the squared deviations from the mean of
        the requested values, both summed over the part; left out if all requested values are equal.
        """
        found: dict[str, float] = {}
        shares = (self.sums[_RIGHT] / max(1, self.samples)).tolist()
        for part, places in zip(self.conditions.parts, self.conditions.slices.values(), strict=True):
            if not self.samples:
                continue
            if part.kind == "class":
                found[f"agreement/{part.name}"] = shares[places.start]
            elif part.kind == "attributes":
                names = [f"{part.name}/{name}" for name in part.names] if part.size > 1 else [part.name]
                found |= {f"accuracy/{name}": share for name, share in zip(names, shares[places], strict=True)}
            elif (spread := self._spread(places)) > 0:
                found[f"r2/{part.name}"] = 1 - float(self.sums[_ERROR, places].sum()) / spread
        return found

    def chances(self) -> dict[str, float]:
        """Shares of right answers by naming the most frequent class, or presence or absence, by the same names."""
        found: dict[str, float] = {}
        shares = (self.sums[_ASKED] / max(1, self.samples)).tolist()
        for part, places in zip(self.conditions.parts, self.conditions.slices.values(), strict=True):
            if part.kind == "class":
                found[f"agreement/{part.name}"] = max(shares[places])
            elif part.kind == "attributes":
                names = [f"{part.name}/{name}" for name in part.names] if part.size > 1 else [part.name]
                most = [max(share, 1 - share) for share in shares[places]]
                found |= {f"accuracy/{name}": share for name, share in zip(names, most, strict=True)}
        return found

    def _spread(self, places: slice) -> float:
        """The sum of squared deviations of requested numbers from their means; 0 at the level of rounding."""
        asked, square = self.sums[_ASKED, places], self.sums[_SQUARE, places]
        spread = float((square - asked.square() / self.samples).sum())
        return spread if spread > 1e-9 * float(square.sum()) else 0.0


def of_real_samples(name: str) -> str:
    """Name of the same metric of held-out real samples: "r2/slant" -> "r2_real/slant"."""
    group, _, member = name.partition("/")
    return f"{group}_real/{member}"
