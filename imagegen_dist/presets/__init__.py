"""Named, complete experiments. Each says where its numbers come from and what figure to expect."""

from __future__ import annotations

from imagegen_dist.config import nearest
from imagegen_dist.presets.gan import GANS
from imagegen_dist.presets.preset import Preset
from imagegen_dist.presets.vae import VAES

__all__ = ["PRESETS", "Preset", "find_preset"]

PRESETS: dict[str, Preset] = GANS | VAES


def find_preset(name: str) -> Preset:
    """The preset of that name. Raises ValueError with the nearest that exists."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; {nearest(name, PRESETS)}")
    return PRESETS[name]
