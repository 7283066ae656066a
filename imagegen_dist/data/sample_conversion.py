"""The interface by which the files of a source become samples: one implementation a modality.

Pictures are `data.conversion`. Another modality is a frozen dataclass in a module of its own, which says which files of
a source it reads and turns the bytes of each into encoded samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, NamedTuple, Self

from imagegen_dist.data.picture import times
from imagegen_dist.data.sources.files import FileKinds
from imagegen_dist.data.volume_space import VolumeSpace


class Encoded(NamedTuple):
    """An encoded sample."""

    data: bytes
    size: tuple[int, ...]  # *S
    deepest: int = 0  # largest value of a 16-bit grey picture
    space: VolumeSpace | None = None  # what levels and voxels of a volume stand for
    note: str = ""  # what the user should know about this sample; equal notes are counted


class SampleConversion(ABC):
    """How records become samples of one modality. Implementations are frozen dataclasses, which tasks pickle."""

    modality: ClassVar[str]
    """The modality of the samples."""
    files: ClassVar[FileKinds]
    """The files of a source that hold them."""
    formats: ClassVar[tuple[str, ...]]
    """Extensions in which samples can be stored; the first one is the default."""
    size_flags: ClassVar[str] = "--size, e.g. --size 64x64"
    """The flags that give all samples one size."""

    @property
    @abstractmethod
    def is_sized(self) -> bool:
        """True if all samples come out in one size; else the files must have one size."""

    @property
    def is_transparent(self) -> bool:
        """True if the samples are RGBA, which headers of pictures do not tell."""
        return False

    def check_format(self, extension: str) -> None:
        """Raise ValueError if samples of this conversion cannot be stored with this extension."""
        if extension not in self.formats:
            raise ValueError(f"--format {extension}: {self.files.noun}s are stored as {', '.join(self.formats)}")

    @property
    def stored_bits(self) -> int:
        """Bits of the stored values, which headers of pictures do not tell."""
        return 8

    def of_samples(self, space: VolumeSpace | None) -> Self:
        """The conversion of what is a sample already, of which `space` says what its levels and voxels stand for."""
        return self

    @abstractmethod
    def convert(self, data: bytes, name: str, extension: str) -> Iterable[Encoded]:
        """The samples of a record, at least one, always the same ones.

        data: the record's bytes (`sources.files.split_parts` for a folder); name: of the record, with its extension or
        a final slash for a folder; extension: of the samples. Raises DecodeError, after which the record is left out
        and counted, whatever samples were yielded before, and UnfitError, which ends the packing.
        """

    @abstractmethod
    def flags(self) -> dict[str, str]:
        """Everything that determines the bytes of the samples, by the flags that the user knows; "" if not given."""

    def describe_size(self, size: tuple[int, ...]) -> str:
        """A size as people read it."""
        return times(size)
