"""The flags of `imagegen data pack` that say how the files of a modality become samples."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, cast

from imagegen_dist.data.conversion import Conversion
from imagegen_dist.data.sample_conversion import SampleConversion
from imagegen_dist.data.video.conversion import ClipConversion
from imagegen_dist.data.video.cutting import ALL, Cut
from imagegen_dist.data.volumes.array import Layout
from imagegen_dist.data.volumes.conversion import VolumeConversion
from imagegen_dist.errors import UsageError

if TYPE_CHECKING:
    from imagegen_dist.cli.data import Options

_ONLY_FOR = {
    "image": ("icc", "white_level", "filter"),
    "video": ("frames", "stride", "fps", "clips_per_video"),
    "voxels": ("spacing", "window", "resample", "nan"),
}
"""Flags that one modality alone has."""

_MOST_CLIPS = 9_999  # of a video, as their keys have four digits


def conversion_of(options: Options) -> SampleConversion:
    """The conversion that the flags describe. Raises UsageError, ValueError."""
    name = "image" if options.modality == "auto" else options.modality
    if name not in _CONVERSIONS:
        raise UsageError(f"--modality {name}: {', '.join(_CONVERSIONS)} can be packed")
    defaults = {field.name: field.default for field in fields(options)}
    for owner, flags in _ONLY_FOR.items():
        for flag in flags:
            if owner != name and getattr(options, flag) != defaults[flag]:
                raise UsageError(f"--{flag.replace('_', '-')} is for --modality {owner}, and this packs {name}")
    if name == "video" and options.bits != defaults["bits"]:
        raise UsageError(f"--bits {options.bits} is for pictures and volumes: frames of videos have 8")
    return _CONVERSIONS[name](options)


def _of_pictures(options: Options) -> Conversion:
    size = parse_size(options.size, 2)
    first = options.modality == "image"
    if options.array_layout:
        raise UsageError(f"--array-layout {options.array_layout} is for videos and volumes in .npy files")
    return Conversion(
        None if size is None else (size[0], size[1]),
        channels_of(options),
        options.crop == "center",
        options.icc,
        options.white_level,
        first,
        options.bits,
        options.filter,
    )


def _of_volumes(options: Options) -> VolumeConversion:
    size = parse_size(options.size, 3)
    if options.channels:
        raise UsageError(f"--channels {options.channels} is for pictures and videos: volumes keep their channels")
    if options.array_layout not in ("", "first", "last"):
        raise UsageError(f"--array-layout {options.array_layout}: channels of a volume are the first or the last axis")
    return VolumeConversion(
        None if size is None else (size[0], size[1], size[2]),
        _parse_spacing(options.spacing),
        _parse_window(options.window),
        options.bits,
        options.crop == "center",
        cast(Layout, options.array_layout or "auto"),
        options.resample == "nearest",
        options.nan == "lowest",
    )


def _parse_spacing(text: str) -> tuple[float, float, float] | None:
    """mm along D, H, W in MM, or in X,Y,Z."""
    if not text:
        return None
    try:
        given = [float(each) for each in text.split(",")]
    except ValueError:
        given = []
    if len(given) not in (1, 3):
        raise UsageError(f"--spacing {text}: give mm for all axes, e.g. 1.0, or for x,y,z, e.g. 0.8,0.8,2")
    x, y, z = given * 3 if len(given) == 1 else given
    return z, y, x


def _parse_window(text: str) -> tuple[float, float] | None:
    """The intensities of black and white in LOW:HIGH."""
    if not text:
        return None
    try:
        low, high = (float(each) for each in text.split(":"))
    except ValueError:
        raise UsageError(f"--window {text}: give LOW:HIGH, the values of black and white, e.g. 0:80") from None
    return low, high


def channels_of(options: Options) -> int | None:
    """The number of channels that --channels gives."""
    return int(options.channels) if options.channels else None


def parse_size(text: str, axes: int) -> tuple[int, ...] | None:
    """(H, W) in WIDTHxHEIGHT, (D, H, W) in WIDTHxHEIGHTxDEPTH; None for no text. Raises UsageError."""
    if not text:
        return None
    form, example = ("WIDTHxHEIGHT in pixels", "64x64") if axes == 2 else ("WIDTHxHEIGHTxDEPTH", "64x64x64")
    if not re.fullmatch(r"\d{1,5}(x\d{1,5})*", text) or text.count("x") != axes - 1:
        raise UsageError(f"--size {text}: give {form}, e.g. {example}")
    size = tuple(int(side) for side in reversed(text.split("x")))
    if min(size) < 1:
        raise UsageError(f"--size {text}: give {form}, e.g. {example}")
    return size


def _of_clips(options: Options) -> ClipConversion:
    size = parse_size(options.size, 2)
    text = options.clips_per_video
    if text != "all" and not (text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_CLIPS):
        raise UsageError(f"--clips-per-video {text}: a number from 1 to {_MOST_CLIPS}, or all")
    clips = ALL if text == "all" else int(text)
    return ClipConversion(
        Cut(options.frames, options.stride, options.fps, clips),
        None if size is None else (size[0], size[1]),
        channels_of(options),
        options.crop == "center",
        options.array_layout,
    )


_CONVERSIONS: dict[str, Callable[[Options], SampleConversion]] = {
    "image": _of_pictures,
    "video": _of_clips,
    "voxels": _of_volumes,
}
