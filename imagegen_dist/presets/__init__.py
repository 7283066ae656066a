"""Named, complete experiments. Each says where its numbers come from and what figure to expect."""

from __future__ import annotations

from imagegen_dist.config import nearest
from imagegen_dist.errors import UsageError
from imagegen_dist.extensions import import_preset
from imagegen_dist.presets import clips_and_volumes
from imagegen_dist.presets.gan import GANS
from imagegen_dist.presets.preset import Preset
from imagegen_dist.presets.vae import VAES

__all__ = ["PRESETS", "Preset", "find_preset"]

PRESETS: dict[str, Preset] = GANS | clips_and_volumes.GANS | VAES | clips_and_volumes.VAES


def find_preset(name: str) -> Preset:
    """The preset of that name, or the user's own that `package.module:name` names. Raises ValueError."""
    if module := import_preset(name):
        found = getattr(module, name.partition(":")[2], None)
        if not isinstance(found, Preset):
            has = [each for each, value in vars(module).items() if isinstance(value, Preset)]
            raise UsageError(f"{name} is no Preset; {module.__name__} has {', '.join(has) or 'none'}")
        return found
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; {nearest(name, PRESETS)}")
    return PRESETS[name]
