"""Pictures that move: animated WebP by Pillow, MP4 where an encoder is installed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imagegen_dist.extras import install_hint
from imagegen_dist.storage import temporary_folder

EXTENSIONS = ("webp", "mp4")


def check_encoder(extension: str) -> None:
    """Raise ValueError where there is no such animation, or nothing here that makes it."""
    if extension not in EXTENSIONS:
        raise ValueError(f"an animation is .{' or .'.join(EXTENSIONS)}, not .{extension}")
    if extension == "mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise ValueError(
                f"an .mp4 needs an encoder that is not installed: {install_hint('video')}, or take .webp"
            ) from None


def animate(frames: Sequence[Image.Image], extension: str, fps: float) -> bytes:
    """An animation without end, or for mp4 a film, of pictures of one size. Errors as `check_encoder`'s.

    WebP keeps every pixel. MP4 (H.264, 4:2:0) does not, and repeats the last row or column where a side is odd.
    """
    check_encoder(extension)
    return _webp(frames, fps) if extension == "webp" else _mp4(frames, fps)


def _webp(frames: Sequence[Image.Image], fps: float) -> bytes:
    target = io.BytesIO()
    first, *rest = frames
    first.save(target, "WEBP", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, lossless=True)
    return target.getvalue()


def _mp4(frames: Sequence[Image.Image], fps: float) -> bytes:
    import imageio_ffmpeg

    pixels = [_even(np.asarray(frame.convert("RGB"))) for frame in frames]
    height, width, _ = pixels[0].shape
    with temporary_folder("film") as folder:
        path = folder / "film.mp4"
        writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, macro_block_size=2, quality=8)
        writer.send(None)
        for each in pixels:
            writer.send(np.ascontiguousarray(each))
        writer.close()
        _check_film(path, len(pixels))
        return path.read_bytes()


def _check_film(path: Path, frames: int) -> None:
    """Raise RuntimeError where the encoder failed, which it only tells standard error."""
    import imageio_ffmpeg

    try:
        found, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError as error:
        raise RuntimeError("the encoder wrote no film that can be read") from error
    if found != frames:
        raise RuntimeError(f"the encoder wrote {found} of {frames} frames")


def _even(pixels: np.ndarray) -> np.ndarray:
    """[H, W, 3] with even sides."""
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
