"""jobs/sample.py in this process: what it writes, and what it answers to mistakes."""

import io
import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imagegen_dist import load
from imagegen_dist.cli.sample import main
from imagegen_dist.cli.sample_films import most_used
from imagegen_dist.cli.sample_outputs import grid_columns
from imagegen_dist.cli.sample_seeds import parse_mix, parse_numbers
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import read_samples
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.inference.sampling_request import SamplingRequest
from imagegen_dist.storage import Store
from tests.checkpoints import FAMILIES, write_checkpoint


def needs(module: str) -> pytest.MarkDecorator:
    """Skip where a library of an extra is not installed."""
    return pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed")


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("gan"), "r3gan")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("vae"), "mlp-vae")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def tiles(page: np.ndarray, side: int, scale: int, gap: int = 2) -> np.ndarray:
    """The tiles of a grid, [rows, columns, side, side], checked to be enlarged by a whole factor, pixel for pixel."""
    step = side * scale + gap
    rows, columns = ((extent + gap) // step for extent in page.shape[:2])
    found = np.empty((rows, columns, side, side), np.uint8)
    for row in range(rows):
        for column in range(columns):
            tile = page[row * step : row * step + side * scale, column * step : column * step + side * scale]
            found[row, column] = tile[::scale, ::scale]
            assert np.array_equal(found[row, column].repeat(scale, 0).repeat(scale, 1), tile)
    return found


def test_a_grid_has_a_row_a_seed_and_a_column_a_class(gan: str, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert main([gan, "--seeds", "5-7,30", "--classes", "4,0", "--grid", str(out)]) == DONE
    shown = tiles(pixels(out), 12, 6)
    model = load(gan)
    for row, seed in enumerate((5, 6, 7, 30)):
        for column, label in enumerate((4, 0)):
            assert np.array_equal(shown[row, column], model.sample(1, classes=label, seed=seed)[0, 0].numpy())


def test_a_mix_goes_from_one_class_to_the_other(gan: str, tmp_path: Path) -> None:
    assert main([gan, "--seeds", "3", "--mix", "1:4", "--grid", str(tmp_path / "a.png"), "--scale", "2"]) == DONE
    [shown] = tiles(pixels(tmp_path / "a.png"), 12, 2).astype(int)
    model = load(gan)
    for column, label in ((0, 1), (7, 4)):
        end = model.sample(1, classes=label, seed=3)[0, 0].numpy().astype(int)
        assert abs(shown[column] - end).max() <= 1  # a sum over weights in place of a row's look-up
    assert len(np.unique(shown.reshape(8, -1), axis=0)) == 8


def test_a_folder_has_a_file_a_sample_as_it_is(gan: str, tmp_path: Path) -> None:
    assert main([gan, "--seeds", "0-9", "--folder", str(tmp_path / "out"), "--truncation", "0.5"]) == DONE
    model = load(gan)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"seed{seed:06d}-class{seed % 5}.png" for seed in range(10)]
    for seed, name in enumerate(names):
        expected = model.sample(1, classes=seed % 5, seed=seed, truncation=0.5)[0, 0]
        assert np.array_equal(pixels(tmp_path / "out" / name), expected.numpy())


@pytest.mark.parametrize("family", ["r3gan", "dcgan", "video", "voxels"])
def test_shards_hold_the_samples_of_their_seeds(family: str, tmp_path: Path) -> None:
    url, out = write_checkpoint(tmp_path / "run", family), tmp_path / "shards"
    command = [url, "--seeds", "100-129", "--shards", str(out), "--shard-size", "10kB"]
    assert main(command) == DONE
    index = DatasetIndex.load(Store(out))
    assert len(index.shards) > 1
    samples, labels = read_samples(index, Store(out), range(30))
    model = load(url)
    expected = SamplingRequest(tuple(range(100, 130)))
    assert torch.equal(samples, expected.sample(model, range(30)))
    assert (labels is None) == (not model.classes)
    if labels is not None:
        assert labels.tolist() == [seed % model.classes for seed in range(100, 130)]


def test_the_same_command_again_goes_on_and_another_is_refused(
    gan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    command = [gan, "--seeds", "0-39", "--shards", str(out), "--shard-size", "10kB"]
    assert main(command) == DONE
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(command) == DONE
    assert "complete already" in capsys.readouterr().out
    (out / "index.json").unlink()
    (out / "shard-000001.tar").unlink()
    assert main(command) == DONE
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main([*command, "--truncation", "0.7"]) == MISUSED
    assert "with --truncation 1 and not --truncation 0.7" in capsys.readouterr().err


def test_an_interpolation_passes_the_seeds(gan: str, tmp_path: Path) -> None:
    out = tmp_path / "out.webp"
    assert main([gan, "--seeds", "4,9", "--classes", "2", "--interpolate", str(out), "--frames", "3"]) == DONE
    model = load(gan)
    with Image.open(out) as film:
        assert (film.n_frames, film.size) == (6, (264, 264))  # 12 × 22, the first whole factor above 256
        for frame, seed in ((0, 4), (3, 9)):
            film.seek(frame)
            shown = np.asarray(film.convert("L"))[::22, ::22]
            assert np.array_equal(shown, model.sample(1, classes=2, seed=seed)[0, 0].numpy())


@pytest.mark.parametrize(
    ("words", "numbers"),
    [("cat,ant", [2, 0]), ('"eel, electric", 1', [4, 1]), ("name:dog,number:0", [3, 0]), ("1-2,dog", [1, 2, 3])],
)
def test_classes_are_named(gan: str, tmp_path: Path, words: str, numbers: list[int]) -> None:
    assert main([gan, "--seeds", "7", "--classes", words, "--shards", str(tmp_path / "out")]) == DONE
    index = DatasetIndex.load(Store(tmp_path / "out"))
    assert index.class_names == ("ant", "bee", "cat", "dog", "eel, electric")
    assert read_samples(index, Store(tmp_path / "out"), range(len(numbers)))[1].tolist() == numbers


def test_a_number_that_is_the_name_of_another_class_is_refused_until_it_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = replace(FAMILIES["r3gan"], class_names=("1", "2", "3", "7", "9"))
    url = write_checkpoint(tmp_path / "run", family)
    assert main([url, "--classes", "1", "--grid", str(tmp_path / "a.png")]) == MISUSED
    said = "class 1 is the name of one class and the number of another: write name:1 or number:1"
    assert capsys.readouterr().err == f"sample.py: {said}\n"
    words = ["--seeds", "0", "--classes", "name:1,number:1,9,0", "--shards", str(tmp_path / "out")]
    assert main([url, *words]) == DONE
    index = DatasetIndex.load(Store(tmp_path / "out"))
    assert read_samples(index, Store(tmp_path / "out"), range(4))[1].tolist() == [0, 1, 4, 0]


def test_an_interpolation_without_classes_goes_through_the_classes_of_the_seeds(gan: str, tmp_path: Path) -> None:
    out = tmp_path / "out.webp"
    assert main([gan, "--seeds", "0-2", "--interpolate", str(out), "--frames", "2"]) == DONE
    assert out.stat().st_size > 500


def test_a_traversal_moves_the_latents_of_the_highest_rate_first(vae: str, tmp_path: Path) -> None:
    rates = {f"eval/rate_of_latent/{latent:03}": rate for latent, rate in enumerate((0.1, 3.0, 0.2, 1.0))}
    Store(vae).write("metrics.jsonl", json.dumps({"images": 480, **rates}).encode() + b"\n")
    out = tmp_path / "out.webp"
    assert main([vae, "--seeds", "3,8", "--traverse", str(out), "--frames", "4"]) == DONE
    model = load(vae)
    with Image.open(out) as film:
        assert film.n_frames == 4
        film.seek(1)  # a quarter of the swing: +2.5
        shown = tiles(np.asarray(film.convert("L")), 12, 6)
    for row, latent in enumerate((1, 3, 2, 0)):
        for column, seed in enumerate((3, 8)):
            z = model.latents(1, seed)
            z[0, latent] = 2.5
            assert np.array_equal(shown[row, column], model.decode(z)[0, 0].numpy())


def test_an_exported_folder_is_sampled_like_its_run(gan: str, tmp_path: Path) -> None:
    from imagegen_dist.cli import export

    assert export.main([gan, str(tmp_path / "hf")]) == DONE
    for url, name in ((gan, "a.png"), (str(tmp_path / "hf"), "b.png")):
        assert main([url, "--grid", str(tmp_path / name)]) == DONE
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "CHECKPOINT is needed"),
        (["GAN"], "nothing to write: give --grid FILE.png"),
        (["/nowhere/at/all", "--grid", "a.png"], "holds no complete checkpoint"),
        (["VAE", "--grid", "a.png", "--classes", "0-9"], "this model is unconditional: leave --classes and --mix out"),
        (["GAN", "--grid", "a.png", "--classes", "3,5"], "class 5: the model's classes are 0 to 4"),
        (["GAN", "--grid", "a.png", "--mix", "3:9"], "class 9: the model's classes are 0 to 4"),
        (["GAN", "--grid", "a.png", "--classes", "cats"], "class cats: no class has that name; is it one of cat,"),
        (["GAN", "--grid", "a.png", "--classes", "cat,,dog"], "--classes cat,,dog: numbers, ranges and names"),
        (["GAN", "--grid", "a.png", "--mix", "cat:cow"], "class cow: no class has that name"),
        (["GAN", "--grid", "a.png", "--mix", "3"], "--mix 3: two classes with a colon between"),
        (["GAN", "--grid", "a.png", "--mix", "3:4", "--classes", "1"], "--classes and --mix both"),
        (["GAN", "--grid", "a.jpg"], "--grid a.jpg: a grid is a .png"),
        (["GAN", "--grid", "a.png", "--seeds", "9-3"], "--seeds 9-3: a range goes up"),
        (["GAN", "--grid", "a.png", "--seeds", "x"], "--seeds x: numbers and ranges"),
        (["GAN", "--grid", "a.png", "--seeds", "0-9999"], "--grid of 10,000 samples: 4,000 at most"),
        (["GAN", "--grid", "a.png", "--truncation", "1.5"], "--truncation 1.5: from 0"),
        (["GAN", "--grid", "a.png", "--device", "tpu"], "--device tpu: cpu or cuda"),
        (["GAN", "--grid", "a.png", "--batch", "0"], "--batch 0: from 1 to 1,000,000"),
        (["GAN", "--folder", "FULL"], "it holds files already; choose another place"),
        (["GAN", "--shards", "out", "--mix", "0:1"], "a blend of classes has no label"),
        (["GAN", "--interpolate", "a.gif"], "--interpolate a.gif: an animation is .webp or .mp4, not .gif"),
        (["GAN", "--traverse", "a.webp"], "--traverse varies the latents of a VAE, and this is a GAN"),
        (["FSQ", "--interpolate", "a.webp"], "latents are codes"),
        (["GAN", "--interpolate", "a.webp", "--seeds", "5"], "--seeds names 5 alone: give two or more"),
        (["FSQ", "--truncation", "0.5", "--grid", "a.png"], "latents are codes"),
        (["RES", "--traverse", "a.webp"], "latents are a map of 3 × 4 × 4"),
        (["GAN", "--grid", "a.webp"], "--grid a.webp: a grid of pictures is a .png"),
        (["GAN", "--strip", "a.png"], "this model makes single pictures: take --grid"),
        (["GAN", "--strip", "a.webp"], "--strip a.webp: a strip is a .png"),
        pytest.param(
            *(["GAN", "--mesh", "out"], "--mesh: only volumes have surfaces, and this model makes samples of image"),
            marks=needs("trimesh"),
        ),
        (["GAN", "--folder", "out", "--format", "webp"], "samples of image are written as png, npy"),
        (["VIDEO", "--folder", "out", "--format", "jpg"], "--format jpg: files of samples are png, npy, webp, mp4"),
        pytest.param(
            *(
                ["VIDEO", "--grid", "a.png", "--format", "mp4"],
                "--format mp4 is of the files of --folder DIR or --mesh",
            ),
            marks=needs("av"),
        ),
        (["VIDEO", "--mesh", "out", "--format", "fbx"], "--format fbx: a mesh is glb, obj, stl or ply, not fbx"),
        (["VIDEO", "--mesh", "out", "--level", "1.5"], "--level 1.5: from 0 to 1"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    arguments: list[str],
    said: str,
    gan: str,
    vae: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    places = {"GAN": gan, "VAE": vae, "FULL": "full"}
    for name, family in (("FSQ", "fsq"), ("RES", "res-vae"), ("VIDEO", "video")):
        if name in arguments:
            places[name] = write_checkpoint(tmp_path / family, family)
    before = sorted(tmp_path.rglob("*"))
    assert main([places.get(word, word) for word in arguments]) == MISUSED == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("sample.py: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_an_mp4_without_an_encoder_is_refused_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["/nowhere", "--interpolate", "out.mp4"]) == MISUSED
    assert "pip install -e '.[video]' in " in capsys.readouterr().err


def test_lists_of_numbers() -> None:
    assert parse_numbers("seeds", "0-2, 7,5-5") == (0, 1, 2, 7, 5)
    first, *_, last = parse_mix("3:7")
    assert (first, last) == ({3: 1, 7: 0}, {3: 0, 7: 1})


def test_columns_of_a_grid() -> None:
    assert grid_columns(SamplingRequest(tuple(range(64))), 0) == 8
    assert grid_columns(SamplingRequest(tuple(range(64))), 10) == 10
    assert grid_columns(SamplingRequest(tuple(range(64))), 1000) == 8
    assert grid_columns(SamplingRequest((1,)), 10) == 1
    assert grid_columns(SamplingRequest((1, 2), (3, 4, 5)), 10) == 3


def test_latents_by_their_rate() -> None:
    assert list(most_used({"000": 0.5, "001": 2.0, "002": 1.0}, 3)) == [1, 2, 0]
    assert list(most_used({"000": 0.5}, 3)) == []
    assert list(most_used(None, 3)) == []


def test_help_names_every_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == DONE
    text = capsys.readouterr().out
    assert all(
        f"--{name}" in text for name in ("grid", "folder", "shards", "interpolate", "traverse", "strip", "mesh", "mix")
    )
    assert io.StringIO(text).readline().startswith("usage: sample.py")


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("styled"), "r3gan-styled")


def test_a_sweep_has_a_column_for_each_value_of_a_condition(styled: str, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    words = ["--seeds", "5-7", "--set", "digit=3,bold=true", "--sweep", "age=1:4:4", "--grid", str(out)]
    assert main([styled, *words]) == DONE
    shown = tiles(pixels(out), 12, 6)
    assert shown.shape[:2] == (3, 4)
    model = load(styled)
    for row, seed in enumerate((5, 6, 7)):
        for column, age in enumerate((1, 2, 3, 4)):
            label = model.labels(1, conditions={"digit": 3, "bold": True, "age": 3}, seed=seed)
            assert label is not None
            assert model.conditions is not None
            age_part = model.conditions.part("age")
            label[0, model.conditions.slices["age"]] = torch.from_numpy(age_part.encode(age))
            expected = model.generate(model.latents(1, seed), label)
            assert np.array_equal(shown[row, column], expected[0, 0].numpy())


@pytest.mark.parametrize(
    ("sweep", "columns"), [("style", 2), ("digit=0:3:5", 5), ("bold", 8), ("age", 8), ("age=-1sd:1sd:3", 3)]
)
def test_every_kind_of_condition_can_be_swept(styled: str, sweep: str, columns: int, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert main([styled, "--seeds", "1-2", "--sweep", sweep, "--grid", str(out)]) == DONE
    assert tiles(pixels(out), 12, 6).shape[:2] == (2, columns)


def test_an_animation_of_conditions_moves_those_that_are_not_given(styled: str, tmp_path: Path) -> None:
    out = tmp_path / "out.webp"
    words = ["--seeds", "1-3", "--set", "digit=2", "--frames", "4", "--interpolate", str(out)]
    assert main([styled, *words]) == DONE
    with Image.open(out) as film:
        assert film.n_frames == 12  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "colour=1"], "there is no condition 'colour': the data have digit (4 classes)"),
        (["--set", "digit"], "NAME=VALUE,... is needed, as digit=0"),
        (["--set", "digit=4"], "digit has no class '4'"),
        (["--set", "digit=1,digit=2"], "digit is given twice"),
        (["--set", "age=old"], "a number, or deviations from the mean as -2sd"),
        (["--set", "age=7"], "age is 7; in the data it is 0 to 5.9"),
        (["--set", "age=@nothing.npy"], "nothing.npy is no readable .npy or .json"),
        (["--sweep", "age=1:9"], "age is 9"),
        (["--sweep", "age=1"], "NAME=FROM:TO or NAME=FROM:TO:STEPS"),
        (["--sweep", "age=1:2:1"], "from 2 to 100"),
        (["--sweep", "age", "--set", "age=1"], "--set and --sweep both give age"),
        (["--classes", "1", "--set", "digit=1"], "give --set and --sweep alone"),
        (["--classes", "1"], "2 parts that are classes"),
    ],
)
def test_conditions_that_the_model_does_not_have_are_one_line(
    styled: str, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    assert main([styled, *words, "--grid", str(out)]) == MISUSED
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not out.exists()


def test_conditions_of_a_model_of_classes_are_refused(
    gan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([gan, "--set", "digit=1", "--grid", str(tmp_path / "out.png")]) == MISUSED
    assert "give --classes" in capsys.readouterr().err


def test_shards_of_samples_hold_the_conditions_that_were_asked_for(styled: str, tmp_path: Path) -> None:
    words = ["--seeds", "3-12", "--set", "digit=2", "--sweep", "age=1:5:3", "--shards", str(tmp_path / "set")]
    assert main([styled, *words, "--workers", "0"]) == DONE
    model, index = load(styled), DatasetIndex.load(store := Store(tmp_path / "set"))
    assert model.conditions is not None
    assert model.conditions.differing(index.conditions) == ""
    samples, found = read_samples(index, store, range(index.samples))
    ages = np.tile([1.0, 3.0, 5.0], 10)
    assert found is not None
    assert index.conditions is not None
    told = [index.conditions.decode(row.numpy()) for row in found]
    assert [each["age"] for each in told] == pytest.approx(ages.tolist(), abs=1e-4)
    assert {each["digit"] for each in told} == {"2"}
    assert samples.shape[0] == 30
