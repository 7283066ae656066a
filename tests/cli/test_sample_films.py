"""jobs/sample.py with models of clips and of volumes: films, strips and meshes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagegen_dist import load
from imagegen_dist.cli.sample import main
from imagegen_dist.errors import DONE
from tests.checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of clips [3, 4, 8, 8]."""
    return write_checkpoint(tmp_path_factory.mktemp("clips"), "video")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of volumes [1, 8, 8, 8]."""
    return write_checkpoint(tmp_path_factory.mktemp("volumes"), "voxels")


def film(path: Path) -> np.ndarray:
    """The frames of a WebP, [F, H, W, 3]."""
    with Image.open(path) as opened:
        frames = []
        for number in range(opened.n_frames):
            opened.seek(number)
            frames.append(np.asarray(opened.convert("RGB")))
        return np.stack(frames)


def clip(url: str, seed: int) -> np.ndarray:
    """The clip of a seed, of class 1, [T, H, W, 3]."""
    return np.moveaxis(load(url).sample(1, classes=1, seed=seed)[0].numpy(), 0, -1)


def test_clips_play_in_a_grid_and_lie_side_by_side_in_a_strip(clips: str, tmp_path: Path) -> None:
    out, strip = tmp_path / "out.webp", tmp_path / "strip.png"
    command = [clips, "--seeds", "5,9", "--classes", "1", "--scale", "2"]
    assert main([*command, "--grid", str(out), "--strip", str(strip)]) == DONE
    played, lying = film(out), np.asarray(Image.open(strip))
    assert played.shape == (4, 34, 16, 3)
    assert lying.shape == (34, 4 * 18 - 2, 3)
    for row, seed in enumerate((5, 9)):
        for time, expected in enumerate(clip(clips, seed)):
            assert np.array_equal(played[time, 18 * row : 18 * row + 16 : 2, ::2], expected)
            assert np.array_equal(lying[18 * row : 18 * row + 16 : 2, 18 * time : 18 * time + 16 : 2], expected)
    assert main([*command, "--grid", str(tmp_path / "again.webp")]) == DONE
    assert (tmp_path / "again.webp").read_bytes() == out.read_bytes()


def test_a_clip_plays_while_its_latents_move(clips: str, tmp_path: Path) -> None:
    out = tmp_path / "out.webp"
    command = [clips, "--seeds", "4,7", "--classes", "1", "--interpolate", str(out), "--frames", "6", "--scale", "1"]
    assert main(command) == DONE
    played = film(out)
    assert len(played) == 12
    for frame, seed, time in ((0, 4, 0), (6, 7, 6 % 4)):
        assert np.array_equal(played[frame], clip(clips, seed)[time])
    with Image.open(out) as opened:
        opened.load()
        assert opened.info["duration"] == 125


def test_an_mp4_has_the_frames_the_rate_and_the_contents_of_the_clips(clips: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    assert main([clips, "--seeds", "5", "--classes", "1", "--folder", str(tmp_path / "a"), "--format", "mp4"]) == DONE
    command = [clips, "--seeds", "5", "--classes", "1", "--grid", str(tmp_path / "b.mp4"), "--fps", "5"]
    assert main([*command, "--scale", "16"]) == DONE
    with av.open(str(tmp_path / "a" / "seed000005-class1.mp4")) as opened:
        assert len(list(opened.decode(video=0))) == 4
    with av.open(str(tmp_path / "b.mp4")) as opened:
        assert opened.streams.video[0].average_rate == 5
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in opened.decode(video=0)]
    expected = clip(clips, 5).repeat(16, 1).repeat(16, 2)
    assert len(frames) == 4
    assert abs(np.stack(frames).mean((1, 2)) - expected.mean((1, 2))).max() < 6


def test_a_folder_of_clips_has_films_of_their_own_size(clips: str, tmp_path: Path) -> None:
    assert main([clips, "--seeds", "3", "--classes", "1", "--folder", str(tmp_path / "out")]) == DONE
    [path] = (tmp_path / "out").iterdir()
    assert path.name == "seed000003-class1.webp"
    assert np.array_equal(film(path), clip(clips, 3))
    command = [clips, "--seeds", "3", "--classes", "1", "--folder", str(tmp_path / "arrays"), "--format", "npy"]
    assert main(command) == DONE
    read = np.load(io.BytesIO((tmp_path / "arrays" / "seed000003-class1.npy").read_bytes()))
    assert np.array_equal(np.moveaxis(read, 0, -1), clip(clips, 3))


def test_volumes_turn_and_are_cut_open(volumes: str, tmp_path: Path) -> None:
    out, strip, path = tmp_path / "out.webp", tmp_path / "strip.png", tmp_path / "path.webp"
    command = [volumes, "--seeds", "0-2", "--frames", "5", "--scale", "4"]
    assert main([*command, "--grid", str(out), "--strip", str(strip), "--interpolate", str(path)]) == DONE
    assert film(out).shape == (5, 66, 66, 3)
    assert film(path).shape == (15, 32, 32, 3)
    assert np.asarray(Image.open(strip)).shape == (3 * 34 - 2, 3 * 34 - 2)
    volume = load(volumes).sample(1, seed=0)[0, 0].numpy()
    assert np.array_equal(np.asarray(Image.open(strip))[:32:4, :32:4], volume[4])
    assert np.array_equal(np.asarray(Image.open(strip))[:32:4, 68::4], volume[:, :, 4].T)


def test_a_folder_of_meshes_has_the_surfaces_that_there_are(
    volumes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    trimesh = pytest.importorskip("trimesh")
    samples = load(volumes).sample(1, seed=1), load(volumes).sample(1, seed=2)
    level = sum(int(sample.max()) for sample in samples) / 2 / 255
    command = [volumes, "--seeds", "1,2", "--mesh", str(tmp_path / "out"), "--format", "stl", "--level", f"{level}"]
    assert main(command) == DONE
    higher = 1 + (samples[1].max() > samples[0].max())
    [path] = (tmp_path / "out").iterdir()
    assert path.name == f"seed{higher:06d}.stl"
    assert trimesh.load(path).is_watertight
    assert "1 mesh, 1 of them watertight: " in (said := capsys.readouterr().out)
    assert f"1 sample without a surface at level {level:g}" in said
