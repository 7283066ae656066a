"""The page by WebGPU and by several threads, in Chromium: pictures are Python's there too, or it is WASM that draws.

The GPU is SwiftShader, which Chromium brings: a slow one, in software, that runs the same shaders.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imagegen_dist import load
from imagegen_dist.cli.export import main
from imagegen_dist.errors import DONE
from tests.checkpoints import write_checkpoint

SEEDS = (0, 7)
WITH_GPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--ignore-gpu-blocklist"]
WITHOUT_GPU = ["--disable-gpu"]


def _headers(card: Path) -> dict[str, str]:
    """The headers that a Space's card asks for."""
    listed = card.read_text().partition("custom_headers:\n")[2].partition("---")[0]
    return dict(line.strip().split(": ") for line in listed.splitlines())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("gan") / "run", "r3gan-patch")


@pytest.fixture(scope="module")
def visits(
    run: str, chromium: str, packages: Path, file_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the page shows by WebGPU, with its card's headers without a GPU, and where WebGPU draws other pictures."""
    folder, other = tmp_path_factory.mktemp("page"), tmp_path_factory.mktemp("other") / "page"
    ort = str(packages / "onnxruntime-web" / "dist")
    assert main([run, str(folder), "--to", "web", "--webgpu", "--ort", ort]) == DONE
    shutil.copytree(folder, other)
    document = json.loads((other / "model.json").read_text())
    levels = np.frombuffer(base64.b64decode(document["check"]), np.uint8)
    document["check"] = base64.b64encode(np.where(levels < 128, levels + 9, levels - 9).astype(np.uint8)).decode()
    (other / "model.json").write_text(json.dumps(document))
    links = [f"#seed={seed}&psi=0.8&w=0,1,0" for seed in SEEDS]
    headers = _headers(folder / "README.md")
    with (
        file_server(folder, {}) as plain,
        file_server(folder, headers) as isolated,
        file_server(other, {}) as strayed,
    ):
        asked = [
            {"url": f"{plain}/", "args": WITH_GPU, "links": links},
            {"url": f"{isolated}/", "args": WITHOUT_GPU, "links": links},
            {"url": f"{strayed}/", "args": WITH_GPU, "links": links},
        ]
        words = ["node", str(Path(__file__).with_name("backends.mjs")), chromium]
        done = subprocess.run(words, input=json.dumps({"visits": asked}), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(("webgpu", "threads", "strayed"), json.loads(done.stdout), strict=True))


def _difference(run: str, pictures: list[list[int]]) -> int:
    """The largest difference of the page's pictures from those of `sample`, in grey levels."""
    model = load(run)
    ours = torch.stack([model.sample(1, 1, seed, 0.8)[0].flatten().int() for seed in SEEDS])
    return int((ours - torch.tensor(pictures)).abs().max())


def test_webgpu_computes_pythons_pictures_and_the_steps_of_a_projection(run: str, visits: dict[str, Any]) -> None:
    seen = visits["webgpu"]
    if not seen["adapter"]:
        pytest.skip("no WebGPU adapter answers in this Chromium, which has SwiftShader as a rule")
    assert seen["backend"] == "WebGPU"
    assert seen["errors"] == []
    assert _difference(run, seen["pictures"]) <= 1
    by_wasm = visits["threads"]["step"]
    assert set(seen["step"]) == set(by_wasm) == {"loss", "dz", "dfree"}
    for name, values in seen["step"].items():
        assert np.allclose(values, by_wasm[name], rtol=1e-3, atol=1e-6)


def test_where_webgpu_draws_other_pictures_than_the_export_wasm_draws_them(run: str, visits: dict[str, Any]) -> None:
    seen = visits["strayed"]
    if not seen["adapter"]:
        pytest.skip("no WebGPU adapter answers in this Chromium, which has SwiftShader as a rule")
    assert seen["backend"] == "WASM, 1 thread"
    assert seen["why"] == "WebGPU draws other pictures here"
    assert seen["why"] in seen["said"]
    assert _difference(run, seen["pictures"]) <= 1


def test_the_headers_of_the_card_give_threads_and_the_same_pictures(run: str, visits: dict[str, Any]) -> None:
    seen = visits["threads"]
    assert seen["isolated"] is True
    assert seen["errors"] == []
    assert _difference(run, seen["pictures"]) <= 1
    expected = min(4, os.cpu_count() or 1)
    if expected > 1:
        assert seen["backend"] == f"WASM, {expected} threads"
        assert seen["workers"] == expected  # one that computes, with a thread of its own for each further core
