"""The gallery names what exists, its page is that of its figures, and a figure outside its range fails it."""

import json
import subprocess
from dataclasses import replace

import pytest

from benchmarks import gallery
from benchmarks.gallery import EXHIBITS, PLACE, Bounds, main, outside, page
from imagegen_dist.cli import sample
from imagegen_dist.metric_table import entry_of
from imagegen_dist.presets import PRESETS

WRITTEN = sorted(path.stem for path in PLACE.glob("*.json"))


@pytest.mark.parametrize("name", EXHIBITS)
def test_an_exhibit_is_a_preset_with_figures_of_the_table_and_a_command_that_parses(name):
    exhibit = EXHIBITS[name]
    assert PRESETS[name].experiment.training.total_images
    assert all(entry_of(f"eval/{metric}") for metric in exhibit.bounds)
    if exhibit.sample:
        sample.parse([f"runs/{name}", *exhibit.sample.split(), "--grid", f"{name}{exhibit.suffix}"])


def test_the_page_is_that_of_the_figures_and_every_picture_is_there():
    assert (PLACE / gallery.PAGE).read_text("utf-8") == page(PLACE)
    assert WRITTEN
    assert all((PLACE / f"{name}{EXHIBITS[name].suffix}").exists() for name in WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_figures_of_the_gallery_lie_within_their_ranges(name):
    assert outside(name, json.loads((PLACE / f"{name}.json").read_text("utf-8"))["figures"]) == []


def test_a_figure_outside_its_range_or_not_measured_fails_the_gallery(tmp_path, monkeypatch, capsys):
    told = []
    figures = {"frechet": 4.0, "frechet_real": 2.0, "agreement": {"digit": 0.5}}
    result = {"images": 640, "seconds": 12.4, **figures}

    def train(*words):
        told.append(words)
        run = tmp_path / "runs" / words[1]
        run.mkdir(parents=True)
        picture = run / "grid.png"
        picture.write_bytes(b"picture")
        (run / "result.json").write_text(json.dumps({**result, "paths": {"picture": str(picture)}}))
        launch = {"workers": [1, 3], "threads": 2}
        config = {"git_commit": "0123456789", "versions": {"torch": "2.13.0"}, "launch": launch}
        (run / "config.json").write_text(json.dumps(config))

    monkeypatch.setattr(gallery, "imagegen", train)
    bounds = {"frechet": Bounds(0, 1.5, "frechet_real"), "agreement/digit": Bounds(0.4, 1), "copied": Bounds(0, 0.1)}
    monkeypatch.setattr(gallery, "EXHIBITS", {"digits": replace(EXHIBITS["digits"], bounds=bounds)})
    assert main(["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]) == 1
    assert told == [("train", "digits", "--run", "digits", "--storage", str(tmp_path / "runs"))]
    said = capsys.readouterr().out
    assert "digits: frechet is 4, outside 0 to 3" in said
    assert "digits: copied was not measured" in said
    assert "agreement" not in said.split("imagegen train digits")[1]
    assert (tmp_path / "out" / "digits.png").read_bytes() == b"picture"
    assert json.loads((tmp_path / "out" / "digits.json").read_text())["cpu"].startswith("6 cores of ")


def test_a_gallery_that_is_interrupted_trains_no_further_exhibit(tmp_path, monkeypatch, capsys):
    told = []

    def interrupted(*words):
        told.append(words[1])
        raise subprocess.CalledProcessError(130, words)

    monkeypatch.setattr(gallery, "imagegen", interrupted)
    assert main(["--only", "digits", "solids-vae", "--out", str(tmp_path), "--runs", str(tmp_path)]) == 130
    assert told == ["digits"]
    assert "not trained" in capsys.readouterr().out
    assert not (tmp_path / gallery.PAGE).exists()
