"""Convert the files of volumes to samples: spacing, size and values of voxels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.modality import modality
from imagegen_dist.data.picture import MAX_PIXELS, DecodeError
from imagegen_dist.data.sample_conversion import Encoded, SampleConversion
from imagegen_dist.data.sources.base import UnfitError
from imagegen_dist.data.sources.files import FileKinds
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.data.volumes.array import Layout
from imagegen_dist.data.volumes.files import VOLUME_FILES, read_volume
from imagegen_dist.data.volumes.resampling import at_spacing, central, cropped_to_aspect, resampled
from imagegen_dist.data.volumes.volume import Volume
from imagegen_dist.wording import counted

_FINEST, _COARSEST = 0.001, 1_000  # mm
_WIDEST = 1e30  # intensities that float32 holds
_TOLD = "a mesh that is not closed has no inside: its surface was taken"


@dataclass(frozen=True)
class VolumeConversion(SampleConversion):
    """The grid and the values of converted volumes. Raises ValueError for unusable values."""

    modality: ClassVar[str] = "voxels"
    files: ClassVar[FileKinds] = VOLUME_FILES
    formats: ClassVar[tuple[str, ...]] = ("npy",)
    size_flags: ClassVar[str] = "--size, e.g. --size 64x64x64"

    size: tuple[int, int, int] | None = None  # (D, H, W); None keeps the size of the volumes
    spacing: tuple[float, float, float] | None = None  # mm along D, H, W; None keeps the spacing, or fits the size
    window: tuple[float, float] | None = None  # intensities of the lowest and the highest level
    bits: int = 8  # of a stored value
    crop: bool = True  # without spacing, crop centrally to the proportions of `size`; else squeeze the whole volume
    layout: Layout = "auto"  # where arrays of four axes have their channels
    nearest: bool = False  # new voxels take the value of the nearest one, as numbers of segments need
    nan_lowest: bool = False  # voxels without a number get the lowest value; else the volume is refused
    space: VolumeSpace | None = None  # what stored arrays stand for, if they are samples of a dataset

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= prod(self.size) <= MAX_PIXELS:
            raise ValueError(f"--size {self.describe_size(self.size)}: a volume has 1 to {MAX_PIXELS:,} voxels")
        if self.spacing is not None and not all(_FINEST <= each <= _COARSEST for each in self.spacing):
            given = ",".join(f"{each:g}" for each in self.spacing[::-1])
            raise ValueError(f"--spacing {given}: distances of voxels are from {_FINEST} to {_COARSEST:,} mm")
        if self.window is not None and not 0 < self.window[1] - self.window[0] < _WIDEST:
            raise ValueError(
                f"--window {self.window[0]:g}:{self.window[1]:g}: the first value must be the lower one, by less than "
                f"{_WIDEST:g}"
            )
        if self.bits not in (8, 16):
            raise ValueError(f"--bits {self.bits}: volumes are stored in 8 or 16")

    @property
    def is_sized(self) -> bool:
        """True if all volumes are brought to one size."""
        return self.size is not None

    def flags(self) -> dict[str, str]:
        """Everything that determines the bytes of the samples, by flags."""
        return {
            "--size": "" if self.size is None else self.describe_size(self.size),
            "--spacing": "" if self.spacing is None else ",".join(f"{each:g}" for each in self.spacing[::-1]),
            "--window": "" if self.window is None else ":".join(f"{each:g}" for each in self.window),
            "--bits": "" if self.bits == 8 else f"{self.bits}",
            "--crop": "center" if self.crop else "none",
            "--array-layout": "" if self.layout == "auto" else self.layout,
            "--resample": "nearest" if self.nearest else "",
            "--nan": "lowest" if self.nan_lowest else "",
        }

    def describe_size(self, size: tuple[int, ...]) -> str:
        """A size in the form of --size."""
        return "x".join(str(extent) for extent in size[::-1])

    def convert(self, data: bytes, name: str, extension: str) -> Iterator[Encoded]:
        """The one sample of a file or folder. Raises DecodeError, UnfitError."""
        volume, before = self._known(self._finite(read_volume(data, name, self.size, self.layout)))
        scale = self._scale_of(volume, name)
        fitted = self._fitted(volume, scale.low)
        sample = scale.levels_of(fitted.values)
        space = VolumeSpace(
            before.slope * scale.slope,
            before.slope * scale.intercept + before.intercept,
            fitted.spacing or (),
            () if fitted.affine is None else tuple((np.round(fitted.affine, 9) + 0.0).ravel().tolist()),
            before.oriented,
        )
        encoded = modality("voxels").encode(sample, extension)
        yield Encoded(encoded, fitted.spatial, space=space, note="" if volume.solid else _TOLD)

    def of_samples(self, space: VolumeSpace | None) -> Self:
        """The conversion of stored arrays, whose window is in intensities, and which keep their place."""
        return replace(self, space=space)

    def _known(self, volume: Volume) -> tuple[Volume, VolumeSpace]:
        """A volume with the place of a stored sample, and what its values stand for."""
        if self.space is None or volume.is_solid:
            return volume, VolumeSpace()
        if volume.affine is None and (self.space.spacing or self.space.affine):
            volume = replace(volume, affine=self.space.matrix(volume.spatial))
        if self.window is None:
            return volume, self.space
        values = volume.values * np.float64(self.space.slope) + self.space.intercept
        return replace(volume, values=values.astype(np.float32), bits=0), VolumeSpace(oriented=self.space.oriented)

    def _finite(self, volume: Volume) -> Volume:
        """The volume with a number in every voxel. Raises DecodeError if some have none and are not to get one."""
        values = volume.values
        if values.dtype.kind != "f" or (finite := np.isfinite(values)).all():
            return volume
        if not self.nan_lowest or not finite.any():
            wrong = counted(int(np.count_nonzero(~finite)), "voxel")
            raise DecodeError(f"has {wrong} without a number (NaN or infinite); --nan lowest fills them")
        return replace(volume, values=np.where(finite, values, values[finite].min()))

    def _fitted(self, volume: Volume, outside: float) -> Volume:
        """The volume on the wanted grid; `outside` fills what it does not cover."""
        if self.spacing is not None:
            volume = at_spacing(volume, self.spacing, self.nearest)
            return volume if self.size is None else central(volume, self.size, outside)
        if self.size is None or self.size == volume.spatial:
            return volume
        return resampled(cropped_to_aspect(volume, self.size) if self.crop else volume, self.size, self.nearest)

    def _scale_of(self, volume: Volume, name: str) -> _Scale:
        """How the values of a volume become levels. Raises UnfitError."""
        highest = (1 << self.bits) - 1
        if volume.is_solid:
            return _Scale(0, 255, highest, 1.0, 0.0)
        if self.window is not None:
            low, high = self.window
            return _Scale(low, high, highest, (high - low) / highest, low)
        if volume.bits == 0 or volume.bits > self.bits:
            least, most = (f"{float(value):.6g}" for value in (volume.values.min(), volume.values.max()))
            keep = ", or --bits 16 to keep all levels" if volume.bits == 16 else ""
            also = " (and --bits 16 for 65,536 levels between them)" if self.bits == 8 and not keep else ""
            raise UnfitError(
                f"{name} holds {volume.kind} from {least} to {most}: say which values are black and white, e.g. "
                f"--window {least}:{most}{also}{keep}"
            )
        stored = (1 << volume.bits) - 1
        return _Scale(0, stored, highest, stored / highest, 0.0)


@dataclass(frozen=True)
class _Scale:
    """Values from low to high become levels from 0 to highest, which stand for slope * level + intercept."""

    low: float
    high: float
    highest: int
    slope: float
    intercept: float

    def levels_of(self, values: NDArray) -> NDArray:
        """uint8 or uint16 of the same shape, rounded and clamped."""
        kind = np.uint16 if self.highest > 255 else np.uint8
        if (self.low, self.high) == (0, self.highest) and values.dtype == kind:
            return np.ascontiguousarray(values)
        levels = (values.astype(np.float64) - self.low) * (self.highest / (self.high - self.low))
        return np.clip(np.rint(levels), 0, self.highest).astype(kind)
