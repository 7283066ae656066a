"""Animations: WebP by Pillow, and MP4 by PyAV if that is installed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from PIL import Image, ImageSequence

from imagegen_dist.extras import install_hint
from imagegen_dist.storage import temporary_folder

FILMS = ("webp", "mp4")
"""Extensions of films."""

_QUALITY = 85  # of a WebP that is not lossless
_CRF = 10  # x264's constant rate factor, from 0 (lossless) to 51
_LARGEST_RATE = 1001  # denominator of a frame rate, as in 30000/1001


def check_encoder(extension: str) -> None:
    """Raise ValueError for an unknown extension, and if the encoder of a known one is not installed."""
    if extension not in FILMS:
        raise ValueError(f"an animation is .{' or .'.join(FILMS)}, not .{extension}")
    if extension == "mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            raise ValueError(
                f"an .mp4 needs PyAV, which is not installed: {install_hint('video')}, or take .webp"
            ) from None


def animate(frames: Sequence[Image.Image], extension: str, fps: float, lossless: bool = True) -> bytes:
    """Encode pictures of one size as an endlessly repeating WebP or an MP4. Raises as `check_encoder`.

    WebP is lossless unless something else is asked for. MP4 (H.264, 4:2:0) never is, and repeats the last row or column
    if a side is odd.
    """
    check_encoder(extension)
    return _webp(frames, fps, lossless) if extension == "webp" else _mp4(frames, fps)


def is_film(data: bytes) -> bool:
    """True for a picture with several frames."""
    with Image.open(io.BytesIO(data)) as picture:
        return bool(getattr(picture, "is_animated", False))


def as_video(film: bytes) -> tuple[bytes, str]:
    """A film as (bytes, extension) for what plays no WebP: an MP4, or without PyAV a GIF of 256 colours."""
    with Image.open(io.BytesIO(film)) as opened:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(opened)]
        fps = 1000 / opened.info["duration"]
    try:
        return animate(frames, "mp4", fps), "mp4"
    except ValueError:
        target = io.BytesIO()
        first, *rest = frames
        first.save(target, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
        return target.getvalue(), "gif"


def first_frame(film: bytes) -> bytes:
    """The first frame of a film as a WebP."""
    target = io.BytesIO()
    with Image.open(io.BytesIO(film)) as opened:
        opened.convert("RGB").save(target, "WEBP", quality=_QUALITY)
    return target.getvalue()


def _webp(frames: Sequence[Image.Image], fps: float, lossless: bool) -> bytes:
    target = io.BytesIO()
    first, *rest = frames
    how = {"lossless": True} if lossless else {"quality": _QUALITY}
    first.save(target, "WEBP", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, **how)
    return target.getvalue()


def _mp4(frames: Sequence[Image.Image], fps: float) -> bytes:
    import av

    pixels = [_even(np.asarray(frame.convert("RGB"))) for frame in frames]
    with temporary_folder("film") as folder:
        path = folder / "film.mp4"  # a file, since its index is moved to the beginning in the end
        with av.open(str(path), "w", options={"movflags": "faststart"}) as film:
            stream = film.add_stream("libx264", Fraction(fps).limit_denominator(_LARGEST_RATE), {"crf": f"{_CRF}"})
            stream.height, stream.width, _ = pixels[0].shape
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1  # several threads would encode the same frames to other bytes
            for each in pixels:
                film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(each), format="rgb24")))
            film.mux(stream.encode(None))
        return path.read_bytes()


def _even(pixels: np.ndarray) -> np.ndarray:
    """Pad [H, W, 3] to even sides."""
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
