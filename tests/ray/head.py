"""A Ray head that was started by hand, as a cluster has one."""

from __future__ import annotations

import os
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.ray.jobs import RAY, ROOT, started


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def head() -> Iterator[str]:
    """The dashboard's address of a Ray head on loopback, with the environment of a cluster's nodes."""
    with serving_head() as address:
        yield address


@contextmanager
def serving_head() -> Iterator[str]:
    """A Ray head of two CPU cores, as `head` has it, for the block."""
    port, dashboard, client, agent = free_ports(4)
    command = [str(RAY), "start", "--head", "--block", "--node-ip-address", "127.0.0.1", f"--port={port}"]
    command += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}", "--num-cpus=2"]
    command += [f"--dashboard-agent-listen-port={agent}"]  # else two heads on one machine contend for one
    temporary = f"/tmp/ray-test-{os.getpid()}"  # short: sockets below it have a limit of 107 characters
    path = f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"  # a job's `python` is the one that `ray start` finds
    lines = (ROOT / "cluster" / "node.env").read_text().splitlines()
    of_nodes = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    environment = {**of_nodes, "RAY_AUTH_MODE": "disabled", "PATH": path}
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


def gcs_address() -> str:
    """Where a driver reaches the head that the fixture has started."""
    raylet = next(each for each in psutil.Process().children(recursive=True) if each.name() == "raylet")
    address = re.search(r"--gcs-address=(\S+)", " ".join(raylet.cmdline()))
    assert address is not None
    return address[1]
