"""Colour profiles: convert pixels to sRGB, which networks and screens assume."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_ROUNDING = 2  # of 255: the difference between sRGB profiles of different makers


def to_srgb(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert a picture of mode L, RGB, RGBA or CMYK to sRGB; it keeps its mode, except that CMYK becomes RGB.

    profile: its ICC profile. None if nothing would change: the profile is sRGB, damaged, or for another mode.
    """
    colours = picture.convert("RGB") if picture.mode == "RGBA" else picture
    transform = _transform(profile, colours.mode)
    if transform is None:
        return None
    changed = ImageCms.applyTransform(colours, transform)
    assert changed is not None
    if picture.mode == "L":
        return changed.convert("L")
    if picture.mode == "RGBA":
        changed.putalpha(picture.getchannel("A"))
    return changed


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB; None if it changes nothing or does not fit the mode."""
    if not profile or mode not in _SPACES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.buildTransform(source, target, mode, "RGB")
        return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """True if a sample of all colours is unchanged."""
    steps = np.arange(0, 256, 5, dtype=np.uint8)
    if mode == "L":
        sample = np.stack([steps] * 3, -1)
        picture = Image.fromarray(steps[None])
    else:
        sample = np.stack(np.meshgrid(steps[::5], steps[::5], steps[::5]), -1).reshape(-1, 3)
        picture = Image.fromarray(sample[None])
    changed = ImageCms.applyTransform(picture, transform)
    assert changed is not None
    return int(np.abs(np.asarray(changed)[0].astype(int) - sample).max()) <= _ROUNDING
