"""Videos as a source: every kind of file gives the same clips, cut as asked, and bad ones are counted and named."""

import sys
from pathlib import Path

import numpy as np
import pytest

from imagegen_dist.cli.data import main
from imagegen_dist.data.modality import modality
from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.sources.base import UnfitError
from imagegen_dist.data.sources.files import join_parts
from imagegen_dist.data.video.conversion import ClipConversion
from imagegen_dist.data.video.cutting import ALL, Cut, steps_of
from imagegen_dist.data.video.film import Shown
from imagegen_dist.errors import MISUSED
from tests.data import videos

VIDEO = ("--modality", "video", "--workers", "0")
COUNT = 12


def clips_of(data: bytes, name: str, conversion: ClipConversion, form: str = "npy") -> list[np.ndarray]:
    """The samples of a video, decoded."""
    found = []
    for sample in conversion.convert(data, name, form):
        out = np.empty((3, *sample.size), np.uint8)
        modality("video").decode_into(sample.data, form, out)
        found.append(out)
    return found


def files() -> dict[str, bytes]:
    """The same twelve frames in every kind of file that needs no library."""
    frames = videos.numbered(COUNT)
    return {
        "a.gif": videos.animation(frames, "GIF"),
        "a.webp": videos.animation(frames, "WEBP"),
        "a.apng": videos.animation(frames, "PNG"),
        "last.npy": videos.array(frames),
        "first.npy": videos.array(np.moveaxis(frames, -1, 0)),
        "second.npy": videos.array(np.moveaxis(frames, -1, 1)),
        "grey.npy": videos.array(frames[..., 0]),
        "columns.npy": videos.array(np.asfortranarray(frames)),
        "frames": join_parts([(f"{at}.png", videos.png(frame)) for at, frame in enumerate(frames)]),
    }


@pytest.mark.parametrize("name", files())
def test_every_kind_of_file_gives_the_frames_that_it_holds(name: str) -> None:
    (clip,) = clips_of(files()[name], name, ClipConversion())
    assert np.array_equal(clip, np.moveaxis(videos.numbered(COUNT), -1, 0))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "libx264"), (".mov", "libx264"), (".webm", "libvpx"), (".mkv", "libx264"), (".avi", "mpeg4")],
)
def test_every_container_gives_the_frames_that_are_asked_for(suffix: str, codec: str) -> None:
    pytest.importorskip("av")
    frames = videos.numbered(40)
    film = videos.mp4(frames, codec=codec, suffix=suffix, options={"g": "7", "b": "4M"})
    conversion = ClipConversion(Cut(frames=4, stride=2, clips=4))
    found = clips_of(film, f"a{suffix}", conversion)
    assert [videos.numbers(clip) for clip in found] == [[at, at + 2, at + 4, at + 6] for at in (0, 11, 22, 33)]
    assert np.abs(found[1].astype(float) - np.moveaxis(frames[11:19:2], -1, 0)).mean() < 3


def test_clips_are_cut_from_the_middle_evenly_or_side_by_side() -> None:
    def firsts(**cut: int) -> list[int]:
        return [clip[0] for clip in Cut(**cut).clips_of(20, None)]

    assert firsts(frames=4) == [8]
    assert firsts(frames=4, clips=3) == [0, 8, 16]
    assert firsts(frames=4, clips=ALL) == [0, 4, 8, 12, 16]
    assert firsts(frames=6, stride=3, clips=100) == [0, 1, 2, 3, 4]  # never the same clip twice
    assert Cut().clips_of(5, None) == [[0, 1, 2, 3, 4]]
    with pytest.raises(DecodeError, match=r"has 20 frames: too few for a clip of 6 frames with --stride 4"):
        firsts(frames=6, stride=4)


def test_time_is_kept_where_the_rate_varies_or_another_one_is_asked_for() -> None:
    even = Shown(tuple(number / 30 for number in range(30)), 1.0)
    assert steps_of(30, even, None) == list(range(30))
    assert steps_of(30, even, 10) == list(range(0, 30, 3))
    assert steps_of(30, even, 60) == [number // 2 for number in range(60)]
    rounded = Shown(tuple(round(number / 30, 3) for number in range(30)), 1.0)
    assert steps_of(30, rounded, 10) == list(range(0, 30, 3))
    pause = Shown((0.0, 0.1, 0.2, 0.5, 0.6), 0.7)
    assert steps_of(5, pause, None) == [0, 1, 2, 2, 2, 3, 4]


def test_a_variable_rate_keeps_its_time_in_files() -> None:
    slow = [0, 40, 80, 240, 280, 320]
    (clip,) = clips_of(
        videos.animation(videos.numbered(6), "GIF", [40, 40, 160, 40, 40, 40]), "a.gif", ClipConversion()
    )
    assert videos.numbers(clip) == [0, 1, 2, 2, 2, 2, 3, 4, 5]
    pytest.importorskip("av")
    (clip,) = clips_of(videos.mp4(videos.numbered(6), stamps_ms=slow), "a.mp4", ClipConversion())
    assert videos.numbers(clip) == [0, 1, 2, 2, 2, 2, 3, 4, 5]
    (clip,) = clips_of(videos.mp4(videos.numbered(6), stamps_ms=slow), "a.mp4", ClipConversion(Cut(fps=12.5)))
    assert videos.numbers(clip) == [0, 2, 2, 3]


def test_a_title_in_another_encoding_is_no_damage() -> None:
    pytest.importorskip("av")
    film = videos.mp4(videos.numbered(4), suffix=".mkv")
    assert film.count(b"Lavf") > 1  # the names of programs that wrote it, as metadata
    (clip,) = clips_of(film.replace(b"Lavf", b"L\xe4vf"), "a.mkv", ClipConversion())
    assert videos.numbers(clip) == [0, 1, 2, 3]


def test_a_phone_s_video_is_upright() -> None:
    pytest.importorskip("av")
    (clip,) = clips_of(videos.turned(videos.mp4(videos.numbered(4))), "a.mp4", ClipConversion())
    assert clip.shape == (3, 4, 32, 24)
    left, right = clip[0, 3, :, 4].mean(), clip[0, 3, :, -5].mean()
    assert right < left  # what was above is on the right


def test_clips_are_stored_as_webp_without_loss_also_where_they_stand_still() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 11, 3), np.uint8)
    still = np.repeat(noise[:1], 6, 0)
    pause = noise[[0, 0, 1, 1, 1, 2]]
    for frames in (noise, still, pause, noise[:1]):
        conversion = ClipConversion(Cut(frames=len(frames)), layout="last")
        for form in ("webp", "npy"):
            (clip,) = clips_of(videos.array(frames), "a.npy", conversion, form)
            assert np.array_equal(clip, np.moveaxis(frames, -1, 0))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--clips-per-video", "3"), "give --frames as well"),
        (("--clips-per-video", "0"), "a number from 1 to"),
        (("--frames", "0"), "--frames 0: a number from 1"),
        (("--fps", "0"), "--fps 0: a rate above 0"),
        (("--fps", "5"), "has no times of its frames"),
        (("--format", "jpg"), "videos are stored as npy, webp"),
        (("--channels", "4"), "clips have 1 (grey) or 3 (RGB)"),
        (("--size", "8x8x8"), "give WIDTHxHEIGHT in pixels"),
        (("--icc", "keep"), "--icc is for --modality image, and this packs video"),
        ((), "the videos have several sizes: "),
    ],
)
def test_a_mistake_is_one_line(
    flags: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    for size in (6, 8):
        clip = np.zeros((5, size, size), np.uint8)
        (tmp_path / "clips" / f"{size}.npy").write_bytes(videos.array(clip))
    assert main([str(tmp_path / "clips"), str(tmp_path / "shards"), *VIDEO, *flags]) == MISUSED
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_a_file_that_needs_a_missing_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UnfitError, match=r"a\.mp4 is a video file, which PyAV reads: pip install -e '\.\[video\]'"):
        list(ClipConversion().convert(b"\0\0\0\x18ftypisom", "a.mp4", "npy"))


def test_videos_where_pictures_are_expected_are_named_with_the_flag_that_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips" / "a").mkdir(parents=True)
    (tmp_path / "clips" / "a" / "0.mp4").write_bytes(b"film")
    for place in ("clips", "clips/a"):
        assert main([str(tmp_path / place), str(tmp_path / "shards")]) == MISUSED
        said = capsys.readouterr().err
        assert "; --modality video packs files such as " in said
        assert said.endswith("0.mp4\n")
    (tmp_path / "clips" / "a" / "0.mp4").rename(tmp_path / "clips" / "a" / "0.jpg")
    assert main([str(tmp_path / "clips" / "a"), str(tmp_path / "shards"), *VIDEO]) == MISUSED
    assert "0.jpg is a part of a video: the files of each video need a folder" in capsys.readouterr().err
