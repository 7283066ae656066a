"""Sweeps as their user runs them: ended, killed and gone on with; submitted to a Ray head, left, rejoined, fetched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.reliability import Machines
from imagegen_dist import load
from imagegen_dist.storage import Store
from imagegen_dist.sweep.plan import read_plan
from imagegen_dist.sweep.trial import run_trial
from imagegen_dist.sweep.trial_store import COMPLETE, CUT, REPLACED, RUNNING, WAITING, Trial, TrialStore
from imagegen_dist.training.checkpoint import newest_images
from tests.ray.jobs import ROOT, finish, started
from tests.runs import TINY, assert_bit_identical, final_tensors, train_on

SMALL = TINY | {
    "training.total_images": 24 * 40,
    "training.checkpoint_every": 24 * 10,
    "evaluation.every": 24 * 10,
    "evaluation.samples": 50,
    "evaluation.classifier_images": 500,
}
LONG = SMALL | {
    "training.total_images": 24 * 1200,
    "training.checkpoint_every": 24 * 100,
    "evaluation.every": 24 * 300,
}
SWEEP = [sys.executable, "jobs/sweep.py"]


def words(storage: Path, *more: str, size: dict[str, Any] = SMALL) -> list[str]:
    typed = ["digits", "--space", "optim.*.lr=loguniform:1e-4:1e-2", "--storage", str(storage), "--wandb", "disabled"]
    for path, value in size.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        typed += [f"--{path.replace('_', '-')}", text]
    return [*typed, *more]


def trials_of(storage: Path, name: str) -> list[Trial]:
    return TrialStore.read(Store(storage) / name).trials


def wait_for(process: subprocess.Popen[str], condition: Any, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_a_killed_trial_and_a_killed_driver_change_nothing(tmp_path: Path) -> None:
    run = tmp_path / "s" / "trials"
    with started([*SWEEP, *words(tmp_path, "--trials", "3", "--name", "s", "--max-concurrent", "1")]) as process:
        wait_for(process, lambda: list(run.glob("0000/checkpoints/*/*/manifest.json")) and trial_processes(process))
        for trial_process in trial_processes(process):
            trial_process.kill()
        wait_for(process, lambda: list(run.glob("0001/checkpoints/*/*/manifest.json")))
        process.kill()
    before = {trial.run: trial for trial in trials_of(tmp_path, "s")}
    assert before["0000"].state == COMPLETE
    assert before["0001"].state != COMPLETE
    result = (run / "0000" / "result.json").stat().st_mtime_ns

    with started([*SWEEP, "--resume", "s", "--storage", str(tmp_path)]) as process:
        output = finish(process, 250)
    assert process.returncode == 0, output
    assert (run / "0000" / "result.json").stat().st_mtime_ns == result
    assert "Traceback" not in output

    plan = read_plan(Store(tmp_path) / "s", "s")
    for number, trial in enumerate(trials_of(tmp_path, "s")):
        assert trial.state == COMPLETE
        assert trial.values == plan.space.point(number, plan.seed)
        alone: list[Trial] = []
        run_trial(Trial(number, trial.values, generation=9), plan, alone.append)
        assert trial.figures == alone[-1].figures
    best = min(trials_of(tmp_path, "s"), key=lambda trial: trial.figures["eval/frechet"])
    assert json.loads((tmp_path / "s" / "best.json").read_text())["trial"] == best.run


def trial_processes(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Processes below a sweep in which a trial trains now; none between two trials."""
    return [child for child in psutil.Process(process.pid).children(recursive=True) if is_trial(child)]


def is_trial(process: psutil.Process) -> bool:
    try:
        return "ResourceTrainable" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.full
@pytest.mark.timeout(900)
def test_trials_of_two_workers_that_are_ended_and_killed_change_nothing(tmp_path: Path) -> None:
    """The first trial is ended by SIGTERM, the second one by SIGKILL of all."""
    run = tmp_path / "w" / "trials"
    command = [*SWEEP, *words(tmp_path, "--trials", "2", "--name", "w", "--workers", "2", size=LONG)]
    with started(command) as process:
        wait_for(process, lambda: list(run.glob("0000/checkpoints/*/*/manifest.json")))
        process.send_signal(signal.SIGTERM)
        output = finish(process, 250)
    assert process.returncode == 143, output
    [ended] = trials_of(tmp_path, "w")
    assert ended.state == CUT
    assert ended.images == newest_images(Store(run) / "0000") < LONG["training.total_images"]

    resume = [*SWEEP, "--resume", "w", "--storage", str(tmp_path)]
    with started(resume) as process:
        wait_for(process, lambda: list(run.glob("0001/checkpoints/*/*/manifest.json")))
        process.kill()
    with started(resume) as process:
        output = finish(process, 250)
    assert process.returncode == 0, output
    assert "Traceback" not in output

    plan = read_plan(Store(tmp_path) / "w", "w")
    for trial in trials_of(tmp_path, "w"):
        assert trial.state == COMPLETE
        alone = plan.trial_settings(f"alone-{trial.run}")
        train_on(2, plan.space.apply(plan.experiment, trial.values), alone, tmp_path / f"meeting-{trial.run}")
        assert_bit_identical(final_tensors(plan.trial_settings(trial.run, "")), final_tensors(alone))
        assert json.loads((run / trial.run / "config.json").read_text())["launch"]["workers"] == [2, 2]


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_budget_ends_a_sweep_with_its_results_and_loses_nothing(tmp_path: Path) -> None:
    endless = {"training.total_images": 24 * 1_000_000, "training.checkpoint_every": 24 * 1_000_000}
    size = LONG | endless | {"evaluation.every": 24 * 40}
    with started(
        [*SWEEP, *words(tmp_path, "--trials", "3", "--name", "b", "--time-budget", "35", size=size)]
    ) as process:
        output = finish(process, 120)
    assert process.returncode == 0, output
    assert "--time-budget of 35 s is spent: the trials write a checkpoint" in output
    for name in ("best.json", "results.csv", "report.html"):
        assert (tmp_path / "b" / name).exists()
    begun = trials_of(tmp_path, "b")
    assert begun
    assert {trial.state for trial in begun} == {CUT}
    assert any(trial.images > 0 for trial in begun)
    for trial in begun:  # one that had only just begun has neither images nor a checkpoint
        assert trial.images == max(0, newest_images(Store(tmp_path) / "b" / "trials" / trial.run))


def test_a_trial_that_this_machine_has_no_room_for_is_said_at_once(tmp_path: Path) -> None:
    with started([*SWEEP, *words(tmp_path, "--workers", "2", "--cpus", "999")]) as process:
        output = finish(process)
    assert process.returncode == 2, output
    assert output.splitlines()[-1].startswith("sweep.py: --cpus 999: this machine has")
    assert "Traceback" not in output


@dataclass(frozen=True)
class Laptop:
    """A second machine, as far as one has room for it: a home, a checkout and an environment of its own; no data."""

    home: Path
    head: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": f"{self.home / 'environment' / 'bin'}:/usr/bin:/bin",
            "CUDA_VISIBLE_DEVICES": "",
            "RAY_AUTH_MODE": "disabled",
        }

    def command(self, *typed: str) -> list[str]:
        return ["python", "jobs/sweep.py", "--address", self.head, *typed]

    def start(self, *typed: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*typed),
            cwd=self.home / "checkout",
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self, *typed: str) -> str:
        process = self.start(*typed)
        output = finish(process, 250)
        assert process.returncode == 0, output
        return output


@pytest.fixture
def laptop(head: str, tmp_path: Path) -> Laptop:
    """The package is installed there, not editable; only what it depends on is shared with this environment."""
    home = tmp_path / "laptop"
    for name in ("imagegen_dist", "jobs"):
        shutil.copytree(ROOT / name, home / "checkout" / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "environment")], check=True)
    [packages] = (home / "environment").glob("lib/python*/site-packages")
    shutil.copytree(home / "checkout" / "imagegen_dist", packages / "imagegen_dist")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return Laptop(home, head)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_population_on_a_cluster_is_left_stopped_gone_on_with_and_fetched(laptop: Laptop, tmp_path: Path) -> None:
    storage = tmp_path / "cluster"
    process = laptop.start(*words(storage, "--trials", "4", "--scheduler", "pbt", "--name", "p"))
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said.startswith("job sweep-p-"), said
    job = said.split()[1].rstrip(",")
    process.kill()  # the laptop is closed
    process.wait()
    process.stdout.close()
    asked = laptop.ask("--status", job)
    assert "running" in asked or "pending" in asked

    deadline = time.monotonic() + 150
    while not list(storage.glob("p/trials/0000/checkpoints/*/*/manifest.json")):
        assert time.monotonic() < deadline, laptop.ask("--status", job)
        time.sleep(0.1)
    assert "stopped" in laptop.ask("--stop", job)
    for trial in trials_of(storage, "p"):
        assert trial.state in (CUT, WAITING)
        assert trial.images <= max(newest_images(Store(storage) / "p" / "trials" / trial.run), 0)
    assert (storage / "p" / "report.html").exists()

    shown = laptop.ask("--resume", "p", "--storage", str(storage))
    job = shown.split()[1].rstrip(",")
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

    assert "replaced" in laptop.ask("--attach", job)  # from the beginning, once more
    got = laptop.home / "got"
    assert "through the job server" in laptop.ask("--fetch", job, str(got))
    fetched = json.loads((got / "best.json").read_text())
    assert load(got / "trials" / fetched["trial"]).images == 960
    assert (got / "report.html").read_bytes() == (storage / "p" / "report.html").read_bytes()
    assert not list(laptop.home.rglob("index.json"))


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_sweep_on_a_cluster_without_a_machine_waits_for_one_and_goes_on_as_more_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_worker_niceness", "RAY_USAGE_STATS_ENABLED", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # what the machines set ends with the test
    command = [*SWEEP, *words(tmp_path, "--trials", "3", "--name", "s", "--cpus", "1")]
    with Machines(0) as machines, started(command, RAY_ADDRESS=machines.address, PYTHONUNBUFFERED="1") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        while "waiting for the cluster to grow" not in line:
            assert line, "it has ended"
            line = process.stdout.readline()
        assert "has room for 0 such workers" in line
        machines.add()
        machines.add()
        running = 0
        while process.poll() is None:
            running = max(running, sum(trial.state == RUNNING for trial in trials_of(tmp_path, "s")))
            time.sleep(0.2)
        output = finish(process)
    assert process.returncode == 0, output
    assert [trial.state for trial in trials_of(tmp_path, "s")] == [COMPLETE] * 3
    assert running == 2
