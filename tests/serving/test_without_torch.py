"""`imagegen serve` of exported ONNX programs: the model's own samples from a process that cannot import PyTorch."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("onnxruntime")

import httpx
import torch
import websockets

from imagegen_dist.cli.export import main as export
from imagegen_dist.cli.serve import main as serve
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.inference import load
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.program_files import prior_of
from imagegen_dist.serving.requests import stream_message
from tests.checkpoints import FAMILIES, write_checkpoint

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError("this process does without torch", name=name)

sys.meta_path.insert(0, Blocked())
"""
SERVED = ("r3gan", "vae-styled", "video-vae")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: write_checkpoint(folder / name, name) for name in SERVED}


@pytest.fixture(scope="module")
def models(runs: dict[str, str]) -> dict[str, Model]:
    return {name: load(run) for name, run in runs.items()}


@pytest.fixture(scope="module")
def exports(runs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The exported folder of each."""
    folder = tmp_path_factory.mktemp("exports")
    for name, run in runs.items():
        assert export([run, str(folder / name), "--to", "onnx"]) == DONE
    return [str(folder / name) for name in runs]


@pytest.fixture(scope="module")
def address(exports: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of all of them, in a process in which `import torch` fails."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(BLOCKED)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    command = [sys.executable, "-m", "imagegen_dist", "serve", *exports, "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            said = "".join(line for line, _ in zip(server.stdout, range(len(exports) + 1), strict=False))
            found = re.search(r"http://(127\.0\.0\.1:\d+)", said)
            assert found is not None, said
            yield found[1]
        finally:
            server.kill()


def post(address: str, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"http://{address}/{path}", json=body, timeout=60)


def samples(address: str, name: str, path: str = "generate", **body: Any) -> np.ndarray:
    """The samples that a model's server answers, as an array."""
    answer = post(address, f"models/{name}/{path}", format="npy", **body)
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content))


def close_to(ours: np.ndarray, theirs: torch.Tensor) -> bool:
    """To one grey level: ONNX Runtime sums in another order."""
    expected = theirs.numpy()
    return ours.shape == expected.shape and int(np.abs(ours.astype(int) - expected.astype(int)).max()) <= 1


def test_pictures_are_the_models_by_class_blend_and_truncation(address: str, models: dict[str, Model]) -> None:
    model = models["r3gan"]
    expected = model.sample(1, classes="cat", seed=3)
    picture = Image.open(io.BytesIO(post(address, "generate", seeds=[3], classes=["cat"]).content))
    assert close_to(np.asarray(picture)[None, None], expected)
    assert close_to(samples(address, "r3gan", seeds=[3, 4], truncation=0.5)[1:], model.sample(1, 4, 4, 0.5))
    blend = {"ant": 0.5, "eel, electric": 0.5}
    assert close_to(samples(address, "r3gan", seeds=[9], classes=[blend]), model.sample(1, blend, 9))
    flat = [model.latents(1, 2).flatten().tolist()]
    assert close_to(samples(address, "r3gan", "decode", latents=flat, classes=[1]), model.sample(1, 1, 2))


def test_an_autoencoder_encodes_and_decodes_under_conditions(address: str, models: dict[str, Model]) -> None:
    model, given = models["vae-styled"], {"digit": 2, "style": {"serif": 0.3, "sans": 0.7}, "age": 4.5}
    sample, label = model.sample(1, seed=11, conditions=given), model.labels(1, conditions=given)
    assert close_to(samples(address, "vae-styled", seeds=[11], conditions=[given]), sample)
    assert close_to(samples(address, "vae-styled", seeds=[12]), model.sample(1, seed=12))
    stored = io.BytesIO()
    np.save(stored, sample[0].numpy())
    given |= {"bold": model.conditions.decode(label[0].numpy())["bold"]}
    asked = {"content": stored.getvalue(), "params": {"labelled": json.dumps(given)}}
    latents = httpx.post(f"http://{address}/models/vae-styled/encode", **asked).json()["latents"]
    np.testing.assert_allclose(latents, model.encode(sample.plain(), label).flatten(), atol=1e-5)
    decoded = samples(address, "vae-styled", "decode", latents=[latents], conditions=[given])
    assert close_to(decoded, model.decode(torch.tensor([latents]), label))
    asked["params"] = {"labelled": "1"}
    assert "a GAN has no encoder" in httpx.post(f"http://{address}/encode", **asked).json()["detail"]


def test_clips_play(address: str, models: dict[str, Model]) -> None:
    assert close_to(samples(address, "video-vae", seeds=[1]), models["video-vae"].sample(1, seed=1))
    film = Image.open(io.BytesIO(post(address, "models/video-vae/generate", seeds=[1], format="webp").content))
    assert film.n_frames == 4


def test_streams_pages_and_figures(address: str, models: dict[str, Model]) -> None:
    model, url = models["r3gan"], f"http://{address}"
    told = httpx.get(f"{url}/model.json").json()
    assert (told["engine"], told["streams"], told["class_names"][2], told["images"]) == ("onnxruntime", [8], "cat", 480)
    assert told["runtime"]["projects"] is False
    assert 'src="page.js"' in httpx.get(f"{url}/").text
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}

    async def ask() -> bytes:
        async with websockets.connect(f"ws://{address}/stream") as socket:
            await socket.send(stream_message(7, model.latents(1, 6), torch.eye(5)[3]))
            return bytes(await socket.recv())

    answer = asyncio.run(ask())
    assert struct.unpack("<I", answer[:4]) == (7,)
    assert close_to(np.frombuffer(answer[4:], np.uint8).reshape(1, 1, 12, 12), model.sample(1, 3, 6))
    assert httpx.get(f"{url}/stats").json()["answers"]["stream 200"] == 1
    refused = httpx.post(f"{url}/project", content=b"")
    assert refused.status_code == 501
    assert "no gradients" in refused.json()["detail"]


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_without_torch_is_the_models_bit_for_bit(family: str, tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, family))
    prior, seeds = prior_of(model), [0, 7, 2**32 + 1, 2**64 - 1]
    assert prior is not None
    assert type(prior).from_payload(json.loads(json.dumps(prior.payload()))) == prior
    assert np.array_equal(prior.draws(seeds), model.latents_of(seeds).numpy())


def test_folders_that_cannot_be_served_are_one_line(
    exports: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(exports[0])
    document = json.loads((folder / "export.json").read_text())
    old = {name: value for name, value in document.items() if name not in ("prior", "shape", "page")}
    for words, changed, said in (
        ((), old, "an older version exported it, without its prior: export the run again with"),
        ((), {**document, "format": "torch"}, "holds programs of the form torch"),
        ((), {**document, "prior": None}, "serve the run that it was made from"),
        ((), {**document, "bits": 9}, "is not of a model that"),
        ((), {**document, "programs": {}}, "is not of a model that"),
        (("--engine", "compiled"), document, "--engine compiled: "),
        (("--device", "cuda"), document, "--device cuda: ONNX programs run on the CPU"),
    ):
        (tmp_path / "export.json").write_text(json.dumps(changed))
        (tmp_path / "generator.onnx").write_bytes((folder / "generator.onnx").read_bytes())
        assert serve([str(tmp_path), "--port", "0", *words]) == MISUSED
        printed = capsys.readouterr().err
        assert said in printed
        assert printed.count("\n") == 1
    (tmp_path / "export.json").write_text(json.dumps(document))
    (tmp_path / "generator.onnx").write_bytes(b"damaged")
    assert serve([str(tmp_path), "--port", "0"]) == MISUSED
    assert "generator.onnx does not have the sha256" in capsys.readouterr().err
