"""The job as its user runs it, on real Ray workers: a command in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.training.checkpoint import newest
from tests.runs import TINY, assert_bit_identical, final_tensors, settings, tiny, train_on

ROOT = Path(__file__).parents[2]
IMAGES = 24 * 240
LONG = {"training__total_images": IMAGES, "training__checkpoint_every": 24 * 20, "training__report_every": 24 * 10}
START_S = 150.0


def words(storage: Path, name: str, *more: str) -> list[str]:
    """The command that trains `tiny(**LONG)` on two workers."""
    changes = TINY | {path.replace("__", "."): value for path, value in LONG.items()}
    typed = []
    for path, value in changes.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        typed += [f"--{path.replace('_', '-')}", text]
    job = [sys.executable, "jobs/train_gan.py", "--storage", str(storage), "--run", name, "--workers", "2"]
    return [*job, "--wandb", "offline", *typed, *more]


@contextmanager
def started(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command while it runs, its output in a pipe; killed at the end of the block with all that it started."""
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | environment
    process = subprocess.Popen(
        command, cwd=ROOT, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    family = [psutil.Process(process.pid)]
    try:
        yield process
        with_children = family[0].children(recursive=True) if family[0].is_running() else []
        family += with_children
    finally:
        for member in reversed(family):
            if member.is_running():
                member.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def finish(process: subprocess.Popen[str], seconds: float = START_S) -> str:
    output, _ = process.communicate(timeout=seconds)
    return output


def training_workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The Ray Train workers below a driver."""
    return [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RayTrainWorker" in " ".join(child.cmdline())
    ]


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_S
    while not list(run.glob("checkpoints/step-*/*/manifest.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The final state of the same experiment on two gloo processes without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    where = settings(folder, "run", folder / ".data")
    train_on(2, tiny(**LONG), where, folder / "meeting")
    return final_tensors(where)


@pytest.mark.timeout(400)
def test_a_killed_worker_and_a_terminated_driver_change_nothing(undisturbed: dict, tmp_path: Path) -> None:
    run = tmp_path / "run"
    where = settings(tmp_path, "run", tmp_path / ".data")

    with started(words(tmp_path, "run")) as process:
        wait_for_checkpoint(run, process)
        process.send_signal(signal.SIGTERM)
        output = finish(process)
    assert process.returncode == 143, output
    assert "stopped with a checkpoint" in output
    assert not (run / "result.json").exists()

    with started(words(tmp_path, "run")) as process:
        before = newest(where.folder, lambda why: None)
        assert before is not None
        while newest(where.folder, lambda why: None).images == before.images:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        training_workers(process)[1].kill()
        output = finish(process)
    assert process.returncode == 0, output
    assert "starting again from the last checkpoint" in output
    assert output.count("was lost") == 1
    assert_bit_identical(final_tensors(where), undisturbed)
    assert [row["images"] for row in read_rows(where.folder)] == list(range(240, IMAGES + 1, 240))

    result = json.loads((run / "result.json").read_text())
    for name, path in result["paths"].items():
        if name == "wandb" and path is None:  # W&B may fail, never silently
            assert "Weights & Biases" in output
        else:
            assert path in output, name
            assert Path(path).exists()
    assert "Traceback" not in output


@pytest.mark.timeout(200)
def test_an_error_of_a_worker_is_shown_once_with_its_cause(tmp_path: Path) -> None:
    settings(tmp_path, "run", tmp_path / ".data")
    index = tmp_path / ".data" / "digits-v1" / "train"
    shard = next(index.glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-5000])
    with started(words(tmp_path, "run")) as process:
        output = finish(process)
    assert process.returncode == 1, output
    assert output.count(shard.name) == 1
    assert "driver.log" in output
