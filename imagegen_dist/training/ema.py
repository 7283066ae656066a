"""Exponential moving averages of weights, with a half-life in images."""

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from imagegen_dist.schedule import Schedule


class EMA:
    """Averaged copies of some networks, for inference.

    half_life: images after which a weight's influence has halved; 0 copies the current weights.
    """

    def __init__(self, modules: Mapping[str, nn.Module], names: Sequence[str], half_life: Schedule) -> None:
        self._averaged = {name: copy.deepcopy(modules[name]) for name in names}
        self._half_life = half_life
        for averaged in self._averaged.values():
            averaged.eval().requires_grad_(False)
        # Listed once, as in the loop.
        current = [modules[name] for name in names]
        self._weights = _parameters(self._averaged.values()), _parameters(current)
        self._buffers = _buffers(self._averaged.values()), _buffers(current)

    def modules(self) -> dict[str, nn.Module]:
        """The averaged networks, by name."""
        return dict(self._averaged)

    @torch.no_grad()
    def update(self, images_seen: int, batch_size: int) -> None:
        """Move the averages towards the weights: decay 0.5 ** (batch / half-life)."""
        half_life = self._half_life(images_seen)
        decay = 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0
        torch._foreach_lerp_(*self._weights, 1 - decay)
        for mine, theirs in zip(*self._buffers, strict=True):
            mine.copy_(theirs)


def _parameters(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [parameter for module in modules for parameter in module.parameters()]


def _buffers(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [buffer for module in modules for buffer in module.buffers()]
