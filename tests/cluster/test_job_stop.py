"""Jobs on a Ray that was started as cluster/ starts one: what the end of one leaves, and what two share."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import newest_images
from tests.ray.head import gcs_address, serving_head
from tests.ray.jobs import RAY, ROOT, words
from tests.runs import TINY


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """A head that ends with these tests, which leave work on its node: others want one that is idle."""
    with serving_head() as address:
        yield address


@pytest.mark.timeout(200)
def test_a_job_that_is_stopped_writes_a_checkpoint_first(head: str, tmp_path: Path) -> None:
    """Its workers hear of SIGTERM only at their next look, which is seconds away here, and Ray waits for them."""
    changes = TINY | {
        "training__total_images": 24 * 1_000_000,
        "training__checkpoint_every": 24 * 1_000_000,
        "training__report_every": 24 * 10,
        "training__listen_every": 24 * 150,
    }
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": head}

    def ask(*command: str) -> str:
        done = subprocess.run([str(RAY), "job", *command], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    job = ["python", *words(tmp_path, "run", changes)[1:]]
    ask("submit", "--no-wait", "--submission-id", "stopped", "--", "sh", "-c", f"cd {ROOT} && exec {shlex.join(job)}")
    run = Store(str(tmp_path)) / "run"
    deadline = time.monotonic() + 120
    while not (run.exists("metrics.jsonl") and read_rows(run)):
        assert time.monotonic() < deadline, ask("logs", "stopped")
        time.sleep(0.1)
    assert newest_images(run) == -1
    ask("stop", "stopped")
    said = ask("logs", "stopped")
    assert "was stopped" in ask("status", "stopped"), said
    assert f"stopped with a checkpoint at {newest_images(run):,} images" in said
    assert newest_images(run) > 0
    assert "kills this job" not in said


ABANDONED = """
import ray
from imagegen_dist.ray.placement import free_abandoned
from ray.util.placement_group import placement_group
ray.init(log_to_driver=False)

@ray.remote(num_cpus=0)
class Controller:
    def reserve(self):
        return placement_group([{"CPU": 1.0}] * 2).wait(30)

controller = Controller.remote()
assert ray.get(controller.reserve.remote())
ours = placement_group([{"CPU": 1.0}] * 2)
assert free_abandoned() == 0
ray.kill(controller)
assert not ours.wait(1)
while not free_abandoned():
    pass
assert ours.wait(30)
assert free_abandoned() == 0
print("freed")
"""


@pytest.mark.timeout(60)
def test_what_a_dead_controller_had_reserved_is_free_for_its_own_job(head: str) -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": gcs_address()}
    done = subprocess.run([sys.executable, "-c", ABANDONED], env=environment, capture_output=True, text=True)
    assert done.stdout == "freed\n", done.stderr


TOGETHER = """
import sys
import ray
from imagegen_dist.ray.preflight import Preflight
ray.init(log_to_driver=False)
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
later, inner = Preflight(sys.argv[1], []), []

def another_checks() -> bool:
    if not inner:
        inner.append(later.check(nodes))
    return False

Preflight(sys.argv[1], [], interrupted=another_checks).check(nodes)
print("checked", len(inner))
"""


@pytest.mark.timeout(120)
def test_a_driver_that_checks_the_machines_leaves_the_files_of_another_alone(head: str, tmp_path: Path) -> None:
    """The second one begins and ends while the first one waits for answers."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": gcs_address()}
    command = [sys.executable, "-c", TOGETHER, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "checked 1\n", done.stderr
    assert not list(tmp_path.iterdir())
