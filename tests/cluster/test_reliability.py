"""Machines that are taken away and come back under one run; `python -m benchmarks.reliability` has every fault."""

from __future__ import annotations

import os
import re
import signal
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
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import newest_images
from tests.cli.imds import serving
from tests.ray.head import gcs_address
from tests.ray.jobs import ROOT, finish, started, wait_for_checkpoint, words
from tests.runs import TINY, settings, train_on

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
            command = [sys.executable, "-m", "imagegen_dist.cli.spot", "--endpoint", imds.endpoint, "--poll", "0.5"]
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


@pytest.mark.full
@pytest.mark.timeout(200)
def test_a_controller_that_is_killed_with_its_helpers_ends_nothing(tmp_path: Path) -> None:
    long = {"training__total_images": 24 * 400, "training__checkpoint_every": 24 * 20}
    with started(words(tmp_path, "run", TINY | long)) as process:
        wait_for_checkpoint(tmp_path / "run", process)
        for child in psutil.Process(process.pid).children(recursive=True):
            if any(name in " ".join(child.cmdline()) for name in ("TrainController", "PlacementGroupCleaner")):
                child.kill()
        output = finish(process)
    assert process.returncode == 0, output
    assert output.count("restarting from the last checkpoint") == 1
    assert newest_images(Store(str(tmp_path)) / "run") == 24 * 400


@pytest.mark.full
@pytest.mark.timeout(120)
def test_a_machine_without_memory_is_named_with_its_numbers_and_sigterm_ends_the_wait(tmp_path: Path) -> None:
    """Ray kills whatever it starts here: the machine has more than a thousandth of its memory in use."""
    with started(words(tmp_path, "run", TINY), RAY_memory_usage_threshold="0.001", PYTHONUNBUFFERED="1") as process:
        assert process.stdout is not None
        lines = []
        while "ran out of memory" not in (line := process.stdout.readline()):
            assert line, lines
            lines.append(line)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        output = finish(process, 30)
    assert time.monotonic() - began < 20
    assert process.returncode == 143, output
    assert re.search(r"the workers could not be started: machine \S+ \(\w{8}\) ran out of memory: [\d.]+ GB of ", line)
    assert "and Ray kills processes above 0.1 %" in line


@pytest.mark.timeout(120)
def test_the_watcher_drains_this_machines_node_where_none_is_named(head: str) -> None:
    """As a preStop hook runs it; a node that does nothing then ends by itself."""
    raylet = next(each for each in psutil.Process().children(recursive=True) if each.name() == "raylet")
    address = gcs_address()
    command = [sys.executable, "-m", "imagegen_dist.cli.spot", "--now", "--grace", "60", "--address", address]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": address}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as watcher:
        raylet.wait(50)
        watcher.kill()
