"""A package of a user's own: its objectives and networks are trained, resumed, evaluated, sampled and exported.

Each command runs as a user runs it, in a process of its own, in a folder that holds nothing but `my_package`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT, PACKAGE = Path(__file__).parents[2], Path(__file__).with_name("my_package")
PRESET, AUTOENCODER = "my_package.presets:my_preset", "my_package.presets:my_autoencoder"
PACKAGE_FLAG = ("--package", "my_package.presets")

pytestmark = pytest.mark.timeout(900)  # seconds: each test starts several programs, two of which start Ray


def job(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def python(folder: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


SEVERAL = """
import contextlib, io, json, sys
from imagegen_dist.cli.imagegen import main
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(words)
    print(json.dumps([code, said.getvalue()]))
"""


def said_by(folder: Path, *commands: str) -> list[tuple[int, str]]:
    """Exit code and errors of each `imagegen` command, all in one process."""
    words = json.dumps([command.split() for command in commands])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SEVERAL, words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def succeed(folder: Path, name: str, *words: str) -> str:
    done = job(folder, name, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of the user's GAN and of the user's autoencoder."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(PACKAGE, folder / "my_package", ignore=shutil.ignore_patterns("__pycache__"))
    words = ("--run", "gan", "--workers", "2", "--wandb", "disabled")
    succeed(folder, "train_gan", PRESET, *words, "--evaluation.metrics", "mean-distance,feature-distance")
    settings = "run='vae', workers=0, evaluation={'metrics': ['mean-distance']}"
    python(folder, f"import imagegen_dist; imagegen_dist.train({AUTOENCODER!r}, {settings})")
    return folder


def test_a_run_has_figures_pictures_and_a_report(folder: Path) -> None:
    gan, vae = (json.loads((folder / "runs" / name / "result.json").read_text()) for name in ("gan", "vae"))
    assert {"frechet", "label_agreement", "authenticity", "mean_distance"} < gan.keys()
    assert gan["feature_distance"] == pytest.approx(gan["mean_distance"])
    assert gan["real_features"] == gan["evaluation"]["samples"]
    assert {"elbo", "distortion", "psnr", "frechet_reconstruction"} < vae.keys()
    for run, picture in (("gan", "grid"), ("vae", "reconstructions")):
        report = (folder / "runs" / run / "report.html").read_text()
        assert PRESET.partition(":")[0] in report
        assert "distance of the means" in report
        assert list((folder / "runs" / run / "samples").glob(f"{picture}-*.png"))
    config = json.loads((folder / "runs" / "gan" / "config.json").read_text())
    assert config["preset"] == PRESET
    assert config["experiment"]["objective"] == {"kind": "leastsquares", "real": 1.0}


def test_the_name_of_a_run_resumes_it(folder: Path) -> None:
    shutil.copytree(folder / "runs" / "gan", folder / "runs" / "longer")
    for name in ("config.json", "metrics.jsonl"):
        assert (folder / "runs" / "longer" / name).exists()
    words = ("--run", "longer", "--workers", "1", "--wandb", "disabled", "--training.total-images", "1920")
    succeed(folder, "train_gan", *words)
    rows = [json.loads(line) for line in (folder / "runs" / "longer" / "metrics.jsonl").read_text().splitlines()]
    images = [row["images"] for row in rows if "loss/generator" in row]
    assert images == [320, 640, 960, 1280, 1600, 1920]
    again = "imagegen_dist.train(run='longer', workers=0, training={'total_images': 1920})"
    assert "1,920 images" in python(folder, f"import imagegen_dist; print(repr({again}))")


def test_a_trained_model_is_evaluated_sampled_and_exported(folder: Path) -> None:
    few = ("--workers", "0", "--samples", "100", "--metrics", "fid")
    succeed(folder, "evaluate", "runs/vae", *PACKAGE_FLAG, *few, "--out", "vae.json")
    assert {"elbo", "psnr"} <= json.loads((folder / "vae.json").read_text())["figures"].keys()
    own = ("--metrics", "mean-distance", "--features", "projections", "--out", "own.json")
    shown = succeed(folder, "evaluate", "runs/gan", *PACKAGE_FLAG, "--workers", "0", *own)
    assert "distance of the means" in shown
    found = json.loads((folder / "own.json").read_text())
    assert found["figures"].keys() == {"mean_distance"}
    assert found["features"]["projections"]["dimensions"] == 16
    succeed(folder, "sample", "runs/gan", *PACKAGE_FLAG, "--grid", "grid.png")
    assert (folder / "grid.png").stat().st_size > 1000
    succeed(folder, "export", "runs/gan", "onnx", *PACKAGE_FLAG, "--to", "onnx")
    assert (folder / "onnx" / "generator.onnx").exists()
    succeed(folder, "export", "runs/vae", "hf", *PACKAGE_FLAG)
    shown = python(folder, "import my_package.presets, imagegen_dist; print(imagegen_dist.load('hf').sample(3).shape)")
    assert shown == "torch.Size([3, 1, 28, 28])\n"


def test_a_source_is_packed(folder: Path) -> None:
    succeed(folder, "make_shards", "my_package.source:circles://60", "circles")
    index = json.loads((folder / "circles" / "index.json").read_text())
    assert index["class_names"] == ["small", "large"]
    assert sum(shard["samples"] for shard in index["shards"]) == 60


def test_a_models_files_do_not_decide_what_is_imported(folder: Path, tmp_path: Path) -> None:
    """Whoever made the files of a model could run code wherever it is opened."""
    shutil.copytree(folder / "runs" / "gan", tmp_path / "theirs")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "presets.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    commands = "evaluate theirs", "sample theirs --grid x.png", "export theirs out"
    for code, said in said_by(tmp_path, *commands):
        assert code == 2
        assert "if you trust it, add --package my_package.presets" in said.splitlines()[-1]
        assert "Traceback" not in said
    assert not (tmp_path / "imported").exists()


def test_a_name_that_is_no_preset_is_one_line(folder: Path) -> None:
    wrong = {
        "my_package.preset:my_preset": "the module my_package.preset cannot be imported",
        "my_package.presets:mine": "is no Preset; my_package.presets has my_preset, my_autoencoder",
    }
    found = said_by(folder, *(f"train {preset}" for preset in wrong))
    for (code, said), expected in zip(found, wrong.values(), strict=True):
        assert code == 2
        assert expected in said
        assert len(said.strip().splitlines()) == 1
    done = job(folder, "train_gan", AUTOENCODER)
    assert done.returncode == 2
    assert "is trained by train_vae.py" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
