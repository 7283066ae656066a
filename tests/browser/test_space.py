"""A page pushed as a static Space to a Hub, by huggingface_hub's client over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint
from tests.inference.hub_server import TOKEN, serving


def test_a_page_is_pushed_as_a_static_space(packages: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    run, page = write_checkpoint(tmp_path / "run", "r3gan"), tmp_path / "page"
    words = [
        sys.executable,
        "-m",
        "imagegen_dist",
        "export",
        run,
        str(page),
        "--to",
        "web",
        "--push",
        "somebody/digits",
    ]
    with serving() as hub:
        environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        ort = ["--ort", str(packages / "onnxruntime-web" / "dist")]
        done = subprocess.run([*words, *ort], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"  pushed to {hub.endpoint}/somebody/digits"
    asked = hub.asked["somebody/digits"]
    assert (asked["type"], asked["sdk"]) == ("space", "static")
    pushed = hub.repositories["somebody/digits"]
    assert pushed == {str(file.relative_to(page)): file.read_bytes() for file in page.rglob("*") if file.is_file()}
    assert {"index.html", "page.js", "model.json", "generator.onnx", "README.md"} < pushed.keys()
