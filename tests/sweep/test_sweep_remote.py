"""A sweep on a cluster, as the machine sees it that types the command: whom it asks, what it sends and fetches."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from imagegen_dist.cli.sweep import main
from imagegen_dist.errors import MISUSED
from imagegen_dist.ray.tune import remote
from imagegen_dist.storage import Store
from imagegen_dist.sweep.plan import write_plan
from imagegen_dist.sweep.results import write_results
from imagegen_dist.sweep.trial_store import COMPLETE, Trial, TrialStore
from tests import loopback
from tests.s3.fixtures import Bucket
from tests.sweep.test_sweep_trials import planned


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """What `connect` turns off comes back."""
    yield
    logging.disable(logging.NOTSET)


class _Dashboard(loopback.Handler):
    status: int
    content: bytes

    def do_GET(self) -> None:
        self.answer(self.status, self.content, {"Content-Type": "application/json"})


def version(of_ray: str) -> bytes:
    """What a dashboard of that version of Ray answers to /api/version."""
    return json.dumps({"version": "4", "ray_version": of_ray, "ray_commit": "0" * 40, "session_name": "s"}).encode()


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (
            200,
            version("2.9.3"),
            f"the cluster runs Ray 2.9.3, this machine Ray {ray.__version__}; pip install ray==2.9.3",
        ),
        (200, version("1.8.0"), "Ray version 1.8.0 is running on the cluster"),
        (200, b"<html>a page</html>", "no Ray answers there"),
        (404, b"", "no Ray answers there"),
        (401, b"", "export RAY_AUTH_MODE=token"),
    ],
)
def test_an_address_of_another_ray_or_of_none_is_said_plainly(
    status: int, answer: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback.serving(_Dashboard, status=status, content=answer) as address:
        assert main(["gan-lr", "--storage", "s3://bucket/runs", "--address", address]) == MISUSED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert f"--address {address}: " in captured.err
    assert said in captured.err


def test_an_address_where_nobody_answers_is_said_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--address", "http://127.0.0.1:9", "--status", "sweep-x"]) == MISUSED
    assert "--address http://127.0.0.1:9: no Ray answers there" in capsys.readouterr().err


def test_a_cluster_with_an_older_python_is_said_plainly() -> None:
    """The line that a job runs first, under this Python with another one's version."""
    for number, code in (((3, 10, 4, "final", 0), 1), (tuple(sys.version_info), 0)):
        older = f"import sys; sys.version_info = {number!r}; exec({remote.PYTHON!r})"
        done = subprocess.run([sys.executable, "-c", older], capture_output=True, text=True)
        assert done.returncode == code
        assert done.stderr == (
            "sweep.py: the cluster runs Python 3.10, and imagegen_dist needs 3.11 or newer\n" if code else ""
        )
    shown = remote.JobView()
    shown.line("sweep.py: the cluster runs Python 3.10, and imagegen_dist needs 3.11 or newer")
    assert shown.code("FAILED") == MISUSED


def test_what_is_sent_is_the_checkout_whose_script_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = remote.checkout()
    assert (own / "pyproject.toml").is_file()
    for name in ("jobs/sweep.py", "imagegen_dist/__init__.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "jobs" / "sweep.py")])
    assert remote.checkout() == tmp_path


def test_a_sweep_in_a_store_that_this_machine_reads_is_fetched_from_there(bucket: Bucket, tmp_path: Path) -> None:
    words = ("--space", "optim.*.lr=grid:1e-3,2e-3", "--name", "there")
    plan = planned(f"{bucket.url}/runs", *words)
    write_plan(plan)
    trial_store = TrialStore(plan.folder)
    trial_store.put(Trial(0, {"optim.*.lr": 1e-3}, COMPLETE, 480, {"eval/frechet": 3.0}))
    write_results(plan, print)
    source = remote.readable(plan.folder.url)
    assert source == plan.folder
    names = set(remote.copied(source, tmp_path / "got"))
    assert names >= {"best.json", "results.csv", "report.html", "trials.json"}
    for name in names:
        assert (tmp_path / "got" / name).read_bytes() == plan.folder.read(name)
    assert remote.readable(f"{bucket.url}/runs/elsewhere") is None


def test_a_disk_of_the_cluster_is_not_read_here(tmp_path: Path) -> None:
    Store(tmp_path).write("sweep.json", b"{}")
    assert remote.readable(str(tmp_path)) is None
    assert remote.readable("s3://no-bucket-of-that-name/x") is None
