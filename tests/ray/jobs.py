"""Training jobs as commands in processes of their own, watched from outside."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.runs import digits

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).parent / "ray"
START_S = 150.0


def words(storage: Path, name: str, changes: Mapping[str, object], job: str = "train_gan") -> list[str]:
    """The command that trains a job's default preset with these changes on two workers, on digits packed before."""
    digits(storage / ".data", "train")
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


@contextmanager
def on_terminal(command: list[str], columns: int = 80) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """The command while it runs on a terminal, and what has been written there; killed with all that it started."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"TERM": "xterm"}
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # the last of those that write there has ended
            while part := os.read(ours, 1 << 16):
                written.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    family = psutil.Process(process.pid)
    try:
        yield process, lambda: b"".join(written).decode(errors="replace")
    finally:
        members = [family, *family.children(recursive=True)] if family.is_running() else []
        for member in reversed(members):
            if member.is_running():
                member.kill()
        process.wait()
        reader.join()
        os.close(ours)


def finish(process: subprocess.Popen[str], seconds: float = START_S) -> str:
    output, _ = process.communicate(timeout=seconds)
    return output


def training_workers(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """The training workers below a driver."""
    return [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "TrainWorker" in " ".join(child.cmdline())
    ]


def gcs_port(process: subprocess.Popen[Any]) -> str:
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
