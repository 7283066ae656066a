"""Samples by Ray tasks, as their user runs it: the bytes of one process, whatever the number of workers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from imagegen_dist.cli.sample import main
from tests.checkpoints import write_checkpoint
from tests.ray.jobs import finish, started


@pytest.mark.cluster
@pytest.mark.full
@pytest.mark.timeout(400)
def test_two_tasks_at_once_write_the_bytes_of_this_process(tmp_path: Path) -> None:
    run = write_checkpoint(tmp_path / "run", "r3gan")
    words = [run, "--seeds", "0-203", "--truncation", "0.8", "--shard-size", "60kB"]
    assert main([*words, "--shards", str(tmp_path / "here"), "--workers", "0"]) == 0
    job = [sys.executable, "jobs/sample.py", *words, "--shards", str(tmp_path / "there"), "--workers", "2"]
    with started(job) as process:
        output = finish(process)
    assert process.returncode == 0, output
    here, there = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("here", "there"))
    assert len(here) > 4
    assert there == here
    assert output.startswith("204 samples of 12 × 12 × 1 in ")
