"""What is run first on a GPU works where there is torch and no more than networks and losses import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCKED = ("ray", "hypothesis", "xdist", "pytest", "wandb", "webdataset", "s3fs", "boto3", "rich", "jinja2")
HOOK = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
"""


def test_the_first_minutes_need_torch_alone_and_a_part_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    parts = "versions,eager-digits,eager-r3gan-cifar10"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--first", "--device", "cpu", "--seconds", "46", "--parts", parts],
        cwd=ROOT,
        env=environment,
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
