"""The shape of one sample: all that networks know of a modality; and numbers that each of its axes may have."""

from dataclasses import dataclass
from math import prod

from imagegen_dist.wording import counted

PerAxis = int | tuple[int, ...]
"""One number for every spatial axis, or one for each of them: 8 or (2, 8, 8)."""


def per_axis(value: PerAxis, ndim: int, flag: str = "") -> tuple[int, ...]:
    """One value for each of ndim axes: an int applies to all axes.

    Raises ValueError if a tuple has another number of entries; flag: the one that sets it, for the error.
    """
    axes = (value,) * ndim if isinstance(value, int) else tuple(value)
    if len(axes) != ndim:
        by = f" by {flag}" if flag else ""
        raise ValueError(f"{axes} has {len(axes)} entries for {ndim} spatial axes: give one per axis{by}")
    return axes


def axes_text(value: PerAxis) -> str:
    """As a setting is written: "8", or "2,8,8"."""
    return str(value) if isinstance(value, int) else ",".join(map(str, value))


@dataclass(frozen=True)
class SampleShape:
    """Channels and spatial extent of one sample, without the batch axis.

    channels: number of channels C, e.g. 3 for RGB.
    spatial: extent of every spatial axis *S: (H, W) images, (T, H, W) video, (D, H, W) voxels.
    bits: of a stored value, 8 or 16; networks see values from -1 to 1 in either case.
    Raises ValueError where an extent is not positive, and for other bits.
    """

    channels: int
    spatial: tuple[int, ...]
    bits: int = 8

    def __post_init__(self) -> None:
        if self.channels < 1 or not self.spatial or min(self.spatial) < 1:
            raise ValueError(
                f"a sample of {counted(self.channels, 'channel')} and spatial shape {self.spatial} is empty"
            )
        if self.bits not in (8, 16):
            raise ValueError(f"samples of {self.bits} bits: stored values have 8 or 16")

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.spatial)

    @property
    def dims(self) -> tuple[int, ...]:
        """(C, *S): the shape of one sample's tensor."""
        return (self.channels, *self.spatial)

    @property
    def numel(self) -> int:
        """Values in one sample, C * prod(S)."""
        return prod(self.dims)

    @property
    def levels(self) -> int:
        """Number of values that are stored, 0 to levels - 1."""
        return 1 << self.bits

    @property
    def bytes(self) -> int:
        """Bytes of one stored sample without compression."""
        return self.numel * self.bits // 8

    def __str__(self) -> str:
        extents = " × ".join(str(extent) for extent in (*self.spatial, self.channels))
        return extents if self.bits == 8 else f"{extents} in {self.bits} bits"
