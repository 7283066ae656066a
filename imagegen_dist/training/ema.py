"""Exponential moving averages of weights, by half-life in images."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from imagegen_dist.schedule import Schedule


class Averages:
    """Averaged copies of some networks, which inference uses.

    half_life: images after which a weight's influence has halved; 0 copies the weights as they are.
    """

    def __init__(self, modules: Mapping[str, nn.Module], names: Sequence[str], half_life: Schedule) -> None:
        self._pairs = {name: (copy.deepcopy(modules[name]), modules[name]) for name in names}
        self._half_life = half_life
        for averaged in self.modules().values():
            averaged.eval().requires_grad_(False)

    def modules(self) -> dict[str, nn.Module]:
        """The averaged networks, by name."""
        return {name: averaged for name, (averaged, _) in self._pairs.items()}

    @torch.no_grad()
    def update(self, images_seen: int, batch_size: int) -> None:
        """Move the averages towards the weights: decay 0.5 ** (batch / half-life)."""
        half_life = self._half_life(images_seen)
        decay = 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0
        for averaged, current in self._pairs.values():
            torch._foreach_lerp_(list(averaged.parameters()), list(current.parameters()), 1 - decay)
            for mine, theirs in zip(averaged.buffers(), current.buffers(), strict=True):
                mine.copy_(theirs)
