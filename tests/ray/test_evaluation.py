"""Evaluation by Ray tasks, as its user runs it: the figures of one process."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from imagegen_dist.cli.evaluate.command import main
from imagegen_dist.records import RunSettings
from tests.evaluation.small import PIXELS, pictures
from tests.ray.jobs import ROOT, finish, started
from tests.runs import tiny, train_here


@pytest.mark.cluster
@pytest.mark.full
@pytest.mark.timeout(200)
def test_two_tasks_at_once_give_the_figures_of_one_process(tmp_path: Path) -> None:
    where = RunSettings("run", str(tmp_path), "digits", "train_gan", pictures(tmp_path / "data", 1100))
    train_here(tiny(training__total_images=48), replace(where, wandb_mode="disabled"))
    words = [where.folder.url, "--data", where.data, "--features", f"module:{PIXELS}", "--samples", "1200", "--cache"]

    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    assert main([*words, str(tmp_path / "a"), "--workers", "0", "--out", str(alone)]) == 0
    command = [sys.executable, "jobs/evaluate.py", *words, str(tmp_path / "b"), "--workers", "2"]
    with started([*command, "--out", str(together)], PYTHONPATH=str(ROOT)) as process:  # the user's module is tests/'s
        output = finish(process)
    assert process.returncode == 0, output
    assert "Fréchet distance" in output
    ours, theirs = json.loads(together.read_text()), json.loads(alone.read_text())
    assert ours["figures"] == pytest.approx(theirs["figures"], rel=1e-6)
    assert ours["reference"] == theirs["reference"]
