"""Pictures that move."""

import io
import sys

import numpy as np
import pytest
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


def test_mp4_has_every_frame_and_even_sides_and_always_the_same_bytes() -> None:
    av = pytest.importorskip("av")
    levels = [Image.new("L", (33, 47), level) for level in (0, 80, 160, 240)]
    film = animate(levels, "mp4", fps=10)
    assert film == animate(levels, "mp4", fps=10)
    with av.open(io.BytesIO(film)) as opened:
        stream = opened.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (34, 48, 10)
        found = [frame.to_ndarray(format="rgb24") for frame in opened.decode(stream)]
    assert [round(float(frame.mean()) / 80) for frame in found] == [0, 1, 2, 3]


def test_other_endings_and_a_missing_encoder_are_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"an animation is \.webp or \.mp4, not \.gif"):
        check_encoder("gif")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[video\]' in .*, or take \.webp"):
        check_encoder("mp4")
