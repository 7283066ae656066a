"""Training jobs as commands in processes of their own, watched from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).parent / "ray"
START_S = 150.0


def words(storage: Path, name: str, changes: Mapping[str, object], job: str = "train_gan") -> list[str]:
    """The command that trains a job's default preset with these changes on two workers."""
    typed = []
    for path, value in changes.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        typed += [f"--{path.replace('__', '.').replace('_', '-')}", text]
    command = [sys.executable, f"jobs/{job}.py", "--storage", str(storage), "--run", name, "--workers", "2"]
    return [*command, "--wandb", "offline", *typed]


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


def gcs_port(process: subprocess.Popen[str]) -> str:
    """Where the Ray below a driver listens."""
    [command] = [child.cmdline() for child in psutil.Process(process.pid).children() if "gcs_server" in child.name()]
    [port] = [word.partition("=")[2] for word in command if word.startswith("--gcs_server_port=")]
    return port


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_S
    while not list(run.glob("checkpoints/step-*/*/manifest.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)
