"""How samples of each modality are drawn: a page of many, a film, a strip for print, and further views in a report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from PIL import Image

from imagegen_dist.drawing.animation import animate
from imagegen_dist.drawing.png import save_png
from imagegen_dist.drawing.slices import middle_slices
from imagegen_dist.drawing.surfaces import can_mesh, scene
from imagegen_dist.drawing.tiles import Pixels, grid, shown

File = tuple[bytes, str]
"""An encoded picture or mesh, and its extension without a dot."""

TURN_FRAMES = 24
"""Frames of one whole turn of volumes."""

_REPORTED_FRAMES = 16  # of a turn in a report, which is drawn during training
_REPORTED = 10  # samples in a report's further views
_RENDER_SIDE = 80  # pixels
_IN_A_STRIP = 16  # frames of a clip in a strip, at most


class Drawing(ABC):
    """How samples of a modality are drawn.

    moves: its samples can be a film. rendered: a picture of a sample is a view of it, and not its own values. fps:
    frames per second of a film of samples; path_fps: of a film whose samples change from frame to frame. further:
    captions of `further_pictures`, by name.
    """

    moves = False
    rendered = False
    fps = path_fps = 24.0
    further: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def frame(
        self, samples: Pixels, number: int, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> Image.Image:
        """Draw samples, uint8 [N, C, *S], in rows of `columns`, as they look in a frame of an endless animation.

        scale: whole factor by which each sample is enlarged without smoothing; None makes small samples readable.
        captions: a few characters below each sample, or none.
        """

    def pages(
        self, samples: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> list[Image.Image]:
        """The picture of samples, or all frames if they move by themselves; arguments as for `frame`."""
        return [self.frame(samples, 0, columns, scale, captions)]

    def film(
        self, samples: Pixels, columns: int, scale: int | None = None, turn_frames: int = TURN_FRAMES
    ) -> Iterator[Image.Image]:
        """The frames of a film of samples: clips play, volumes turn once in `turn_frames` frames."""
        yield from self.pages(samples, columns, scale)

    def as_file(
        self,
        samples: Pixels,
        columns: int,
        extension: str,
        scale: int | None = None,
        fps: float | None = None,
        turn_frames: int = TURN_FRAMES,
    ) -> bytes:
        """`pages` as a PNG, or `film` as a WebP or MP4; views are compressed with losses. Raises as `animate`."""
        if extension == "png":
            return save_png(self.pages(samples, columns, scale))
        frames = list(self.film(samples, columns, scale, turn_frames))
        return animate(frames, extension, fps or self.fps, lossless=not self.rendered)

    def strip(self, samples: Pixels, scale: int | None = None, columns: int = 1) -> Image.Image:
        """A still for print: frames of clips, or slices of volumes, side by side, `columns` samples in a row."""
        raise NotImplementedError

    def preview(self, samples: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()) -> File:
        """`pages` as a file: a PNG."""
        return save_png(self.pages(samples, columns, scale, captions)), "png"

    def further_pictures(self, samples: Pixels) -> dict[str, File]:
        """Further views of the first samples, by the names in `further`."""
        return {}

    def scene(self, samples: Pixels) -> bytes | None:
        """A GLB file with the surfaces of samples as they are drawn, side by side; None if there are none."""
        return None


class PictureDrawing(Drawing):
    """Pictures (H, W): a PNG."""

    def frame(
        self, samples: Pixels, number: int, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> Image.Image:
        return grid(shown(samples), columns, scale, captions)


class ClipDrawing(Drawing):
    """Clips (T, H, W): an animated WebP, and their frames in rows."""

    moves = True
    fps = path_fps = 8.0
    further: ClassVar[Mapping[str, str]] = {"strip": "Frames of the first samples, a row each"}

    def frame(
        self, samples: Pixels, number: int, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> Image.Image:
        return grid(shown(samples[:, :, number % samples.shape[2]]), columns, scale, captions)

    def pages(
        self, samples: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> list[Image.Image]:
        return [self.frame(samples, number, columns, scale, captions) for number in range(samples.shape[2])]

    def strip(self, samples: Pixels, scale: int | None = None, columns: int = 1) -> Image.Image:
        """Frames of each clip from left to right; of more than 16, that many, evenly spaced."""
        length = samples.shape[2]
        times = np.linspace(0, length - 1, min(length, _IN_A_STRIP)).round().astype(int)
        frames = np.moveaxis(samples[:, :, times], 2, 1)
        return grid(shown(frames.reshape(-1, *frames.shape[2:])), columns * len(times), scale)

    def preview(self, samples: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()) -> File:
        """An animated WebP."""
        return animate(self.pages(samples, columns, scale, captions), "webp", self.fps), "webp"

    def further_pictures(self, samples: Pixels) -> dict[str, File]:
        return {"strip": (save_png([self.strip(samples[:_REPORTED])]), "png")}


class VolumeDrawing(Drawing):
    """Volumes (D, H, W): renders of their surfaces, turntables, slices in three planes, meshes.

    W points to the right, H down and D away from the viewer.
    """

    moves = rendered = True
    fps = 12.0
    further: ClassVar[Mapping[str, str]] = {
        "turntable": "The first samples from all sides",
        "surfaces": "Surfaces of the first samples; drag to turn them, or use the arrow keys, + and −",
        "slices": "Slices through the middle of the first samples, across D, H and W",
    }

    def frame(
        self, samples: Pixels, number: int, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> Image.Image:
        from imagegen_dist.drawing.isosurface import View, isosurfaces  # it imports torch

        return grid(isosurfaces(self._turned(samples), View(_side(samples, scale))), columns, 1, captions)

    def film(
        self, samples: Pixels, columns: int, scale: int | None = None, turn_frames: int = TURN_FRAMES
    ) -> Iterator[Image.Image]:
        from imagegen_dist.drawing.isosurface import turntable

        for tiles in turntable(self._turned(samples), _side(samples, scale), turn_frames):
            yield grid(tiles, columns, 1)

    def strip(self, samples: Pixels, scale: int | None = None, columns: int = 1) -> Image.Image:
        """The middle slices across D, H and W of each volume."""
        slices = self._slices(shown(samples))
        return grid(slices.reshape(-1, *slices.shape[2:]), 3 * columns, scale)

    def further_pictures(self, samples: Pixels) -> dict[str, File]:
        some = samples[:_REPORTED]
        turning = list(self.film(some, -(-len(some) // 2), turn_frames=_REPORTED_FRAMES))
        found = {
            "turntable": (animate(turning, "webp", self.fps, lossless=False), "webp"),
            "slices": (save_png([self.strip(some, columns=2)]), "png"),
        }
        mesh = self.scene(some) if can_mesh() else None
        return found if mesh is None else {**found, "surfaces": (mesh, "glb")}

    def scene(self, samples: Pixels) -> bytes | None:
        return scene(self._turned(samples))

    def _turned(self, samples: Pixels) -> Pixels:
        """Volumes [N, C, D, H, W] with W to the right, H down and D away from the viewer."""
        return samples

    def _slices(self, samples: Pixels) -> Pixels:
        """The three slices of each volume, [N, 3, C, side, side]."""
        return middle_slices(samples)


class PatientDrawing(VolumeDrawing):
    """Volumes whose axes (D, H, W) are a patient's superior, anterior and right, drawn as radiologists look at them.

    The patient faces the viewer, head up, so that the patient's right is on the left; axial slices are seen from the
    feet, with the front at the top.
    """

    further: ClassVar[Mapping[str, str]] = {
        **VolumeDrawing.further,
        "slices": "Axial, coronal and sagittal slices through the middle of the first samples; the front or the head "
        "is at the top, and the patient's right on the left",
    }

    def _turned(self, samples: Pixels) -> Pixels:
        return np.ascontiguousarray(samples.swapaxes(2, 3)[:, :, ::-1, ::-1, ::-1])

    def _slices(self, samples: Pixels) -> Pixels:
        return middle_slices(self._turned(samples))[:, [1, 0, 2]]  # axial ones are now across H


def _side(samples: Pixels, scale: int | None) -> int:
    """Pixels of a render's side."""
    return scale * max(samples.shape[2:]) if scale else _RENDER_SIDE
