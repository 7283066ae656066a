"""A Ray head that was started by hand, as a cluster has one."""

from __future__ import annotations

import os
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray.jobs import RAY, started


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def head(tmp_path: Path) -> Iterator[str]:
    """The dashboard's address of a Ray head on loopback, which ends with the test."""
    port, dashboard, client = free_ports(3)
    command = [str(RAY), "start", "--head", "--block", "--node-ip-address", "127.0.0.1", f"--port={port}"]
    command += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}", "--num-cpus=2"]
    temporary = f"/tmp/ray-test-{os.getpid()}"  # short: sockets below it have a limit of 107 characters
    path = f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"  # a job's `python` is the one that `ray start` finds
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "PATH": path}
    with started([*command, f"--temp-dir={temporary}"], **environment) as process:
        address = f"http://127.0.0.1:{dashboard}"
        deadline = time.monotonic() + 90
        job = urllib.request.Request(
            f"{address}/api/jobs/", b'{"entrypoint": "true"}', {"Content-Type": "application/json"}
        )
        while True:
            try:
                with urllib.request.urlopen(job, timeout=30):  # an agent that takes jobs comes after the dashboard
                    break
            except OSError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline, "the dashboard did not come up"
                time.sleep(0.3)
        yield address
