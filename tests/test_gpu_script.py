"""What is run first on a GPU works where there is torch and no more than networks and losses import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BLOCKED = ("ray", "hypothesis", "xdist", "pytest", "wandb", "webdataset", "s3fs", "boto3", "rich", "jinja2")
HOOK = """
import sys
for name in {!r}:
    sys.modules[name] = None
"""
# All parts in one process. Whole graphs are compiled as on a GPU, but for their kernels.
ALL_PARTS = """
import sys, torch
from functools import partial
from unittest.mock import patch
sys.path.insert(0, "benchmarks")
import gpu_parts
from imagegen_dist import experiment
from imagegen_dist.nn import compiling

torch.set_num_threads(1)
with patch.object(experiment, "compiled", partial(compiling.compiled, backend="aot_eager")):
    for _, part in gpu_parts.PARTS.values():
        part(torch.device("cpu"))
"""


def environment(tmp_path: Path, blocked: tuple[str, ...] = BLOCKED) -> dict[str, str]:
    """One in which these packages cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(HOOK.format(blocked))
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def test_the_first_minutes_need_torch_alone_and_a_part_that_fails_is_named(tmp_path: Path) -> None:
    parts = "versions,eager-digits,eager-r3gan-cifar10"
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--first", "--device", "cpu", "--seconds", "46", "--parts", parts],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
    )
    lines = {line["part"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert lines["versions"]["device"], done.stdout + done.stderr
    assert lines["eager digits"]["finite"], done.stdout
    assert lines["eager digits"]["predicted_mib"] > 0
    assert lines["end"]["failed"] == len([line for line in lines.values() if "error" in line])
    assert done.returncode == bool(lines["end"]["failed"])


def test_the_tests_for_gpus_are_collected_with_pytest_alone(tmp_path: Path) -> None:
    alone = environment(tmp_path, tuple({*BLOCKED, "hypothesis", "xdist", "pytest_timeout"} - {"pytest"}))
    command = [sys.executable, "-m", "pytest", "--noconftest", "-c", os.devnull, "--rootdir", ".", "tests/gpu"]
    collected = [*command, "--collect-only", "-q", "-p", "no:cacheprovider"]
    blocked = {**alone, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(collected, cwd=ROOT, env=blocked, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_nccl_on_all_gpus_leaves_equal_weights" in done.stdout


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_every_part_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALL_PARTS]
    done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    named: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        assert "error" not in line
        named.setdefault(line["part"], []).append(line)
    assert all(line["finite"] for line in lines if "finite" in line)
    assert named["gradients of both"][0]["relative_difference"] < 1e-5
    assert named["one rank, both"][0]["equal"]
    assert all(line["bit_for_bit"] for part in ("twice", "stopped and resumed") for line in named[part])
    compared = [line for part, found in named.items() if part.startswith("compiled and eager") for line in found]
    assert len(compared) == 2
    assert all(line["largest_relative_difference"] < 1e-3 for line in compared)
