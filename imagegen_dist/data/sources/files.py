"""Which files of a source hold its samples: the files of pictures here, those of other modalities beside their readers.

A record is a file, or a folder whose files are parts of one sample, such as the frames of a video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import splitext

from imagegen_dist.data.modality import modality
from imagegen_dist.natural import natural_order

_MAGIC = b"imagegen files\n"
_MOST_PARTS = 100_000
_NAME_BYTES = 4096

PEEKED_BYTES = 1 << 16
"""Bytes of a file that `FileKinds.is_whole` is given."""

MAX_RECORD_BYTES = 4 << 30
"""Bytes above which a record is not read, since a whole record is held in memory."""


CONVERTED = {
    **dict.fromkeys(("mp4", "m4v", "mov", "webm", "mkv", "avi", "ogv", "mpg", "mpeg"), "video"),
    **dict.fromkeys(("nii", "gz", "dcm", "binvox", "obj", "stl", "ply", "glb"), "voxels"),
}
"""Extensions of files that belong to one modality alone, and are no samples until they are packed."""


def _always(_: bytes) -> bool:
    return True


@dataclass(frozen=True)
class FileKinds:
    """The files of one modality."""

    modality: str
    """image, video or voxels."""
    noun: str
    """What a record is called in messages: picture, video, volume."""
    extensions: tuple[str, ...]
    """Extensions of files that are a record each, with dots, in lower case."""
    members: tuple[str, ...]
    """Extensions of the members of shards that hold a sample or can be converted to some, without dots."""
    parts: tuple[str, ...] = ()
    """Extensions of files that together are one record if a folder holds such files alone, e.g. the frames of a video.
    They may be among `extensions` as well: `is_whole` then decides."""
    usual_bytes: int = 0
    """Size of a large record: so many are held in memory at the same time as fit; 0 for small ones."""
    is_whole: Callable[[bytes], bool] = _always
    """True if the file that begins with these bytes is a record, although its extension is one of `parts`."""

    def is_record(self, name: str) -> bool:
        """True if a file may be a record by its name."""
        return name.lower().endswith(self.extensions)

    def is_part(self, name: str) -> bool:
        """True if a file may be a part of a record by its name."""
        return splitext(name)[1].lower() in self.parts

    @property
    def listed(self) -> str:
        """The extensions, for messages."""
        return " ".join(self.extensions)

    def parts_of(self, names: Sequence[str]) -> tuple[str, ...]:
        """The files of a folder that are parts of a record, in their natural order: frame 2 before frame 10."""
        return tuple(natural_order(name for name in names if self.is_part(name)))

    def elsewhere(self, names: Sequence[str]) -> str:
        """What to say, after a semicolon, of files that are no records of this modality, if others may take them."""
        for name in names:
            other = CONVERTED.get(splitext(name)[1].lower().removeprefix("."))
            if other not in (None, self.modality):
                return f"; --modality {other} packs files such as {name}"
        if part := next(filter(self.is_part, names), ""):
            return f"; {part} is a part of a {self.noun}: the files of each {self.noun} need a folder of their own"
        return ""

    def is_bundle(self, names: Sequence[str], folders: Sequence[str], peek: Callable[[str], bytes]) -> bool:
        """True if the files in a folder together are one record.

        names, folders: contents of the folder. peek: reads the beginning of one of the files.
        """
        parts = self.parts_of(names)
        if not parts or folders or any(self.is_record(name) and not self.is_part(name) for name in names):
            return False
        return not self.is_record(parts[0]) or not self.is_whole(peek(parts[0]))


PICTURE_FILES = FileKinds(
    "image",
    "picture",
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".heic", ".heif"),
        *(".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pbm", ".pnm"),
    ),
    modality("image").extensions,
)
"""The files of pictures."""


def join_parts(parts: Sequence[tuple[str, bytes]]) -> bytes:
    """The bytes of a record that is a folder: the names and contents of its files."""
    header = b"".join(b"%d %s\n" % (len(data), name.encode(errors="surrogateescape")) for name, data in parts)
    return b"".join((_MAGIC, b"%d\n" % len(parts), header, *(data for _, data in parts)))


def is_joined(data: bytes) -> bool:
    """True for the bytes of a record that is a folder."""
    return data.startswith(_MAGIC)


def split_parts(data: bytes) -> list[tuple[str, bytes]]:
    """The (name, content) of each file in a record that is a folder. Raises ValueError."""
    if not is_joined(data):
        raise ValueError("is not a folder of files")
    at = len(_MAGIC)
    listed = list[tuple[str, int]]()

    def line() -> bytes:
        nonlocal at
        end = data.index(b"\n", at, at + _NAME_BYTES)
        found, at = data[at:end], end + 1
        return found

    for _ in range(min(int(line()), _MOST_PARTS)):
        size, _, name_bytes = line().partition(b" ")
        listed.append((name_bytes.decode(errors="surrogateescape"), int(size)))
    found = list[tuple[str, bytes]]()
    for called, length in listed:
        found.append((called, data[at : at + length]))
        at += length
    return found
