"""A command says at once whether its run is new, continues or is finished, and a finished run is only shown."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import imagegen_dist
from imagegen_dist.cli import estimate, prepare, train, train_options
from imagegen_dist.cli.train import main
from imagegen_dist.errors import DONE
from tests.runs import TINY, Listener, _packed_digits, train_here

SETTINGS = {**TINY, "training.total_images": 240}
WORDS = [word for path, value in SETTINGS.items() for word in (f"--{path}", json.dumps(value))]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a finished run "whole" of 240 images, and "half", which was stopped."""
    folder = tmp_path_factory.mktemp("storage")
    shutil.copytree(_packed_digits(), folder / ".data")
    groups: dict[str, Any] = {}
    for path, value in SETTINGS.items():
        groups.setdefault(path.partition(".")[0], {})[path.partition(".")[2]] = value
    imagegen_dist.train("digits", storage=folder, run="whole", workers=0, **groups)
    found = prepared(folder, "digits", *WORDS, "--run", "half")
    prepare.records.write_config(found.settings, found.experiment, found.index, {})
    train_here(found.experiment, found.settings, Listener(stop_at=96))
    (folder / "whole-notes").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        def run(self) -> int:
            print("Ray would start")
            return DONE

    monkeypatch.setattr(prepare, "build_driver", lambda *_, **__: Driver())


def prepared(storage: Path, *words: str) -> prepare.Prepared:
    return prepare.prepare(train_options.parse("train", [*words, "--storage", str(storage)]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("half", "an existing run, which continues at 96 of 240 images"),
        ("whole2", "a new run of digits; the run there with the most similar name is whole"),
        ("other-name", "a new run of digits"),
    ],
)
def test_the_first_line_says_whether_a_run_is_new(
    storage: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run", name, "--storage", str(storage)]) == DONE
    assert capsys.readouterr().out.splitlines() == [f"{storage}/{name}: {said}", "Ray would start"]


def test_a_dry_run_says_it_too_and_an_unnamed_run_resembles_none(storage: Path) -> None:
    found = prepared(storage, "digits", *WORDS)
    assert found.standing.text == "a new run of digits"
    text = prepare.dry_run_text(prepared(storage, "--run", "half"))
    assert "run         an existing run, which continues at 96 of 240 images" in text


def test_a_finished_run_is_shown_and_left_as_it_is(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (storage / "whole").rglob("*") if path.is_file()}
    assert main(["--run", "whole", "--storage", str(storage)]) == DONE
    shown = capsys.readouterr().out
    assert shown.startswith(f"{storage}/whole: finished, with all of its 240 images\n")
    assert "Ray would start" not in shown
    for part in ("Figures", "Next steps", "--training.total-images IMAGES"):
        assert part in shown
    assert {path: path.read_bytes() for path in (storage / "whole").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("name", "started"), [("whole", 0), ("half", 1)])
def test_no_ray_is_started_early_for_a_run_that_has_ended(
    storage: Path, name: str, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Early:
        used = True

        def __init__(self, *_: object) -> None:
            begun.append(name)

    begun: list[str] = []
    monkeypatch.setattr(train, "EarlyRay", Early)
    assert main(["--run", name, "--storage", str(storage)], alone=True) == DONE
    assert len(begun) == started


def test_so_it_is_from_python(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (storage / "whole" / "result.json").read_bytes()
    run = imagegen_dist.train(run="whole", storage=storage, workers=0)
    assert run.result["images"] == 240
    assert "finished, with all of its 240 images" in capsys.readouterr().out
    assert (storage / "whole" / "result.json").read_bytes() == before


@pytest.mark.parametrize("change", ["--training.total-images=480", "--evaluation.every=48"])
def test_a_finished_run_goes_on_with_more_images_or_other_settings(storage: Path, change: str) -> None:
    assert not prepared(storage, "--run", "whole", change).standing.finished


def test_a_finished_run_without_its_figures_takes_them_again(storage: Path, tmp_path: Path) -> None:
    shutil.copytree(storage, tmp_path / "runs")
    file = tmp_path / "runs" / "whole" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"figures_missing": "it broke"}))
    assert not prepared(tmp_path / "runs", "--run", "whole").standing.finished


def test_what_has_nothing_left_to_do_rewrites_no_result(storage: Path, tmp_path: Path) -> None:
    """Workers that find a finished run, as after a change of a setting that decides no figure."""
    shutil.copytree(storage, tmp_path / "runs")
    file = tmp_path / "runs" / "whole" / "result.json"
    before = file.read_bytes()
    found = prepared(tmp_path / "runs", "--run", "whole", "--training.report-every", "24")
    assert train_here(found.experiment, found.settings).complete
    assert file.read_bytes() == before


def test_a_dry_run_measures_workers_with_their_threads_and_restores_those_before(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> float:
        seen.append(torch.get_num_threads())
        return 100.0

    seen: list[int] = []
    monkeypatch.setattr(estimate, "_measured_speed", measured)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    found = prepared(storage, "--run", "half")
    assert "(cpu, 3 threads, one worker counted 2 times)" in prepare.dry_run_text(found)
    assert (seen, torch.get_num_threads()) == ([3], 1)
