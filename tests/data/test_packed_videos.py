"""Videos are packed by `imagegen data pack`: bad ones are counted and named, and clips go in and films come out."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from imagegen_dist import config
from imagegen_dist.cli.data import main
from imagegen_dist.cli.sample import main as sample
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import read_samples
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from tests.data import videos
from tests.runs import Listener, train_here

av = pytest.importorskip("av")

VIDEO = ("--modality", "video", "--workers", "0")
COUNT = 12


def packed(source: Path, dest: Path, *flags: str) -> tuple[DatasetIndex, np.ndarray]:
    assert main([str(source), str(dest), *VIDEO, *flags]) == DONE
    index = DatasetIndex.load(Store(dest))
    return index, read_samples(index, Store(dest), range(index.samples))[0].numpy()


def damaged_webp() -> bytes:
    film = videos.animation(videos.numbered(9), "WEBP")
    at = film.rindex(b"VP8L") + 9
    return film[:at] + b"\xff" * 6 + film[at + 6 :]


BAD = {
    "one_frame.gif": ("is a still picture, not a video", lambda film, gif: videos.animation(videos.numbered(1), "GIF")),
    "cut.gif": ("is truncated or damaged: it ends after", lambda film, gif: gif[: len(gif) // 2]),
    "damaged.webp": ("cannot be decoded", lambda film, gif: damaged_webp()),
    "huge.gif": ("is too large", lambda film, gif: gif[:6] + b"\xff" * 4 + gif[10:]),
    "short.webp": ("has 3 frames: too few", lambda film, gif: videos.animation(videos.numbered(3), "WEBP")),
    "float.npy": ("is an array of float32", lambda film, gif: videos.array(np.zeros((9, 24, 32), np.float32))),
    "pickled.npy": ("holds pickled objects", lambda film, gif: videos.array(np.array([[[None]]]))),
    "flat.npy": ("a clip has the axes T, H, W", lambda film, gif: videos.array(np.zeros((9, 9), np.uint8))),
    "doubt.npy": ("give|say so with --array-layout", lambda film, gif: videos.array(np.zeros((3, 9, 9, 3), np.uint8))),
    "lying.npy": ("has 100 bytes of data where", lambda film, gif: videos.array(np.zeros((9, 99, 99), np.uint8))[:228]),
    "list.mp4": ("is not a video", lambda film, gif: b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
    "cut.mp4": ("is truncated or damaged", lambda film, gif: film[: len(film) * 2 // 3]),
    "headless.mp4": ("cannot be decoded|has no video", lambda film, gif: film[: len(film) // 8]),
    "song.mp4": ("has no video, only audio", lambda film, gif: videos.song()),
    "alien.mp4": ("codec that is not supported", lambda film, gif: film.replace(b"avc1", b"zzzz")),
}


def test_bad_videos_are_left_out_and_named_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film, gif = videos.mp4(videos.numbered(COUNT)), videos.animation(videos.numbered(COUNT), "GIF")
    (tmp_path / "clips").mkdir()
    for name, (_, made) in {**BAD, "good.mp4": ("", lambda film, gif: film)}.items():
        (tmp_path / "clips" / name).write_bytes(made(film, gif))
    index, clips = packed(tmp_path / "clips", tmp_path / "shards", "--frames", "8", "--max-bad", "1")
    assert (index.modality, index.shape.dims, len(clips)) == ("video", (3, 8, 24, 32), 1)
    said = capsys.readouterr().err
    assert f"{len(BAD)} of {len(BAD) + 1} videos cannot be decoded" in said
    lines = dict(line.split(" ", 1) for line in (tmp_path / "shards" / "undecodable.txt").read_text().splitlines())
    assert lines.keys() == BAD.keys()
    for name, (expected, _) in BAD.items():
        assert any(part in lines[name] for part in expected.split("|")), (name, lines[name])


def test_folders_of_frames_are_videos_in_a_folder_and_in_a_zip(tmp_path: Path) -> None:
    for label, first in (("fall", 0), ("rise", 20)):
        for video in range(2):
            place = tmp_path / "clips" / label / f"{video}"
            place.mkdir(parents=True)
            for number, frame in enumerate(videos.numbered(11, first=first + video)):
                (place / f"frame{number}.png").write_bytes(videos.png(frame))
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        for path in sorted((tmp_path / "clips").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "clips"))
    flags = ("--frames", "3", "--stride", "4", "--size", "8x8", "--channels", "1")
    for source in ("clips", "clips.zip"):
        index, clips = packed(tmp_path / source, tmp_path / f"shards of {source}", *flags)
        assert index.class_names == ("fall", "rise")
        assert index.class_counts == (2, 2)
        assert clips.shape == (4, 1, 3, 8, 8)
        # From the middle of eleven frames, in the order of numbers: 1, 5 and 9, not 1, 10, 2.
        assert sorted(videos.numbers(clip) for clip in clips) == [[at, at + 4, at + 8] for at in (1, 2, 21, 22)]


def test_no_video_has_clips_on_both_sides_of_a_split(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for video in range(8):
        frames = np.full((20, 6, 6), video * 20, np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None]
        (tmp_path / "clips" / f"{video}.npy").write_bytes(videos.array(frames))
    flags = ("--frames", "4", "--clips-per-video", "5", "--split", "train:0.5,val:0.5")
    assert main([str(tmp_path / "clips"), str(tmp_path / "shards"), *VIDEO, *flags]) == DONE
    of = []
    for name in ("train", "val"):
        store = Store(tmp_path / "shards" / name)
        index = DatasetIndex.load(store)
        assert index.samples == 20
        clips = read_samples(index, store, range(20))[0].numpy()
        of.append(set((clips[:, 0, 0, 0, 0] // 20).tolist()))
    assert len(of[0]) == len(of[1]) == 4
    assert not of[0] & of[1]


def test_members_of_tars_are_cut_and_clips_of_shards_are_packed_again(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    with tarfile.open(tmp_path / "theirs" / "a.tar", "w") as archive:
        for number in range(3):
            path = tmp_path / f"{number}.mp4"
            path.write_bytes(videos.mp4(videos.numbered(10, first=number)))
            (tmp_path / "label.cls").write_text(f"{number}")
            archive.add(path, f"{number:04}.mp4")
            archive.add(tmp_path / "label.cls", f"{number:04}.cls")
    index, clips = packed(tmp_path / "theirs", tmp_path / "ours", "--frames", "4", "--format", "webp")
    assert (index.classes, index.shape.dims) == (3, (3, 4, 24, 32))
    assert [videos.numbers(clip)[0] for clip in clips] == [3, 4, 5]
    again, smaller = packed(tmp_path / "ours", tmp_path / "again", "--size", "8x8", "--frames", "2")
    assert (again.classes, again.shape.dims) == (3, (3, 2, 8, 8))
    assert [videos.numbers(clip) for clip in smaller] == [[4, 5], [5, 6], [6, 7]]


def test_animated_members_are_not_indexed_as_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = tmp_path / "0000.gif"
    film.write_bytes(videos.animation(videos.numbered(3), "GIF"))
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "a.tar", "w") as archive:
        archive.add(film, film.name)
    index = ("--index-only", str(tmp_path / "shards"), "--workers", "0")
    assert main(index) == MISUSED
    assert "sample 0000 is animated: --modality video packs clips" in capsys.readouterr().err
    assert main([*index, "--modality", "image"]) == DONE


def test_clips_go_in_and_a_film_comes_out(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "clips").mkdir(exist_ok=True)
        (tmp_path / "clips" / f"{number}.mp4").write_bytes(videos.mp4(videos.numbered(9, first=number)))
    packed(tmp_path / "clips", tmp_path / "data", "--frames", "4", "--size", "8x8", "--clips-per-video", "all")
    where = RunSettings("run", f"{tmp_path}", "conv-vae", "train_vae", f"{tmp_path / 'data'}", wandb_mode="disabled")
    vae = {"kind": "convvae", "channels": [8, 8], "kernels": [4], "hidden": [16], "latent": 4, "embed_dim": 4}
    changes = {"model": vae, "objective": {"kind": "vae"}, "training.batch_size": 4}
    changes |= {"training.microbatch_size": 2, "training.total_images": 16, "evaluation.samples": 0}
    experiment = config.overrides(find_preset("digits-vae").experiment, changes.items())
    assert train_here(experiment, where, Listener()).complete
    film = tmp_path / "film.mp4"
    assert sample([where.folder.url, "--seeds", "0-3", "--grid", f"{film}", "--fps", "5"]) == DONE
    with av.open(io.BytesIO(film.read_bytes())) as opened:
        stream = opened.streams.video[0]
        assert (stream.average_rate, sum(1 for _ in opened.decode(stream))) == (5, 4)
