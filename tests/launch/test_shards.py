"""The job that makes datasets: what it writes, what it says, and the one line that answers a mistake."""

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import webdataset
from PIL import Image

from imagegen_dist.data import builtin
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import read_samples
from imagegen_dist.launch.shards import main
from imagegen_dist.launch.train import DONE, FAILED, INTERRUPTED, MISUSED, main_gan
from imagegen_dist.storage import Store

ROOT = Path(__file__).parents[2]


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command answers, checked to be one line on standard error and exit code 2."""
    assert main([str(argument) for argument in arguments]) == MISUSED == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("make_shards.py: ")
    assert captured.err.count("\n") == 1
    return captured.err


def write_pictures(folder: Path, count: int = 20) -> Path:
    """Cuttings of two photographs in a class each, 28 × 28, grey."""
    for name, photograph in (("brick", skimage.data.brick()), ("grass", skimage.data.grass())):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            cutting = photograph[number * 8 :][:28, :28]
            Image.fromarray(cutting).save(folder / name / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def load(url: object) -> tuple[DatasetIndex, torch.Tensor, torch.Tensor | None]:
    """A dataset's index, samples and labels."""
    store = Store(str(url))
    index = DatasetIndex.load(store)
    return index, *read_samples(index, store, range(index.samples))


@pytest.mark.parametrize("url", ["{}/shards", "memory://test-make-shards/shards"])
def test_a_folder_becomes_a_dataset(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    dest = url.format(tmp_path)
    assert main([str(pictures), dest, "--shard-size", "20kB"]) == DONE
    index, samples, labels = load(dest)
    assert (index.samples, index.classes, index.class_names) == (40, 2, ("brick", "grass"))
    assert len(index.shards) > 1
    assert labels is not None
    found = {(sample.numpy().tobytes(), int(label)) for sample, label in zip(samples, labels, strict=True)}
    files = sorted(pictures.glob("*/*.png"))
    assert found == {(np.asarray(Image.open(file)).tobytes(), int(file.parent.name == "grass")) for file in files}
    assert 0 < labels[: index.counts[0]].float().mean() < 1
    captured = capsys.readouterr()
    assert captured.err == ""
    size = sum(shard.bytes for shard in index.shards)
    expected = f"40 samples of 28 × 28 × 1 in {len(index.shards)} shards, 2 classes, {size / 1000:.1f}kB: {dest}"
    assert captured.out.splitlines()[0] == expected


def test_the_command_that_is_shown_trains_on_it(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(pictures), str(tmp_path / "with space")]) == DONE
    shown = capsys.readouterr().out.splitlines()[-1].removeprefix("train on it: ")
    program, *arguments = shlex.split(shown)[1:]
    assert program == "jobs/train_gan.py"
    assert main_gan([*arguments, "--storage", str(tmp_path / "runs"), "--run", "y", "--dry-run"]) == DONE
    assert "40 samples in 1 shards" in capsys.readouterr().out


def test_the_same_folder_gives_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert main([str(pictures), str(tmp_path / name)]) == DONE
    assert DatasetIndex.load(Store(tmp_path / "a")).fingerprint == DatasetIndex.load(Store(tmp_path / "b")).fingerprint


@pytest.mark.parametrize("form", ["png", "jpg", "webp"])
def test_photographs_of_every_kind_in_one_size(tmp_path: Path, form: str) -> None:
    (tmp_path / "in").mkdir()
    for name in ("astronaut", "camera", "logo", "coffee"):
        Image.fromarray(getattr(skimage.data, name)()[:200, :160]).save(tmp_path / "in" / f"{name}.png")
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--size", "40x24", "--format", form]) == DONE
    index, samples, labels = load(tmp_path / "out")
    assert (index.classes, labels) == (None, None)
    assert samples.shape == (4, 3, 24, 40)
    grey = [torch.equal(sample[0], sample[1]) for sample in samples]
    assert sum(grey) == 1  # the camera man


def test_channels_are_made_alike(pictures: Path, tmp_path: Path) -> None:
    assert main([str(pictures), str(tmp_path), "--channels", "3"]) == DONE
    assert DatasetIndex.load(Store(tmp_path)).shape.dims == (3, 28, 28)


def test_a_few_undecodable_pictures_are_left_out_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pictures(tmp_path / "in", 50)
    (folder / "grass" / "007.png").write_bytes(b"nonsense")
    (folder / "grass" / "notes.txt").write_text("cut by hand")
    assert main([str(folder), str(tmp_path / "out")]) == DONE
    captured = capsys.readouterr()
    assert captured.out.startswith("99 samples")
    assert captured.err.splitlines() == [
        "left out: grass/007.png cannot be decoded: it is no picture, or of an unknown format",
        "1 of 100 pictures cannot be decoded",
        "1 files are no pictures by their names: grass/notes.txt",
    ]


@pytest.mark.parametrize("damaged", [1, 40])
def test_too_many_undecodable_pictures_fail_the_job_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: int
) -> None:
    folder = write_pictures(tmp_path / "in")
    for file in sorted(folder.glob("*/*.png"))[:damaged]:
        file.write_bytes(file.read_bytes()[:200])
    assert main([str(folder), str(tmp_path / "out"), "--shard-size", "10kB"]) == FAILED == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("left out: ") == damaged
    assert captured.err.splitlines()[-1].startswith(f"make_shards.py: {damaged} of 40 pictures cannot be decoded")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupt_leaves_nothing(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = Store.read, []

    def read_until_interrupted(store: Store, name: str) -> bytes:
        calls.append(name)
        if len(calls) > 30:
            raise KeyboardInterrupt
        return read(store, name)

    monkeypatch.setattr(Store, "read", read_until_interrupted)
    assert main([str(pictures), str(tmp_path / "out"), "--shard-size", "10kB"]) == INTERRUPTED
    assert capsys.readouterr().err == "make_shards.py: interrupted: nothing was kept\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_pictures_of_several_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(skimage.data.camera()).save(tmp_path / "in" / "a.png")
    Image.fromarray(skimage.data.coins()).save(tmp_path / "in" / "b.png")
    assert "give them one with --size" in mistake(capsys, tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_dataset_is_never_overwritten(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pictures), str(tmp_path)]) == DONE
    capsys.readouterr()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert "holds a dataset already" in mistake(capsys, pictures, tmp_path)
    (tmp_path / "index.json").unlink()
    assert "1 shards without an index.json" in mistake(capsys, pictures, tmp_path)
    assert (tmp_path / "shard-000000.tar").read_bytes() == before["shard-000000.tar"]


def test_a_built_in_dataset_in_another_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuttings = np.lib.stride_tricks.sliding_window_view(skimage.data.brick(), (28, 28))[::40, ::40].reshape(-1, 28, 28)
    few = cuttings[:100, None], np.arange(100) % 10
    monkeypatch.setattr(builtin, "_load_mnist", lambda: few)  # all 5,000 digits take their time
    assert main(["digits", str(tmp_path), "--size", "8x8"]) == DONE
    for split, count in (("train", 80), ("val", 20)):
        index, samples, labels = load(tmp_path / split)
        assert samples.shape == (count, 1, 8, 8)
        assert labels is not None
        assert (index.classes, labels.bincount().tolist()) == (10, [count // 10] * 10)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[-1].endswith(f"--data {tmp_path / 'train'} --data.validation {tmp_path / 'val'}")
    assert "holds a dataset already" in mistake(capsys, "digits", tmp_path)


def write_with_webdataset(folder: Path) -> None:
    pattern = str(folder / "others-%03d.tar")
    with webdataset.ShardWriter(pattern, maxcount=4, verbose=0, mtime=0) as writer:
        for number in range(10):
            picture = skimage.data.astronaut()[number * 20 :][:32, :32]
            target = io.BytesIO()
            Image.fromarray(picture).save(target, "JPEG")
            writer.write({"__key__": f"photo{number}", "jpg": target.getvalue(), "cls": number % 3})


def test_shards_of_others_are_indexed_where_they_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_with_webdataset(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert main(["--index-only", str(tmp_path)]) == DONE
    assert re.match(r"10 samples of 32 × 32 × 3 in 3 shards, 3 classes, \S+B: ", capsys.readouterr().out)
    index, samples, labels = load(tmp_path)
    assert labels is not None
    assert samples.shape == (10, 3, 32, 32)
    assert labels.tolist() == [number % 3 for number in range(10)]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert set(before) == {shard.name for shard in index.shards}
    assert "remove it to make a new one" in mistake(capsys, "--index-only", tmp_path)


def test_an_index_made_again_is_the_one_that_packing_wrote(pictures: Path, tmp_path: Path) -> None:
    assert main([str(pictures), str(tmp_path)]) == DONE
    packed = DatasetIndex.load(Store(tmp_path))
    (tmp_path / "index.json").unlink()
    assert main(["--index-only", str(tmp_path)]) == DONE
    assert DatasetIndex.load(Store(tmp_path)).shards == packed.shards


def test_a_damaged_shard_is_named_with_its_member(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_with_webdataset(tmp_path)
    shard = tmp_path / "others-001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[: data.index(b"photo6.jpg") + 700])
    said = mistake(capsys, "--index-only", tmp_path)
    assert str(tmp_path) in said
    assert "others-001.tar is truncated in photo6.jpg" in said
    shard.write_bytes(data.replace(b"\xff\xd8\xff", b"\0\0\0", 1))
    said = mistake(capsys, "--index-only", tmp_path)
    assert "others-001.tar: sample photo4 is no JPEG" in said
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "SOURCE and DEST are needed"),
        (["{pictures}"], "SOURCE and DEST are needed"),
        (["{pictures}", "{out}", "--size", "64"], "--size 64: give WIDTHxHEIGHT"),
        (["{pictures}", "{out}", "--size", "0x8"], "--size 0x8: give WIDTHxHEIGHT"),
        (["{pictures}", "{out}", "--size"], "--size"),
        (["{pictures}", "{out}", "--shard-size", "big"], "--shard-size big: give bytes"),
        (["{pictures}", "{out}", "--shard-size", "0MB"], "--shard-size 0MB: give bytes"),
        (["{pictures}", "{out}", "--channels", "4"], "--channels 4: 1 (grey) or 3 (RGB)"),
        (["{pictures}", "{out}", "--format", "gif"], "png"),
        (["{pictures}", "{out}", "--format", "webp", "--channels", "1"], "WebP has no grey"),
        (["{pictures}", "{out}", "--szie", "8x8"], "--szie"),
        (["{pictures}", "{out}", "more"], "more"),
        (["{pictures}", "nope://out"], "unknown protocol nope://"),
        (["{pictures}", "/proc/out"], "cannot write"),
        (["{out}", "{out}/shards"], "does not exist"),
        (["s3://user:secret@bucket/pictures", "{out}"], "carries a password"),
        (["--index-only", "{out}"], "does not exist"),
        (["--index-only", "{pictures}"], "has no shards (*.tar)"),
        (["--index-only", "{pictures}", "{out}"], "goes alone"),
        (["--index-only", "{pictures}", "--size", "8x8"], "goes alone"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    arguments: list[str], said: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [word.format(pictures=pictures, out=tmp_path / "out") for word in arguments]
    answer = mistake(capsys, *filled)
    assert said in answer
    assert "secret" not in answer


def test_the_job_is_a_program_with_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("SOURCE", "DEST", "--size", "--index-only"))
    words = [sys.executable, "jobs/make_shards.py", str(tmp_path / "nowhere"), str(tmp_path / "out")]
    refused = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (refused.returncode, refused.stdout) == (MISUSED, "")
    assert refused.stderr == f"make_shards.py: {tmp_path / 'nowhere'} does not exist\n"
