"""A folder of frames as a video: pictures of one size, in the natural order of their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from imagegen_dist.data.picture import DecodeError, picture_shape, times
from imagegen_dist.data.video.film import Film, check_frame_count, check_frame_size


class FolderFilm(Film):
    """Frames in files of their own. decode: turns a file into a picture."""

    def __init__(self, files: Sequence[tuple[str, bytes]], decode: Callable[[bytes], Image.Image]) -> None:
        self._files, self._decode = files, decode
        self.count = len(files)
        check_frame_count(self.count)
        self._size = self._size_of(0)
        check_frame_size(*self._size)

    def frame_size(self) -> tuple[int, int]:
        """The size of the first frame."""
        return self._size

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Decode frames, which must have the size of the first one."""
        for number in wanted:
            name, data = self._files[number]
            size = self._size_of(number)
            if size != self._size:
                first = self._files[0][0]
                raise DecodeError(f"has frames of several sizes: {first} is {times(self._size)}, {name} {times(size)}")
            try:
                yield number, self._decode(data)
            except DecodeError as error:
                raise DecodeError(f"has a damaged frame: {name} {error}") from error

    def _size_of(self, number: int) -> tuple[int, int]:
        name, data = self._files[number]
        try:
            return picture_shape(data)[1]
        except DecodeError as error:
            raise DecodeError(f"has a damaged frame: {name} {error}") from error
