"""Animated pictures (GIF, WebP, PNG) as videos, decoded by Pillow."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

from PIL import Image, UnidentifiedImageError

from imagegen_dist.data.animated import frame_durations
from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.video.film import Film, Shown, check_frame_count, check_frame_size
from imagegen_dist.wording import counted, first_line

_FORMATS = ("GIF", "WEBP", "PNG")
_GREY = ("1", "L", "LA")
_FASTEST_MS, _USUAL_MS = 10, 100  # browsers show frames of at most 10 ms for 100


class AnimationFilm(Film):
    """An animated picture, whose frames last so many milliseconds. Raises DecodeError if it is huge."""

    def __init__(self, picture: Image.Image, durations: Sequence[int]) -> None:
        check_frame_size(picture.height, picture.width)
        check_frame_count(len(durations))
        self._picture, self._grey = picture, picture.mode in _GREY
        self._first = int(bool(picture.info.get("default_image")))  # an APNG may begin with a picture for other viewers
        self.count = len(durations)
        shown = [_USUAL_MS if each <= _FASTEST_MS else each for each in durations]
        *starts, end = accumulate(shown, initial=0)
        self.shown = Shown(tuple(start / 1000 for start in starts), end / 1000)

    def frame_size(self) -> tuple[int, int]:
        """The size of the canvas."""
        return self._picture.height, self._picture.width

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Decode frames; transparency is drawn on white."""
        for number in wanted:
            self._picture.seek(self._first + number)
            yield number, self._drawn(self._picture)

    def _drawn(self, picture: Image.Image) -> Image.Image:
        mode = "L" if self._grey else "RGB"
        if not picture.has_transparency_data:
            return picture.convert(mode)
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert(mode)


@contextmanager
def open_animation(data: bytes) -> Iterator[AnimationFilm]:
    """Open an animated picture. Whatever Pillow raises in the block becomes DecodeError, as do still and cut ones."""
    durations, whole = frame_durations(data)
    if not whole:
        raise DecodeError(f"is truncated or damaged: it ends after {counted(len(durations), 'frame')}")
    if len(durations) < 2:
        raise DecodeError("is a still picture, not a video; the frames of a video need a folder of their own")
    with warnings.catch_warnings(action="ignore"):
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                yield AnimationFilm(picture, durations)
        except (DecodeError, GeneratorExit):
            raise
        except UnidentifiedImageError as error:
            raise DecodeError("is not a picture, or has an unknown format") from error
        except Image.DecompressionBombError as error:
            raise DecodeError(f"is too large: {first_line(error)}") from error
        except Exception as error:  # Pillow raises errors of any kind for damaged files
            raise DecodeError(f"cannot be decoded: {first_line(error)}") from error
