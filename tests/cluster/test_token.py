"""A head that wants a token answers who has it, and nobody else: over HTTP, the command line and Ray's own protocol."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ray.head import free_ports
from tests.ray.jobs import RAY, ROOT, started

WRONG = "0" * 64
EXPORT = "export RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token"


@dataclass(frozen=True)
class Guarded:
    """A head, and the file with its token."""

    dashboard: str
    gcs: str
    token_file: Path

    def get(self, path: str, headers: Mapping[str, str]) -> int:
        """The HTTP status of a request."""
        try:
            with urllib.request.urlopen(urllib.request.Request(self.dashboard + path, headers=dict(headers))) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("home")
    environment = node_environment() | {"HOME": str(folder)}
    subprocess.run(
        [RAY, "get-auth-token", "--generate"], env={**os.environ, **environment}, check=True, capture_output=True
    )
    port, dashboard, client = free_ports(3)
    command = [str(RAY), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=0"]
    command += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += [f"--temp-dir=/tmp/ray-token-{os.getpid()}"]
    head = Guarded(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", folder / ".ray" / "auth_token")
    with started(command, **environment) as process:
        deadline = time.monotonic() + 90
        while True:
            try:
                if head.get("/api/version", bearer(head.token_file.read_text().strip())) == 200:
                    break
            except OSError:
                pass
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the dashboard did not come up"
            time.sleep(0.3)
        yield head


def node_environment() -> dict[str, str]:
    """What cluster/node.env sets on every node."""
    lines = (ROOT / "cluster" / "node.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def ask(head: Guarded, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        command, env={**variables, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_every_node_wants_a_token() -> None:
    assert node_environment()["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("path", ["/api/jobs/", "/api/cluster_status", "/nodes?view=summary", "/api/v0/actors"])
def test_the_dashboard_answers_nobody_without_the_token(guarded: Guarded, path: str) -> None:
    token = guarded.token_file.read_text().strip()
    assert guarded.get(path, {}) == 401
    assert guarded.get(path, bearer(WRONG)) == 403
    assert guarded.get(path, bearer(token)) == 200


def test_a_job_is_taken_from_who_has_the_token_alone(guarded: Guarded, tmp_path: Path) -> None:
    command = [str(RAY), "job", "list", "--address", guarded.dashboard]
    empty = {"HOME": str(tmp_path)}
    assert ask(guarded, *command, **empty, RAY_AUTH_MODE="disabled").returncode != 0
    assert ask(guarded, *command, **empty, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=WRONG).returncode != 0
    right = ask(guarded, *command, **empty, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(guarded.token_file))
    assert right.returncode == 0, right.stderr


def test_a_driver_joins_with_the_token_alone(guarded: Guarded, tmp_path: Path) -> None:
    join = "import sys, ray\nfrom imagegen_dist import errors\nfrom imagegen_dist.ray import cluster\n"
    join += "try:\n  with cluster.connected(False):\n"
    join += "    print('joined', len(ray.nodes()))\nexcept errors.UsageError as error:\n  sys.exit(str(error))"
    command = [sys.executable, "-c", join]
    empty = {"HOME": str(tmp_path), "RAY_ADDRESS": guarded.gcs}
    wrong = ask(guarded, *command, **empty, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=WRONG)
    assert wrong.returncode != 0
    assert "joined" not in wrong.stdout
    assert f"RAY_ADDRESS {guarded.gcs}: " in wrong.stderr.splitlines()[-1]
    assert EXPORT in wrong.stderr.splitlines()[-1]
    right = ask(guarded, *command, **empty, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(guarded.token_file))
    assert "joined 1" in right.stdout, right.stderr


def test_a_sweep_that_is_refused_says_what_to_export(guarded: Guarded, tmp_path: Path) -> None:
    """As in a shell where nothing was exported, though the token is there."""
    command = [sys.executable, "jobs/sweep.py", "--address", guarded.dashboard, "--status", "x"]
    refused = ask(guarded, *command, HOME=str(guarded.token_file.parents[1]), RAY_AUTH_MODE="disabled")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"sweep.py: --address {guarded.dashboard}: ")
    assert EXPORT in refused.stderr
    assert refused.stderr.count("\n") == 1
