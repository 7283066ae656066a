"""What is removed of the things that killed jobs leave on a machine, and what is left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from imagegen_dist.cli import clean
from imagegen_dist.errors import DONE, MISUSED

LONG_AGO = time.time() - 3 * clean.ABANDONED_S
SLEEP = "import sys, time; print(1, flush=True); time.sleep(300)"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for Ray's sessions and one for temporary files, both empty."""
    short = Path(tempfile.mkdtemp(prefix="clean-"))  # a socket's path has a limit of 107 characters
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return short


@pytest.fixture
def session(machine: Path) -> Callable[..., Path]:
    def made(day: int, changed: float = LONG_AGO) -> Path:
        folder = machine / "ray" / f"session_2026-01-{day:02d}_03-53-03_092275_10543"
        for name in ("logs", "sockets"):
            (folder / name).mkdir(parents=True)
        (folder / "logs" / "raylet.out").write_text("x" * 1000)
        for path in (*folder.rglob("*"), folder):
            os.utime(path, (changed, changed))
        return folder

    return made


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes, whose first output is waited for, and ends them after the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(
        argument: str, program: str = sys.executable, named: str = "", log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        command = [named or program, "-S", "-c", SLEEP, argument]
        with open(log or os.devnull, "wb") as errors:
            process = subprocess.Popen(command, executable=program, stdout=subprocess.PIPE, stderr=errors)
        processes.append(process)
        assert process.stdout is not None
        process.stdout.read(1)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def cleaned(*words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the job prints."""
    assert clean.main(words) == DONE
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.splitlines()


def test_a_dead_session_goes_and_others_stay(
    session: Callable[..., Path], started: Callable[..., subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    dead, fresh, lives, listens = session(1), session(2, time.time()), session(3), session(4)
    (dead.parent / "session_latest").symlink_to(dead)
    (dead.parent / "session_elsewhere").mkdir()
    raylet = dead.parent / "raylet"
    raylet.symlink_to(sys.executable)
    started(f"--log_dir={lives}/logs", program=str(raylet))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listens / "sockets" / "raylet"))
        server.listen()
        os.utime(listens / "sockets", (LONG_AGO, LONG_AGO))
        shown = cleaned(capsys=capsys)
        assert [line.split()[-1] for line in shown[:-1]] == [str(dead)]
        assert shown[-1].startswith("1 leftover, ")
        assert "--remove removes it" in shown[-1]
        assert dead.exists()
        assert cleaned("--remove", capsys=capsys)[-1].endswith("removed")
    assert not dead.exists()
    assert not (dead.parent / "session_latest").is_symlink()
    assert all(folder.exists() for folder in (fresh, lives, listens, dead.parent / "session_elsewhere"))


def test_nothing_of_another_user_is_touched(
    session: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = session(1)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    assert cleaned("--remove", "--caches", capsys=capsys) == ["nothing is left behind"]
    assert theirs.exists()


def test_processes_that_a_killed_ray_left_are_ended_and_no_others(
    session: Callable[..., Path], started: Callable[..., subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    dead, lives = session(1), session(2)
    raylet = dead.parent / "raylet"
    raylet.symlink_to(sys.executable)
    started(f"--log_dir={lives}/logs", program=str(raylet))
    cleaner = started("", named="ray::PlacementGroupCleaner", log=dead / "logs" / "worker.err")
    working = started("", named="ray::PlacementGroupCleaner", log=lives / "logs" / "worker.err")
    reading = started(f"{dead}/logs/raylet.out")
    said = cleaned("--remove", capsys=capsys)
    assert f"{cleaner.pid} ray::PlacementGroupCleaner" in said[0]
    assert not psutil.pid_exists(cleaner.pid)
    assert working.poll() is None
    assert reading.poll() is None


def test_old_temporary_folders_go_and_caches_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("imagegen-pack-old", "imagegen-tune-new", "of-somebody-else"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (LONG_AGO, LONG_AGO) if "new" not in name else None)
    cache = tmp_path / f"imagegen-shards-{os.getuid()}"
    cache.mkdir(mode=0o700)
    for name in (f"{'0' * 64}.tar", f"{'1' * 64}.part", "mine.tar"):
        (cache / name).write_bytes(b"x" * 1000)
    said = cleaned("--remove", capsys=capsys)
    assert [line.split()[-1] for line in said[:-1]] == [str(tmp_path / "imagegen-pack-old")]
    assert len(list(cache.iterdir())) == 3
    assert "2kB" in cleaned("--caches", capsys=capsys)[0]
    cleaned("--caches", "--remove", capsys=capsys)
    assert [path.name for path in cache.iterdir()] == ["mine.tar"]
    assert {path.name for path in tmp_path.iterdir()} == {"imagegen-tune-new", "of-somebody-else", cache.name}


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert clean.main(["--remoev"]) == MISUSED
    assert capsys.readouterr().err.count("\n") == 1
