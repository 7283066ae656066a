"""Convert videos to clips: decode the frames that each clip needs, crop and resize them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from imagegen_dist.data.animated import is_animated
from imagegen_dist.data.conversion import Conversion, fitted, picture_of
from imagegen_dist.data.modality import modality
from imagegen_dist.data.picture import MAX_PIXELS, DecodeError, Pixels, times
from imagegen_dist.data.sample_conversion import Encoded, SampleConversion
from imagegen_dist.data.sources.base import UnfitError
from imagegen_dist.data.sources.files import FileKinds, is_joined, split_parts
from imagegen_dist.data.video.animation import open_animation
from imagegen_dist.data.video.array import LAYOUTS, ArrayFilm
from imagegen_dist.data.video.container import open_container
from imagegen_dist.data.video.cutting import Cut
from imagegen_dist.data.video.film import Film, Frame
from imagegen_dist.data.video.folder import FolderFilm
from imagegen_dist.wording import counted

_NPY_SIGNATURE = b"\x93NUMPY"
_MEMBER_LAYOUT = "first"  # of arrays in shards, which are samples: [C, T, H, W]

VIDEO_FILES = FileKinds(
    "video",
    "video",
    (
        *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".3gp", ".mpg", ".mpeg", ".ts", ".ogv", ".flv", ".wmv"),
        *(".gif", ".webp", ".apng", ".png", ".avif", ".npy"),
    ),
    ("npy", "webp", "mp4", "m4v", "mov", "webm", "mkv", "avi", "3gp", "mpg", "mpeg", "ts", "ogv", "flv", "wmv", "gif"),
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm"),
    64 << 20,
    is_animated,
)
"""The files of videos; a folder of still pictures alone holds the frames of one."""


@dataclass(frozen=True)
class ClipConversion(SampleConversion):
    """How videos become clips. Raises ValueError for unusable values."""

    modality: ClassVar[str] = "video"
    files: ClassVar[FileKinds] = VIDEO_FILES
    formats: ClassVar[tuple[str, ...]] = ("npy", "webp")
    size_flags: ClassVar[str] = "--size and --frames, e.g. --size 64x64 --frames 16"

    cut: Cut = Cut()  # which frames make the clips
    size: tuple[int, int] | None = None  # (H, W); None keeps the size of the frames
    channels: int | None = None  # 1 grey, 3 RGB; None keeps grey and converts everything else to RGB
    crop: bool = True  # crop centrally to the aspect ratio of `size`; else distort the whole frame to it
    layout: str = ""  # where the channels of arrays are, a key of LAYOUTS; "" recognises them

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3):
            raise ValueError(f"--channels {self.channels}: clips have 1 (grey) or 3 (RGB)")
        if self.layout and self.layout not in LAYOUTS:
            raise ValueError(f"--array-layout {self.layout}: clips have their channels {', '.join(LAYOUTS)}")
        Conversion(self.size, self.channels, self.crop)

    @property
    def is_sized(self) -> bool:
        """True if all clips have one size and number of frames."""
        return self.size is not None and self.cut.frames is not None

    def check_format(self, extension: str) -> None:
        """Raise ValueError for a format that cannot hold the clips."""
        super().check_format(extension)
        if self.channels == 1 and extension == "webp":
            raise ValueError("--channels 1 with --format webp: WebP has no grey and would be read as RGB; take npy")

    def convert(self, data: bytes, name: str, extension: str) -> Iterator[Encoded]:
        """The clips of a video. Raises DecodeError, and UnfitError if a library or a flag does not fit."""
        picture = Conversion(self.size, self.channels, self.crop)
        with self._opened(data, name, picture) as film:
            if self.cut.fps is not None and film.shown is None:
                raise UnfitError(f"{name} has no times of its frames: --fps is for video files and animations")
            if film.count == 1 and self.cut.frames != 1:
                raise DecodeError("has one frame: a clip needs several")
            clips = self.cut.clips_of(film.count, film.shown)
            _check_positions(len(clips[0]), self.size or film.frame_size())
            for clip in _cut(film, clips, picture):
                yield Encoded(modality("video").encode(clip, extension), clip.shape[1:])

    def flags(self) -> dict[str, str]:
        """Everything that determines the bytes of the samples, by flags."""
        cut = self.cut
        return {
            "--size": "" if self.size is None else f"{self.size[1]}x{self.size[0]}",
            "--crop": "center" if self.crop else "none",
            "--channels": "" if self.channels is None else f"{self.channels}",
            "--frames": "" if cut.frames is None else f"{cut.frames}",
            "--stride": f"{cut.stride}",
            "--fps": "" if cut.fps is None else f"{cut.fps:g}",
            "--clips-per-video": f"{cut.clips or 'all'}",
            "--array-layout": self.layout,
        }

    def describe_size(self, size: tuple[int, ...]) -> str:
        """A size as frames and the form of --size."""
        return f"{size[0]} frames of {size[2]}x{size[1]}"

    @contextmanager
    def _opened(self, data: bytes, name: str, picture: Conversion) -> Iterator[Film]:
        """A video of any kind, by its bytes. Raises DecodeError, UnfitError."""
        if is_joined(data):
            yield FolderFilm(split_parts(data), lambda file: picture_of(file, picture))
        elif data.startswith(_NPY_SIGNATURE):
            yield ArrayFilm(data, self.layout or ("" if name.lower().endswith(".npy") else _MEMBER_LAYOUT))
        elif data.startswith(b"\xff\xd8"):
            raise DecodeError("is a JPEG, a still picture; the frames of a video need a folder of their own")
        elif _is_picture(data):
            with open_animation(data) as animation:
                yield animation
        else:
            with open_container(data, name) as container:
                yield container


def _is_picture(data: bytes) -> bool:
    return data.startswith((b"GIF8", b"\x89PNG")) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def _check_positions(frames: int, size: tuple[int, int]) -> None:
    """Raise DecodeError for a clip that is too large, before it is decoded."""
    if frames * size[0] * size[1] > MAX_PIXELS:
        raise DecodeError(
            f"makes clips of {times((frames, *size))}: at most {MAX_PIXELS:,} positions are allowed; make them smaller "
            "with --frames and --size"
        )


def _cut(film: Film, clips: list[list[int]], picture: Conversion) -> Iterator[Pixels]:
    """The clips, uint8 [C, T, H, W] each. A frame is decoded once, and kept while a clip still needs it."""
    wanted = sorted({number for clip in clips for number in clip})
    coming, kept = film.frames(wanted), dict[int, Pixels]()
    for clip in clips:
        kept = {number: pixels for number, pixels in kept.items() if number >= clip[0]}
        while not kept or max(kept) < clip[-1]:
            number, frame = next(coming)
            kept[number] = _fit(frame, picture)
        frames = [kept[number] for number in clip]
        channels = max(map(len, frames))  # a folder may hold grey frames beside coloured ones
        yield np.stack([np.broadcast_to(each, (channels, *each.shape[1:])) for each in frames], axis=1)


def _fit(frame: Frame, picture: Conversion) -> Pixels:
    """A frame as uint8 [C, H, W] in the requested size and channels."""
    if not isinstance(frame, np.ndarray):
        return fitted(frame, picture)
    if picture.size in (None, frame.shape[1:]) and picture.channels in (None, len(frame)):
        return frame
    if len(frame) not in (1, 3):
        raise DecodeError(f"has {counted(len(frame), 'channel')}: only clips of 1 or 3 are resized or converted")
    return fitted(Image.fromarray(frame[0] if len(frame) == 1 else np.moveaxis(frame, 0, -1).copy()), picture)
