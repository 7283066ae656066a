"""Machines that are taken away and come back under one run; `python -m benchmarks.reliability` has every fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.reliability import (
    SETTINGS,
    STEP,
    Job,
    Machines,
    distance,
    holds_rank_0,
    losses_apart,
    node_of,
    orphans,
    recovered,
    tensors,
    workers_of,
)
from imagegen_dist import config
from imagegen_dist.presets import find_preset
from imagegen_dist.training.checkpoint import newest_images
from tests.launch.imds import serving
from tests.ray.jobs import ROOT
from tests.runs import settings, train_on

STEPS = 900
NOTICE_S = 60.0


@pytest.mark.full
@pytest.mark.timeout(400)
def test_a_spot_notice_to_rank_0_and_a_machine_that_comes_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three workers, two, three again; a second submission meanwhile is refused."""
    for name in ("RAY_AUTH_MODE", "RAY_worker_niceness", "RAY_USAGE_STATS_ENABLED", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # what the machines set ends with the test
    undisturbed = settings(tmp_path, "undisturbed", tmp_path / ".data")
    changes = {**SETTINGS, "training.total-images": STEP * STEPS}
    experiment = config.overrides(find_preset("digits").experiment, [(k, str(v)) for k, v in changes.items()])
    train_on(3, experiment, undisturbed, tmp_path / "meeting")

    with Machines(3) as machines, serving() as imds:
        job = Job(str(tmp_path), "run", "2:3", STEPS, machines.address)
        try:
            job.wait_for(lambda: job.images > STEP * 70)
            code, said = job.once_more()
            assert (code, said.count("\n")) == (2, 1), said
            assert f"is being trained by process {job.process.pid} on" in said

            rank_0 = next(worker for worker in workers_of(machines) if holds_rank_0(worker))
            victim = node_of(machines, rank_0)
            command = [sys.executable, "-m", "imagegen_dist.launch.spot", "--endpoint", imds.endpoint, "--poll", "0.5"]
            command += ["--node-id", victim.node_id, "--address", machines.address]
            ends = time.time() + NOTICE_S
            with subprocess.Popen(command, cwd=ROOT) as watcher:
                _, lost = recovered(job, lambda: imds.interrupt(NOTICE_S))
                assert watcher.wait(10) == 0
            written = next((tmp_path / "run" / "checkpoints").glob(f"step-{job.resumed[-1]:012d}")).stat().st_mtime
            assert ends - NOTICE_S - 1 < written < ends
            assert lost == 0
            machines.nodes.remove(victim)
            machines.kill(victim)

            _, lost = recovered(job, lambda: machines.nodes.append(machines.add()))
            assert lost == 0
            assert job.finish() == 0, job.lines
        finally:
            job.end()
    assert newest_images(job.run) == STEP * STEPS
    assert distance(tensors(job.run), tensors(undisturbed.folder)) < 1e-5
    assert losses_apart(job.run, undisturbed.folder) < 1e-5
    assert not orphans(job.run)
    assert job.run.names().count("lease.json") == 0


@pytest.mark.timeout(120)
def test_the_watcher_drains_this_machines_node_where_none_is_named(head: str) -> None:
    """As a preStop hook runs it; a node that does nothing then ends by itself."""
    raylet = next(each for each in psutil.Process().children(recursive=True) if each.name() == "raylet")
    address = re.search(r"--gcs-address=(\S+)", " ".join(raylet.cmdline()))
    assert address is not None
    command = [sys.executable, "-m", "imagegen_dist.launch.spot", "--now", "--grace", "60", "--address", address[1]]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": address[1]}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as watcher:
        raylet.wait(50)
        watcher.kill()
