"""Small videos for tests: frames that can be told apart, written to files of every kind."""

import io
import struct
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Clip = NDArray[np.uint8]


def numbered(count: int = 12, size: tuple[int, int] = (24, 32), first: int = 0) -> Clip:
    """Frames [T, H, W, 3] with a level of their own, by which `numbers` tells them; their upper half is darker."""
    levels = (np.arange(first, first + count) * 6 + 3).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (count, *size, 3)).copy()
    frames[:, : size[0] // 2] //= 2
    return frames


def numbers(clip: Clip) -> list[int]:
    """The numbers of the frames of a clip [C, T, H, W] that was made of `numbered`."""
    below = clip[0, :, clip.shape[2] * 3 // 4, clip.shape[3] // 2].astype(float)
    return [round((level - 3) / 6) for level in below]


def mp4(
    frames: Clip,
    rate: int = 25,
    codec: str = "libx264",
    suffix: str = ".mp4",
    stamps_ms: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """A video file. stamps_ms: when each frame is shown, for a variable rate."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"film{suffix}"
        with av.open(str(path), "w", options={"movflags": "faststart"} if suffix == ".mp4" else {}) as film:
            stream = film.add_stream(codec, rate, options or {"crf": "1"})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt, stream.thread_count = "yuv420p", 1
            if stamps_ms is not None:
                stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            for number, frame in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                if stamps_ms is not None:
                    picture.pts, picture.time_base = stamps_ms[number], Fraction(1, 1000)
                film.mux(stream.encode(picture))
            film.mux(stream.encode(None))
        return path.read_bytes()


def song() -> bytes:
    """A file of sound alone."""
    import av

    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as film:
        stream = film.add_stream("aac", 44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        sound.sample_rate = 44100
        film.mux(stream.encode(sound))
        film.mux(stream.encode(None))
    return target.getvalue()


def turned(film: bytes) -> bytes:
    """An MP4 as a phone that was held upright writes it: the matrix of its track turns it by 90 degrees to the right.

    (ISO/IEC 14496-12, 8.3.2)
    """
    at = film.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 8
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 24 << 16, 0, 1 << 30)
    return film[:at] + matrix + film[at + len(matrix) :]


def animation(frames: Clip, form: str, duration_ms: int | Sequence[int] = 40) -> bytes:
    """A GIF, WebP or PNG."""
    target = io.BytesIO()
    first, *rest = map(Image.fromarray, frames)
    lossless = {"lossless": True} if form == "WEBP" else {}
    durations = list(duration_ms) if isinstance(duration_ms, Sequence) else duration_ms
    first.save(target, form, save_all=True, append_images=rest, duration=durations, **lossless)
    return target.getvalue()


def array(values: np.ndarray) -> bytes:
    """An .npy file."""
    target = io.BytesIO()
    np.save(target, values)
    return target.getvalue()


def png(frame: np.ndarray) -> bytes:
    """A still picture."""
    target = io.BytesIO()
    Image.fromarray(frame).save(target, "PNG")
    return target.getvalue()
