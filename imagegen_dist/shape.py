"""The shape of one sample: all that networks know of a modality."""

from dataclasses import dataclass
from math import prod

from imagegen_dist.wording import counted


@dataclass(frozen=True)
class SampleShape:
    """Channels and spatial extent of one sample, without the batch axis.

    channels: number of channels C, e.g. 3 for RGB.
    spatial: extent of every spatial axis *S: (H, W) images, (T, H, W) video, (D, H, W) voxels.
    Raises ValueError where an extent is not positive.
    """

    channels: int
    spatial: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.channels < 1 or not self.spatial or min(self.spatial) < 1:
            raise ValueError(
                f"a sample of {counted(self.channels, 'channel')} and spatial shape {self.spatial} is empty"
            )

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

    def __str__(self) -> str:
        return " × ".join(str(extent) for extent in (*self.spatial, self.channels))
