"""Sweeps as their user runs them: killed and gone on with; submitted to a Ray head, left, rejoined and fetched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from imagegen_dist import load
from imagegen_dist.launch.sweep.ledger import COMPLETE, REPLACED, Ledger, Trial
from imagegen_dist.launch.sweep.plan import read_plan
from imagegen_dist.launch.sweep.trial import train
from imagegen_dist.storage import Store
from tests.ray.jobs import ROOT, finish, started
from tests.runs import CPU, TINY

SMALL = TINY | {
    "training.total_images": 24 * 40,
    "training.checkpoint_every": 24 * 10,
    "evaluation.every": 24 * 10,
    "evaluation.samples": 50,
    "evaluation.classifier_images": 500,
}


def words(storage: Path, *more: str) -> list[str]:
    typed = ["digits", "--space", "optim.*.lr=loguniform:1e-4:1e-2", "--storage", str(storage), "--wandb", "disabled"]
    for path, value in SMALL.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        typed += [f"--{path.replace('_', '-')}", text]
    return [*typed, *more]


def trials_of(storage: Path, name: str) -> list[Trial]:
    return Ledger.read(Store(storage) / name).trials


def wait_for(process: subprocess.Popen[str], condition: Any, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_a_killed_trial_and_a_killed_driver_change_nothing(tmp_path: Path) -> None:
    sweep = [sys.executable, "jobs/sweep.py"]
    run = tmp_path / "s" / "trials"
    with started([*sweep, *words(tmp_path, "--trials", "3", "--name", "s", "--max-concurrent", "1")]) as process:
        wait_for(process, lambda: list(run.glob("0000/checkpoints/*/*/manifest.json")))
        workers = [child for child in psutil.Process(process.pid).children(recursive=True) if is_trial(child)]
        assert workers
        workers[0].kill()
        wait_for(process, lambda: list(run.glob("0001/checkpoints/*/*/manifest.json")))
        process.kill()
    before = {trial.run: trial for trial in trials_of(tmp_path, "s")}
    assert before["0000"].state == COMPLETE
    assert before["0001"].state != COMPLETE
    result = (run / "0000" / "result.json").stat().st_mtime_ns

    with started([*sweep, "--resume", "s", "--storage", str(tmp_path)]) as process:
        output = finish(process, 250)
    assert process.returncode == 0, output
    assert (run / "0000" / "result.json").stat().st_mtime_ns == result
    assert "Traceback" not in output

    plan = read_plan(Store(tmp_path) / "s", "s")
    for number, trial in enumerate(trials_of(tmp_path, "s")):
        assert trial.state == COMPLETE
        assert trial.values == plan.space.point(number, plan.seed)
        alone: list[dict[str, Any]] = []
        settings = plan.trial_settings(f"alone-{number}", "")
        train(plan.space.apply(plan.experiment, trial.values), settings, plan, CPU, alone.append)
        assert trial.figures["eval/frechet"] == alone[-1]["eval/frechet"]
    best = min(trials_of(tmp_path, "s"), key=lambda trial: trial.figures["eval/frechet"])
    assert json.loads((tmp_path / "s" / "best.json").read_text())["trial"] == best.run


def is_trial(process: psutil.Process) -> bool:
    try:
        return "ImplicitFunc" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.timeout(600)
def test_a_population_on_a_cluster_is_left_rejoined_and_fetched(head: str, tmp_path: Path) -> None:
    """The command is typed in an empty folder, in an environment of its own: home, no data, no W&B."""
    home = tmp_path / "laptop"
    home.mkdir()
    storage = tmp_path / "cluster"

    def laptop(*typed: str) -> list[str]:
        return [sys.executable, str(ROOT / "jobs" / "sweep.py"), "--address", head, *typed]

    def ask(*typed: str) -> str:
        environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(laptop(*typed), cwd=home, env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    population = words(storage, "--trials", "4", "--scheduler", "pbt", "--name", "p")
    with started(laptop(*population), HOME=str(home), RAY_AUTH_MODE="disabled") as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("job sweep-p-"), said
        job = said.split()[1].rstrip(",")
        process.kill()  # the laptop is closed
    assert "running" in ask("--status", job) or "pending" in ask("--status", job)

    shown = ask("--attach", job)
    assert "replaced" in shown
    assert "4 complete" in shown
    trials = trials_of(storage, "p")
    complete = [trial for trial in trials if trial.state == COMPLETE]
    assert [trial.number for trial in complete] == [0, 1, 2, 3]
    successors = [trial for trial in trials if trial.parent]
    assert len(successors) == len([trial for trial in trials if trial.state == REPLACED]) == 3
    for trial in successors:
        assert trial.start.startswith(f"{(Store(storage) / 'p' / 'trials' / trial.parent).url}/checkpoints/")
        assert trial.born in (240, 480, 720)

    ask("--fetch", job, str(home / "got"))
    fetched = json.loads((home / "got" / "best.json").read_text())
    assert load(home / "got" / "trials" / fetched["trial"]).images == 960
    assert (home / "got" / "report.html").read_bytes() == (storage / "p" / "report.html").read_bytes()


def test_an_address_where_no_ray_answers_is_said_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "jobs/sweep.py", "gan-lr", "--address", "http://127.0.0.1:9", "--storage", str(tmp_path)]
    with started(command) as process:
        output = finish(process)
    assert process.returncode == 2, output
    assert output.count("\n") == 1
    assert "no Ray answers there" in output
