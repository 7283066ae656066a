"""Colour profiles: pixels of other colour spaces to sRGB, which is what networks and screens take them for."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_ROUNDING = 2  # of 255, by which sRGB profiles of different makers differ


def to_srgb(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """A picture of mode L, RGB, RGBA or CMYK in sRGB: of its own mode, CMYK as RGB.

    profile: its ICC profile. None where nothing would change: the profile is sRGB, damaged, or of another kind of
    picture.
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
    """From a profile to sRGB; None where it changes nothing or does not fit."""
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
    """True where a sample of all colours stays what it is."""
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
