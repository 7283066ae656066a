"""The job that makes datasets: what it writes, what it says, and the one line that answers a mistake."""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import skimage.data
import torch
import webdataset
from PIL import Image

from imagegen_dist.cli.data import main
from imagegen_dist.cli.train import main_gan
from imagegen_dist.data import builtin
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import read_samples
from imagegen_dist.errors import DONE, FAILED, INTERRUPTED, MISUSED
from imagegen_dist.storage import Store
from tests.s3.fixtures import Bucket

ROOT = Path(__file__).parents[2]
COMPLETE = "complete already, by this same command: nothing was written"
SMALL = ("--shard-size", "10kB")


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
    assert "40 samples in 1 shard" in capsys.readouterr().out


def test_the_command_that_is_shown_tells_the_networks_the_conditions(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its preset would train without them."""
    assert main([str(pictures), str(tmp_path / "shards"), "--size", "64x64", "--folders", "surface"]) == DONE
    shown = capsys.readouterr().out.splitlines()[-1]
    assert "train_gan.py dcgan" in shown
    assert shown.endswith("--data.conditional true")


def test_the_same_folder_gives_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert main([str(pictures), str(tmp_path / name)]) == DONE
    assert DatasetIndex.load(Store(tmp_path / "a")).fingerprint == DatasetIndex.load(Store(tmp_path / "b")).fingerprint


@pytest.mark.parametrize("form", ["png", "jpg", "webp", "npy"])
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
    if form != "jpg":
        assert main([str(tmp_path / "in"), str(tmp_path / "again"), "--size", "40x24"]) == DONE
        assert torch.equal(samples, load(tmp_path / "again")[1])


def test_grey_pictures_of_16_bits_are_arrays_on_request(tmp_path: Path) -> None:
    levels = np.arange(0, 60_000, 100, dtype=np.uint16).reshape(20, 30)
    (tmp_path / "in").mkdir()
    Image.fromarray(levels).save(tmp_path / "in" / "a.png")
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--bits", "16", "--format", "npy"]) == DONE
    index, samples, _ = load(tmp_path / "out")
    assert (index.member, index.shape.bits) == ("npy", 16)
    assert np.array_equal(samples[0, 0].numpy(), levels)


def test_a_split_is_a_partition_that_is_stratified(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(pictures), str(tmp_path), "--split", "train:0.75,val:0.25"]) == DONE
    found = []
    for name, count in (("train", 30), ("val", 10)):
        index, samples, labels = load(tmp_path / name)
        assert labels is not None
        assert (index.class_names, labels.bincount().tolist()) == (("brick", "grass"), [count // 2] * 2)
        found += [sample.numpy().tobytes() for sample in samples]
    assert sorted(found) == sorted(np.asarray(Image.open(file)).tobytes() for file in pictures.glob("*/*.png"))
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3
    assert shown[-1].endswith(f"--data {tmp_path / 'train'} --data.validation {tmp_path / 'val'}")


def test_a_split_has_the_same_classes_and_channels_everywhere(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = [f"{number:02}.png" for number in range(20)]
    for number, name in enumerate(names):
        Image.fromarray(skimage.data.camera()[number:][:8, :8]).save(tmp_path / "in" / name)
    Image.fromarray(skimage.data.coffee()[:8, :8]).save(tmp_path / "in" / "07.png")
    labels = [[name, 9 if number == 7 else 0] for number, name in enumerate(names)]
    (tmp_path / "in" / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--split", "train:0.5,val:0.5"]) == DONE
    for name in ("train", "val"):
        index = DatasetIndex.load(Store(tmp_path / "out" / name))
        assert (index.classes, index.shape.channels, index.samples) == (10, 3, 10)


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_copies_fall_on_one_side_of_a_split_and_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    source = write_pictures(tmp_path / "in", 8)
    for number in range(4, 8):  # of the first four, two more each, one of them in the other class
        for folder in ("brick", "grass"):
            shutil.copy(source / "brick" / f"{number - 4:03}.png", source / folder / f"{number:03}.png")
    if kind == "shards":
        assert main([str(source), str(tmp_path / "packed"), *SMALL]) == DONE
        source = tmp_path / "packed"
        capsys.readouterr()
    words = [str(source), str(tmp_path / "out"), "--split", "train:0.5,val:0.5"]
    assert main(words) == DONE
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "8 of 16 pictures are copies of others, byte for byte: they fall on one side; --dedup leaves them out"
    )
    assert re.match(r"\d of them have another label than the first of their kind: .* and ", said[1])
    found = [load(tmp_path / "out" / name) for name in ("train", "val")]
    sides = [{sample.numpy().tobytes() for sample in samples} for _, samples, _ in found]
    assert [bool(side) for side in sides] == [True, True]
    assert not sides[0] & sides[1]
    assert sum(index.samples for index, _, _ in found) == 16
    assert main(words) == DONE
    assert capsys.readouterr().out.startswith(COMPLETE)
    assert main([str(source), str(tmp_path / "one"), "--dedup"]) == DONE
    assert "byte for byte: duplicates.txt names those left out" in capsys.readouterr().err
    _, samples, _ = load(tmp_path / "one")
    assert len({sample.numpy().tobytes() for sample in samples}) == len(samples) == 8
    lines = (tmp_path / "one" / "duplicates.txt").read_text().splitlines()
    assert len(lines) == 8
    assert main([str(source), str(tmp_path / "all"), *SMALL]) == DONE
    assert capsys.readouterr().err == (
        "8 of 16 pictures are copies of others, byte for byte: --dedup leaves them out\n"
    )
    if kind == "folder":
        assert lines[0] == "brick/004.png is brick/000.png"


def test_a_whole_picture_is_squeezed_without_a_crop(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    photograph = Image.fromarray(skimage.data.coffee())
    photograph.save(tmp_path / "in" / "a.png")
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--size", "40x24", "--crop", "none"]) == DONE
    peer = photograph.resize((40, 24), Image.Resampling.LANCZOS, reducing_gap=3.0)
    assert np.array_equal(np.moveaxis(load(tmp_path / "out")[1][0].numpy(), 0, -1), np.asarray(peer))


def test_jpegs_are_copied(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(skimage.data.coffee()[:64, :64]).save(tmp_path / "in" / "a.jpg", quality=70)
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--format", "jpg"]) == DONE
    assert (tmp_path / "in" / "a.jpg").read_bytes() in (tmp_path / "out" / "shard-000000.tar").read_bytes()


def test_a_zip_a_table_and_shards_give_the_same_samples(pictures: Path, tmp_path: Path) -> None:
    files = sorted(pictures.glob("*/*.png"))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(pictures))
    labels = [int(file.parent.name == "grass") for file in files]
    table = pyarrow.table({"png": [file.read_bytes() for file in files], "label": labels})
    pyarrow.parquet.write_table(table, tmp_path / "all.parquet")
    assert main([str(pictures), str(tmp_path / "folder"), *SMALL]) == DONE
    _, samples, _ = load(tmp_path / "folder")
    expected = sorted(sample.numpy().tobytes() for sample in samples)
    for source in ("all.zip", "all.parquet", "folder"):
        assert main([str(tmp_path / source), str(tmp_path / f"from-{source}"), *SMALL]) == DONE
        index, samples, found = load(tmp_path / f"from-{source}")
        assert found is not None
        assert found.bincount().tolist() == [20, 20]
        assert sorted(sample.numpy().tobytes() for sample in samples) == expected
    assert contents(tmp_path / "from-all.zip") == contents(tmp_path / "folder")
    assert index.class_names == ("brick", "grass")


def test_a_hash_splits_what_keeps_its_order(pictures: Path, tmp_path: Path) -> None:
    assert main([str(pictures), str(tmp_path / "all"), *SMALL]) == DONE
    assert main([str(tmp_path / "all"), str(tmp_path / "out"), "--split", "train:0.8,test:0.2"]) == DONE
    whole, parts = load(tmp_path / "all"), [load(tmp_path / "out" / name) for name in ("train", "test")]
    assert [part[0].classes for part in parts] == [2, 2]
    found = [sample.numpy().tobytes() for part in parts for sample in part[1]]
    assert sorted(found) == sorted(sample.numpy().tobytes() for sample in whole[1])


def test_from_a_bucket_to_a_bucket(pictures: Path, tmp_path: Path, bucket: Bucket) -> None:
    files = sorted(pictures.glob("*/*.png"))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(pictures))
    Store(bucket.url).upload("all.zip", tmp_path / "all.zip")
    assert main([f"{bucket.url}/all.zip", f"{bucket.url}/shards", "--workers", "0"]) == DONE
    assert main([str(tmp_path / "all.zip"), str(tmp_path / "local")]) == DONE
    assert contents(bucket.folder / "shards") == contents(tmp_path / "local")


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
        "left out: grass/007.png is not a picture, or has an unknown format",
        "1 of 100 pictures cannot be decoded",
        "1 file left out, not named as pictures are: grass/notes.txt",
    ]


@pytest.mark.parametrize("damaged", [1, 40])
def test_too_many_undecodable_pictures_fail_the_job_until_they_are_repaired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: int
) -> None:
    folder, words = write_pictures(tmp_path / "in"), [str(tmp_path / "in"), str(tmp_path / "out"), *SMALL]
    files = {file: file.read_bytes() for file in sorted(folder.glob("*/*.png"))[:damaged]}
    for file, data in files.items():
        file.write_bytes(data[:200])
    assert main(words) == FAILED == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("left out: ") == min(damaged, 20)
    assert ("and 20 more" in captured.err) == (damaged == 40)
    said = captured.err.splitlines()[-1]
    assert said.startswith(
        f"make_shards.py: {damaged} of 40 pictures cannot be decoded, above --max-bad 0.01: no index was written"
    )
    listed = (tmp_path / "out" / "undecodable.txt").read_text().splitlines()
    assert {line.split()[0] for line in listed} == {str(file.relative_to(folder)) for file in files}
    assert not (tmp_path / "out" / "index.json").exists()
    for file, data in files.items():
        file.write_bytes(data)
    assert main(words) == DONE
    assert "starting over" in capsys.readouterr().err
    assert main([words[0], str(tmp_path / "fresh"), *SMALL]) == DONE
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_picture_repaired_on_remote_storage_is_packed_by_the_same_command(pictures: Path) -> None:
    source, dest = Store("memory://test-make-shards-repair/in"), Store("memory://test-make-shards-repair/out")
    for file in pictures.glob("*/*.png"):
        source.write(str(file.relative_to(pictures)), file.read_bytes())
    whole = source.read("grass/003.png")
    source.write("grass/003.png", b"nonsense")
    assert main([source.url, dest.url, *SMALL]) == FAILED
    source.write("grass/003.png", whole)
    assert main([source.url, dest.url, *SMALL]) == DONE
    assert load(dest.url)[0].samples == 40
    assert not dest.exists("undecodable.txt")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, reads: int) -> None:
    """A KeyboardInterrupt at a read of the source."""
    read, calls = Store.read, []

    def read_until_interrupted(store: Store, name: str) -> bytes:
        calls.append(name)
        if len(calls) > reads:
            raise KeyboardInterrupt
        return read(store, name)

    monkeypatch.setattr(Store, "read", read_until_interrupted)


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(pictures), str(tmp_path / "out"), *SMALL]
    with monkeypatch.context() as patched:
        interrupt_after(patched, 30)
        assert main(words) == INTERRUPTED == 130
    said = capsys.readouterr().err
    assert said == "make_shards.py: interrupted: no shard was finished; the same command starts over\n"
    with monkeypatch.context() as patched:
        interrupt_after(patched, 62)
        assert main(words) == INTERRUPTED
    said = re.fullmatch(r"make_shards.py: interrupted: (\d) shards? of 10 kept; .*\n", capsys.readouterr().err)
    assert said
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.tar")}
    assert len(kept) == int(said[1]) > 1
    assert main(words) == DONE
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert main([str(pictures), str(tmp_path / "fresh"), *SMALL]) == DONE
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert not (tmp_path / "out" / ".parts").exists()


def test_a_shard_that_was_cut_after_its_receipt_is_made_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(pictures), str(tmp_path / "out"), *SMALL]
    with monkeypatch.context() as patched:
        interrupt_after(patched, 70)
        assert main(words) == INTERRUPTED
    (tmp_path / "out" / "shard-000000.tar").write_bytes(b"cut")
    (tmp_path / "out" / "shard-000001.tar").unlink()
    assert main(words) == DONE
    assert main([str(pictures), str(tmp_path / "fresh"), *SMALL]) == DONE
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_finished_dataset_is_left_alone(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(pictures), str(tmp_path / "out")]
    assert main(words) == DONE
    first = capsys.readouterr().out
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert main(words) == DONE
    assert capsys.readouterr().out == f"{COMPLETE}\n{first}"
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before


def test_another_command_into_the_same_place_is_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pictures(tmp_path / "in", 5)
    assert main([str(folder), str(tmp_path / "out"), "--size", "16x16"]) == DONE
    capsys.readouterr()
    said = "was made by another command, with"
    assert f"{said} --size 16x16 and not no --size" in mistake(capsys, folder, tmp_path / "out")
    more = ["--size", "16x16", "--crop", "none"]
    assert f"{said} --crop center and not --crop none" in mistake(capsys, folder, tmp_path / "out", *more)
    assert f"{said} SOURCE {folder} and not SOURCE" in mistake(capsys, pictures, tmp_path / "out", "--size", "16x16")
    (folder / "grass" / "000.png").unlink()
    answer = mistake(capsys, folder, tmp_path / "out", "--size", "16x16")
    assert f"is complete, but {folder} has changed since (10 pictures then, 9 now)" in answer
    for text in ("", "[]", '{"version": 2}', '{"version": 1, "sized": [1], "flags": 5}'):
        (tmp_path / "out" / "made_by.json").write_text(text)
        assert "made_by.json is corrupt" in mistake(capsys, folder, tmp_path / "out", "--size", "16x16")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but what names the command's own places."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "made_by.json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_pictures_of_several_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(skimage.data.camera()).save(tmp_path / "in" / "a.png")
    Image.fromarray(skimage.data.coins()).save(tmp_path / "in" / "b.png")
    assert "give them one with --size" in mistake(capsys, tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_size_can_be_given_after_it_was_missed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("camera", "coins"):
        Image.fromarray(getattr(skimage.data, name)()).save(tmp_path / "in" / f"{name}.png")
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == MISUSED
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--size", "16x16"]) == DONE


def test_a_dataset_is_never_overwritten(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pictures), str(tmp_path)]) == DONE
    capsys.readouterr()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / "made_by.json").unlink()
    assert "holds a dataset already" in mistake(capsys, pictures, tmp_path)
    (tmp_path / "index.json").unlink()
    assert "1 shard without an index.json" in mistake(capsys, pictures, tmp_path)
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
    assert main(["digits", str(tmp_path), "--size", "8x8"]) == DONE
    assert capsys.readouterr().out.splitlines() == [COMPLETE, *lines]
    assert "with --size 8x8 and not no --size" in mistake(capsys, "digits", tmp_path)
    assert "comes split" in mistake(capsys, "digits", tmp_path, "--split", "train:1")


def write_with_webdataset(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
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


def test_an_index_in_another_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_with_webdataset(tmp_path / "theirs")
    assert main(["--index-only", str(tmp_path / "theirs"), "--index-at", str(tmp_path / "ours")]) == DONE
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown.endswith(f"--data {tmp_path / 'ours'}")
    index = DatasetIndex.load(Store(tmp_path / "ours"))
    assert index.location(Store(tmp_path / "ours")) == Store(tmp_path / "theirs")
    assert main([str(tmp_path / "ours"), str(tmp_path / "again"), "--size", "8x8"]) == DONE
    assert load(tmp_path / "again")[0].samples == 10


def test_a_check_tells_by_its_exit_code(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(pictures), str(tmp_path), *SMALL]) == DONE
    capsys.readouterr()
    assert main(["--check", str(tmp_path)]) == DONE
    assert "10 of 10 shards good" in capsys.readouterr().out
    (tmp_path / "shard-000004.tar").write_bytes(b"cut")
    assert main(["--check", str(tmp_path)]) == FAILED
    captured = capsys.readouterr()
    assert "9 of 10 shards good" in captured.out
    assert captured.err == ""


def test_an_index_made_again_is_the_one_that_packing_wrote(pictures: Path, tmp_path: Path) -> None:
    assert main([str(pictures), str(tmp_path)]) == DONE
    packed = DatasetIndex.load(Store(tmp_path))
    (tmp_path / "index.json").unlink()
    assert main(["--index-only", str(tmp_path)]) == DONE
    assert DatasetIndex.load(Store(tmp_path)).shards == packed.shards


def test_labels_with_gaps_are_told_and_numbered_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pictures(tmp_path / "in", 3)
    names = sorted(str(file.relative_to(folder)) for file in folder.glob("*/*.png"))
    labels = [[name, 1 if name.startswith("brick") else 3] for name in names]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert main([str(folder), str(tmp_path / "out")]) == DONE
    assert capsys.readouterr().err == "2 of 4 classes have no sample: 0, 2; --relabel numbers the others from 0\n"
    assert load(tmp_path / "out")[0].class_counts == (0, 3, 0, 3)
    for source in (folder, tmp_path / "out"):
        dest = tmp_path / f"anew-{source.name}"
        assert main([str(source), str(dest), "--relabel"]) == DONE
        index, _, found = load(dest)
        assert (index.class_names, index.class_counts) == (("1", "3"), (3, 3))
        assert found is not None
        assert sorted(found.tolist()) == [0, 0, 0, 1, 1, 1]
        assert capsys.readouterr().err == ""
    (folder / "dataset.json").write_text(json.dumps({"labels": [[name, 4_000_000_000] for name in names]}))
    said = mistake(capsys, folder, tmp_path / "ids")
    assert "these look like ids or hashes; --relabel numbers those that occur from 0" in said
    assert not (tmp_path / "ids").exists()


def test_one_of_several_splits_is_packed_and_indexed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        write_pictures(tmp_path / "in" / split, 2)
    assert "folders of several splits (train, val): take one, e.g. with --subset train" in mistake(
        capsys, tmp_path / "in", tmp_path / "out"
    )
    for split in ("train", "val"):
        assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--subset", split, *SMALL]) == DONE
        assert load(tmp_path / "out")[0].class_names == ("brick", "grass")
        for file in (tmp_path / "out").glob("*.tar"):
            (tmp_path / "side").mkdir(exist_ok=True)
            file.rename(tmp_path / "side" / f"{split}-{file.name}")
        shutil.rmtree(tmp_path / "out")
    capsys.readouterr()
    assert "shards of several splits (train, val)" in mistake(capsys, "--index-only", tmp_path / "side")
    assert main(["--index-only", str(tmp_path / "side"), "--subset", "train"]) == DONE
    assert load(tmp_path / "side")[0].samples == 4
    assert main(["--check", str(tmp_path / "side")]) == DONE


def test_tars_named_for_classes_are_packed_and_not_indexed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = write_pictures(tmp_path / "in", 2)
    (tmp_path / "tars").mkdir()
    for folder in pictures.iterdir():
        with tarfile.open(tmp_path / "tars" / f"{folder.name}.tar", "w") as archive:
            archive.add(folder, ".")
    assert "their names or folders tell classes (brick, grass): pack them" in mistake(
        capsys, "--index-only", tmp_path / "tars"
    )
    assert main([str(tmp_path / "tars"), str(tmp_path / "out")]) == DONE
    assert "each tar is a class: 2 classes; --labels none packs without" in capsys.readouterr().err
    assert load(tmp_path / "out")[0].class_counts == (2, 2)
    assert main(["--index-only", str(tmp_path / "tars"), "--labels", "none"]) == DONE
    assert load(tmp_path / "tars")[0].classes is None


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
    assert "others-001.tar: sample photo4 is not a picture" in said
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
        (["{pictures}", "{out}", "--channels", "2"], "--channels 2: 1 (grey), 3 (RGB) or 4 (RGBA)"),
        (["{pictures}", "{out}", "--format", "gif"], "png"),
        (["{pictures}", "{out}", "--format", "webp", "--channels", "1"], "WebP has no grey"),
        (["{pictures}", "{out}", "--szie", "8x8"], "--szie"),
        (["{pictures}", "{out}", "more"], "more"),
        (["{pictures}", "nope://out"], "unknown protocol nope://"),
        (["{pictures}", "/proc/out"], "cannot write"),
        (["{out}", "{out}/shards"], "does not exist"),
        (["s3://user:secret@bucket/pictures", "{out}"], "carries a password"),
        (["{pictures}", "{out}", "--crop", "middle"], "center"),
        (["{pictures}", "{out}", "--crop", "none"], "give --size as well"),
        (["{pictures}", "{out}", "--split", "train:0.9,val:0.2"], "--split train:0.9,val:0.2: the shares sum to 1.1"),
        (["{pictures}", "{out}", "--split", "../up:1"], "--split ../up:1: give names and shares"),
        (["{pictures}", "{out}", "--split", "train:0.999,val:0.001"], "val would get none of 40 pictures"),
        (["{pictures}", "{out}", "--workers", "-1"], "--workers -1: "),
        (["{pictures}", "{out}", "--image-column", "image"], "are for parquet files"),
        (["{pictures}", "{pictures}"], "is inside SOURCE"),
        (["{pictures}", "{pictures}/grass/shards"], "is inside SOURCE"),
        (["{pictures}/all.zip", "{out}"], "all.zip does not exist"),
        (["{pictures}", "{out}", "--index-at", "{out}"], "--index-at URL says where"),
        (["--check", "{out}"], "does not exist"),
        (["--check", "{out}", "--index-only", "{out}"], "goes alone"),
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
    assert main(["--help"]) == DONE
    shown = capsys.readouterr().out
    flags = ("--size", "--crop", "--format", "--split", "--workers", "--index-only", "--index-at", "--check")
    assert all(word in shown for word in ("SOURCE", "DEST", *flags))
    words = [sys.executable, "jobs/make_shards.py", str(tmp_path / "nowhere"), str(tmp_path / "out")]
    refused = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (refused.returncode, refused.stdout) == (MISUSED, "")
    assert refused.stderr == f"make_shards.py: {tmp_path / 'nowhere'} does not exist\n"
