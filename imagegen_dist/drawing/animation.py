"""Animations: WebP by Pillow, and MP4 if an encoder is installed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imagegen_dist.extras import install_hint
from imagegen_dist.storage import temporary_folder

_EXTENSIONS = ("webp", "mp4")
_QUALITY = 85  # of a WebP that is not lossless


def check_encoder(extension: str) -> None:
    """Raise ValueError for an unknown extension, and if the encoder of a known one is not installed."""
    if extension not in _EXTENSIONS:
        raise ValueError(f"an animation is .{' or .'.join(_EXTENSIONS)}, not .{extension}")
    if extension == "mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise ValueError(
                f"an .mp4 needs an encoder that is not installed: {install_hint('video')}, or take .webp"
            ) from None


def animate(frames: Sequence[Image.Image], extension: str, fps: float, lossless: bool = True) -> bytes:
    """Encode pictures of one size as an endlessly repeating WebP or an MP4. Raises as `check_encoder`.

    WebP is lossless unless something else is asked for. MP4 (H.264, 4:2:0) never is, and repeats the last row or column
    if a side is odd.
    """
    check_encoder(extension)
    return _webp(frames, fps, lossless) if extension == "webp" else _mp4(frames, fps)


def _webp(frames: Sequence[Image.Image], fps: float, lossless: bool) -> bytes:
    target = io.BytesIO()
    first, *rest = frames
    how = {"lossless": True} if lossless else {"quality": _QUALITY}
    first.save(target, "WEBP", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, **how)
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
    """Raise RuntimeError if the encoder failed, which it reports only on standard error."""
    import imageio_ffmpeg

    try:
        found, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError as error:
        raise RuntimeError("the encoder wrote a file that cannot be read") from error
    if found != frames:
        raise RuntimeError(f"the encoder wrote {found} of {frames} frames")


def _even(pixels: np.ndarray) -> np.ndarray:
    """Pad [H, W, 3] to even sides."""
    height, width, _ = pixels.shape
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
