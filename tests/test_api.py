"""Training from Python, in this process and on Ray, and the run that comes back."""

from __future__ import annotations

import html
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import imagegen_dist
from imagegen_dist import api, config
from imagegen_dist.cli.runs import main_list
from imagegen_dist.objectives.interface import VAEOptimConfig
from imagegen_dist.presets import find_preset
from imagegen_dist.schedule import constant
from tests.runs import TINY, _packed_digits, tiny


def small(**changes: object) -> dict[str, dict[str, object]]:
    """Keyword arguments of `train` for a run of seconds."""
    groups: dict[str, dict[str, object]] = {}
    for path, value in {**TINY, "training.sample_every": 240, **changes}.items():
        group, name = path.split(".")
        groups.setdefault(group, {})[name] = value
    return groups


def train(storage: Path, **arguments: object) -> imagegen_dist.Run:
    return imagegen_dist.train("digits", storage=storage, workers=0, run="r", **small(), **arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> imagegen_dist.Run:
    return train(tmp_path_factory.mktemp("storage"), objective={"gamma": 0.5})


def test_settings_replace_the_presets(run):
    assert run.config["experiment"]["objective"]["gamma"] == 0.5
    assert run.config["experiment"]["model"]["widths"] == [16]


def test_a_kind_comes_before_its_settings_and_keeps_its_other_defaults():
    asked = {"autoencoder": {"lr": 1e-3}, "kind": "vaeoptim"}
    experiment = config.overrides(
        find_preset("digits-vae").experiment, api._assignments({"optim": asked, "data": None})
    )
    assert experiment.optim == VAEOptimConfig(replace(VAEOptimConfig().autoencoder, lr=constant(1e-3)))


def test_metrics_are_arrays(run):
    images, values = run.metrics["loss/generator"]
    assert images.tolist() == [96, 192, 288, 384, 480]
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    assert run.result["images"] == 480


def test_a_notebook_shows_the_run_and_its_pictures(run):
    assert run.pictures["grid"].size[0] > 100
    shown = run._repr_html_()
    assert "data:image/png;base64," in shown
    assert run.url in shown
    assert "480 images" in repr(run)
    assert Path(run.report).exists()


def test_the_list_of_runs_says_when_it_started(run, capsys):
    assert main_list([str(Path(run.url).parent)]) == 0
    assert time.strftime("%Y-") in capsys.readouterr().out


def test_the_model_samples(run):
    assert run.model.sample(2).shape == (2, 1, 28, 28)


def test_the_next_steps_are_calls_in_python(run):
    shown = html.unescape(Path(run.report).read_text())
    assert f"imagegen_dist.load('{run.url}').grid" in shown
    assert f"imagegen_dist.train(run='r', storage='{Path(run.url).parent}'" in shown


def test_a_run_is_continued_with_its_own_settings(run):
    storage = Path(run.url).parent
    longer = imagegen_dist.train(run="r", storage=storage, workers=0, training={"total_images": 576})
    assert longer.metrics["loss/generator"].images[-1] == 576
    assert longer.config["experiment"]["objective"]["gamma"] == 0.5


def test_an_experiment_of_ones_own(tmp_path):
    experiment = config.override(tiny(), "training.total_images", 96)
    run = imagegen_dist.train(experiment, storage=tmp_path, workers=0)
    assert run.name.startswith("gan-")
    assert run.metrics["loss/generator"].images.tolist() == [96]


def interrupt_after_rows(path: Path) -> None:
    """Send this process SIGINT once a run has written rows."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if path.exists() and path.stat().st_size:
            os.kill(os.getpid(), signal.SIGINT)
            return
        time.sleep(0.05)


def test_ctrl_c_leaves_a_checkpoint(tmp_path):
    endless = small(**{"training.total_images": 24 * 100_000})
    reported = threading.Thread(target=interrupt_after_rows, args=(tmp_path / "r" / "metrics.jsonl",), daemon=True)
    reported.start()
    with pytest.raises(KeyboardInterrupt):
        imagegen_dist.train("digits", storage=tmp_path, workers=0, run="r", **endless)
    reported.join()
    run = imagegen_dist.Run(tmp_path / "r")
    assert run.model.sample(1).shape == (1, 1, 28, 28)


def test_a_run_that_another_process_takes_over_is_no_interruption(tmp_path, monkeypatch):
    class Lost(api.Lease):
        def __enter__(self):
            self.lost.set()
            return super().__enter__()

    monkeypatch.setattr(api, "Lease", Lost)
    with pytest.raises(api.TrainingError, match="another process trains this run"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"preset": "digit"}, "did you mean digits?"),
        ({"preset": "digits", "objective": {"gama": 1}}, "gamma"),
        ({"preset": "digits", "workers": 100}, "workers"),
        ({"preset": ""}, 'train("digits")'),
        ({"preset": "", "run": "none"}, "is no run"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, said):
    with pytest.raises(ValueError) as error:
        imagegen_dist.train(**arguments, storage=tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_none_is_an_argument_that_is_left_out(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(api, "_train", lambda command, here: seen.append(command))
    monkeypatch.chdir(tmp_path)
    names = ("data", "storage", "run", "init_from", "fork_from", "at", "freeze_d", "workers", "model")
    imagegen_dist.train("digits", **dict.fromkeys(names))
    imagegen_dist.train("digits")
    assert seen[0] == seen[1]
    assert seen[0].experiment.data.url == "digits"
    with pytest.raises(ValueError, match="give a preset"):
        imagegen_dist.train(None)


def test_a_training_in_this_process_has_the_threads_of_a_worker_and_restores_those_before(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("imagegen_dist.run.execute", lambda *_: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(api, "_close", lambda *_: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    shutil.copytree(_packed_digits(), tmp_path / ".data")
    for before, cpus in ((6, None), (6, 2), (2, None)):
        torch.set_num_threads(before)
        with suppress(AttributeError):  # of the outcome that there is none of
            train(tmp_path, cpus=cpus)
        assert torch.get_num_threads() == before
    assert seen == [3, 2, 2]


def test_the_package_names_what_it_offers_without_loading_torch():
    code = "import sys, imagegen_dist; print('train' in dir(imagegen_dist), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
