"""Pictures that move."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image, ImageSequence

from imagegen_dist.drawing.animation import animate, check_encoder


def frames(size: tuple[int, int], count: int = 5, mode: str = "L") -> list[Image.Image]:
    random = np.random.default_rng(0)
    dims = size if mode == "L" else (*size, 3)
    return [Image.fromarray(random.integers(0, 256, dims, dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_webp_keeps_every_pixel_of_every_frame(mode: str) -> None:
    made = frames((17, 20), mode=mode)
    with Image.open(io.BytesIO(animate(made, "webp", fps=20))) as film:
        assert film.n_frames == 5
        assert film.info["loop"] == 0
        for frame, expected in zip(ImageSequence.Iterator(film), made, strict=True):
            assert np.array_equal(np.asarray(frame.convert("RGB")), np.asarray(expected.convert("RGB")))
            assert film.info["duration"] == 50


def test_mp4_has_every_frame_and_even_sides(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(animate([Image.new("L", (33, 47), level) for level in (0, 80, 160, 240)], "mp4", fps=10))
    command = [get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True)
    assert b"34x48" in decoded.stderr
    assert b"10 fps" in decoded.stderr
    found = np.frombuffer(decoded.stdout, np.uint8).reshape(4, 48, 34, 3)
    assert [round(float(frame.mean()) / 80) for frame in found] == [0, 1, 2, 3]


def test_other_endings_and_a_missing_encoder_are_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"an animation is \.webp or \.mp4, not \.gif"):
        check_encoder("gif")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[video\]' in .*, or take \.webp"):
        check_encoder("mp4")
