"""A Ray that is started by hand, by the lines of docs/start.md: its job does the work of a plain start."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray.jobs import RAY, ROOT, words
from tests.runs import TINY, assert_bit_identical, final_tensors, settings, tiny, train_on

APART = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""A network and processes of its own: Ray takes its usual ports, and ends with the command."""

LOOPBACK = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 0x49))"
SHORT = {"training__total_images": 24 * 10}


def documented_lines() -> list[str]:
    """What docs/start.md says to type for a Ray that is started by hand."""
    _, _, after = (ROOT / "docs/start.md").read_text().partition("On a Ray that you started by hand:\n")
    block = re.match(r"\n((?:    .*\n)+)", after)
    assert block is not None
    return [line.strip() for line in block[1].splitlines()]


@pytest.mark.timeout(400)
def test_the_documented_lines_do_the_same_work_as_a_plain_start(tmp_path: Path) -> None:
    """Where a token lies in the home directory already, as after any training on this machine.

    Afterwards jobs/clean.py touches nothing while that Ray lives, and ends its last processes once it was killed.
    """
    if shutil.which("unshare") is None or subprocess.run([*APART, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no network and processes apart")
    [*before, submitted] = documented_lines()
    assert "ray job submit" in submitted
    assert "--storage /shared/runs --run digits-1" in submitted
    changes = TINY | {path.replace("__", "."): value for path, value in SHORT.items()}
    typed = words(tmp_path, "digits-1", changes)
    submitted = submitted.replace("--storage /shared/runs --run digits-1", " ".join(typed[2:]))
    clean = f'"{sys.executable}" jobs/clean.py --remove'
    kill = "pkill -9 gcs_server; pkill -9 raylet; while pgrep raylet; do sleep 0.1; done"
    after = ["echo LIVES", clean, kill, "pgrep -f ^ray::", "echo DEAD", clean, "! pgrep -f ^ray::"]
    script = "\n".join(["set -e", f'"{sys.executable}" -c "{LOOPBACK}"', *before, submitted, *after])
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    short = f"/tmp/ray-readme-{os.getpid()}"  # sockets below it have a limit of 107 characters
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "RAY_TMPDIR": short, "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"
    try:
        done = subprocess.run(
            [*APART, "bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment
        )
    finally:
        shutil.rmtree(short, ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert "240 / 240" in done.stdout

    alive, dead = done.stdout.partition("LIVES")[2].split("DEAD")
    assert alive.splitlines()[1] == "nothing is left behind"
    assert "Ray process" in dead
    assert "ray::DashboardAgent" in dead

    there = settings(tmp_path, "digits-1", tmp_path / ".data")
    plain = settings(tmp_path, "plain", tmp_path / ".data")
    train_on(2, tiny(**SHORT), plain, tmp_path / "meeting")
    assert_bit_identical(final_tensors(there), final_tensors(plain))
