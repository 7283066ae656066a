"""The exported page in real Chromium: what it computes is what Python computes, and it asks nobody else."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imagegen_dist import load
from imagegen_dist.cli.export import main
from imagegen_dist.errors import DONE
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.noise import SampleNoise
from tests.checkpoints import write_checkpoint

NOISE = [(seed, index, count, stream) for seed in (0, 7, 2**64 - 1) for index, stream in ((0, 0), (2**33, 2))
         for count in (1, 2, 3, 5, 8, 15, 16, 17, 64, 100)]  # fmt: skip
SEEDS = (0, 7, 12345678901234567890)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("gan") / "run", "r3gan-patch")


@pytest.fixture(scope="module")
def model(run: str) -> GeneratorModel:
    found = load(run)
    assert isinstance(found, GeneratorModel)
    return found


@pytest.fixture(scope="module")
def target(model: GeneratorModel) -> torch.Tensor:
    """A picture that the model can make."""
    return model.sample(1, 1, seed=77)[0]


@pytest.fixture(scope="module")
def seen(
    run: str, target: torch.Tensor, chromium: str, packages: Path, served: tuple[Path, str], tmp_path_factory: Any
) -> dict[str, Any]:
    """All that one visit of the pages shows."""
    folder, address = served
    ort = ["--to", "web", "--ort", str(packages / "onnxruntime-web" / "dist")]
    others = {name: write_checkpoint(tmp_path_factory.mktemp(name) / "run", name) for name in ("mlp-vae", "video")}
    assert main([run, str(folder / "gan"), *ort]) == DONE
    assert main([others["mlp-vae"], str(folder / "vae"), "--single-file", *ort]) == DONE
    assert main([others["video"], str(folder / "video"), *ort]) == DONE
    shutil.copytree(folder / "gan", folder / "broken")
    broken = folder / "broken" / "generator.onnx"
    broken.write_bytes(broken.read_bytes()[:-100])
    picture = folder / "target.png"
    Image.fromarray(target[0].numpy()).save(picture)
    asked = {
        "gan": f"{address}/gan/",
        "vae": f"file://{folder}/vae/index.html",
        "video": f"{address}/video/",
        "broken": f"{address}/broken/",
        "picture": str(picture),
        "noise": [(str(seed), str(index), count, stream) for seed, index, count, stream in NOISE],
        "links": [f"#seed={seed}&psi=0.8&w={','.join('1' if k == 1 else '0' for k in range(3))}" for seed in SEEDS],
    }
    words = ["node", str(Path(__file__).with_name("drive.mjs")), chromium]
    with serving(run, others["mlp-vae"]) as server:
        asked["server"] = server
        done = subprocess.run(words, input=json.dumps(asked), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@contextmanager
def serving(gan: str, vae: str) -> Iterator[str]:
    """The address of a server of both models; "" where FastAPI is not installed."""
    if find_spec("fastapi") is None:
        yield ""
        return
    from imagegen_dist.serving.access import Access
    from imagegen_dist.serving.app import create_app
    from imagegen_dist.serving.served import Served, Settings
    from tests.serving.running import running

    models = [Served("gan", gan, Settings()), Served("vae", vae, Settings())]
    with running(Access(create_app(models))) as address:
        yield f"http://{address}"


def test_the_noise_is_pythons_bit_for_bit(seen: dict[str, Any]) -> None:
    for (seed, index, count, stream), values in zip(NOISE, seen["noise"], strict=True):
        noise = SampleNoise([seed], [index])
        noise._stream = stream
        assert np.array_equal(noise.normal(1, count)[0].numpy(), np.array(values, np.float32))


def test_pictures_are_those_of_sample_within_one_grey_level(seen: dict[str, Any], model: GeneratorModel) -> None:
    for seed, grey in zip(SEEDS, seen["pictures"], strict=True):
        ours = model.sample(1, 1, seed, 0.8)[0, 0].flatten().int()
        assert int((ours - torch.tensor(grey)).abs().max()) <= 1


def psnr(grey: list[int], target: torch.Tensor) -> float:
    """Of a picture's pixels against a sample uint8 [1, H, W], in dB."""
    error = (torch.tensor(grey).float() - target[0].flatten().float()) / 127.5
    return 10 * float(torch.log10(4 / (error**2).mean()))


def test_a_server_computes_the_same_pictures_finds_a_picture_and_a_link_of_a_drawing_holds_there(
    seen: dict[str, Any], target: torch.Tensor
) -> None:
    if "remote" not in seen:
        pytest.skip("fastapi is not installed")
    assert seen["remote"]["backend"] == "server"
    for here, there in zip(seen["pictures"], seen["remote"]["pictures"], strict=True):
        assert max(abs(ours - theirs) for ours, theirs in zip(here, there, strict=True)) <= 1
    found = seen["remote"]["found"]
    assert found["text"].startswith("Found at ")
    assert psnr(found["grey"], target) > 20
    assert int(np.argmax(found["state"]["w"])) == 1
    drawn, again = seen["drawn"]["grey"], seen["remote"]["drawn"]["grey"]
    assert max(abs(ours - theirs) for ours, theirs in zip(drawn, again, strict=True)) <= 1


def test_it_asks_no_other_host_and_nothing_fails(seen: dict[str, Any]) -> None:
    assert set(seen["hosts"]) == {"127.0.0.1"}
    assert seen["errors"] == []


def test_without_an_adapter_or_isolation_it_is_wasm_with_one_thread(seen: dict[str, Any]) -> None:
    assert seen["state"]["backend"] == "WASM, 1 thread"
    assert seen["state"]["isolated"] is False
    assert seen["state"]["state"] == "ready"
    assert "MB" in seen["state"]["said"]


def test_the_page_answers_while_pictures_are_computed(seen: dict[str, Any]) -> None:
    assert seen["ticks"] >= 5


def test_every_key_does_what_it_says(seen: dict[str, Any]) -> None:
    keys = seen["keys"]
    assert (keys["right"]["state"]["seed"], keys["left"]["state"]["seed"]) == ("8", "7")
    assert keys["right"]["grey"] != keys["left"]["grey"]
    assert keys["digit"]["state"]["w"] == [0, 1, 0]
    assert keys["random"]["state"]["seed"] != "7"
    assert keys["undo"]["grey"] == keys["digit"]["grey"]
    assert keys["sheet"]["width"] > 3 * keys["one"]["width"]
    assert keys["one"]["grey"] == keys["digit"]["grey"]
    assert keys["help"] is True
    assert 0 < keys["played"]["state"]["t"] <= 1


def test_png_and_zip_are_files(seen: dict[str, Any], model: GeneratorModel) -> None:
    with Image.open(io.BytesIO(base64.b64decode(seen["png"]["bytes"]))) as picture:
        assert picture.size == model.shape.spatial[::-1]
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(seen["zip"]["bytes"]))) as files:
        assert files.testzip() is None
        assert len(files.namelist()) == 6 * 3 + 1


def test_a_dropped_picture_is_found_with_its_class_and_its_link_gives_the_same_pixels(
    seen: dict[str, Any], target: torch.Tensor
) -> None:
    found = seen["found"]
    assert psnr(found["grey"], target) > 20
    assert int(np.argmax(found["state"]["w"])) == 1
    assert seen["linked"]["grey"] == found["grey"]


def test_it_fits_a_window_of_390_pixels(seen: dict[str, Any]) -> None:
    assert seen["narrow"]["width"] <= 390
    assert len(seen["narrow"]["panel"].split()) == 1


def test_a_drawing_is_encoded_from_disk_and_its_link_gives_the_same_pixels(
    seen: dict[str, Any], tmp_path: Path
) -> None:
    drawn = seen["drawn"]
    assert sum(drawn["pad"]) > 0
    assert seen["drawnAgain"]["grey"] == drawn["grey"]
    assert seen["latents"] == sorted(seen["latents"], reverse=True)
    model = load(write_checkpoint(tmp_path / "run", "mlp-vae"))
    samples = torch.tensor(drawn["pad"], dtype=torch.uint8).reshape(1, *model.shape.dims)
    label = model.labels(1)
    difference = model.reconstruct(samples, label).flatten().int() - torch.tensor(drawn["grey"])
    assert int(difference.abs().max()) <= 1


def test_a_film_plays(seen: dict[str, Any]) -> None:
    assert seen["film"] >= 3


def test_a_damaged_file_is_said_to_be(seen: dict[str, Any]) -> None:
    state, said = seen["broken"]
    assert state == "failed"
    assert "generator.onnx is damaged" in said
