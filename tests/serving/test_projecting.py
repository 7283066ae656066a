"""Projections that a server computes: what they find, that they end with their client, and their limits."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

import httpx

from imagegen_dist import config
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.inference import load
from imagegen_dist.inference.projection import Search, project
from imagegen_dist.inference.sought import Sought, advance
from imagegen_dist.presets import find_preset
from imagegen_dist.serving import projecting
from imagegen_dist.serving.access import Access
from imagegen_dist.serving.app import create_app
from imagegen_dist.serving.served import Settings, named
from tests.checkpoints import write_checkpoint
from tests.runs import digits, settings, train_here
from tests.serving.running import running

PLACES = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("gan") / "run", "r3gan-patch")


@pytest.fixture(scope="module")
def address(run: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of a conditional GAN, of one that is told conditions, and of codes."""
    others = [
        write_checkpoint(tmp_path_factory.mktemp(name) / name, name) for name in ("r3gan-styled", "fsq", "voxels")
    ]
    with running(Access(create_app(named([run, *others], Settings(projections=PLACES))))) as found:
        yield found


def png(sample: torch.Tensor, alpha: np.ndarray | None = None) -> bytes:
    """A grey sample uint8 [1, H, W] as a PNG, with transparency where alpha is given."""
    grey = sample[0].numpy()
    picture = Image.fromarray(grey if alpha is None else np.dstack([grey, grey, grey, alpha]))
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def projected(url: str, data: bytes, **query: Any) -> list[dict[str, Any]]:
    """The lines of a projection."""
    answer = httpx.post(url, content=data, params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_held_out_digits_of_several_clients_are_found_above_20_db(tmp_path: Path) -> None:
    changes = {"model.latent": 64, "model.hidden": (400,), "objective.beta": 0.1, "optim.autoencoder.lr": "0.003"}
    short = {"training.total_images": 20_000, "evaluation.samples": 0}
    where = settings(tmp_path, "vae", tmp_path / "data")
    train_here(config.overrides(find_preset("digits-vae").experiment, {**changes, **short}.items()), where)
    pictures, _ = Dataset.open(digits(tmp_path / "data", "val").url).read(range(8))
    with running(Access(create_app(named([where.folder.url], Settings())))) as address:

        async def client(picture: torch.Tensor) -> float:
            async with httpx.AsyncClient(timeout=60) as asking:
                answer = await asking.post(f"http://{address}/project", content=png(picture), params={"steps": 100})
            last = json.loads(answer.text.splitlines()[-1])
            shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(last["picture"]))))
            error = np.mean(((shown.astype(float) - picture[0].numpy()) / 127.5) ** 2)
            assert abs(10 * np.log10(4 / error) - last["psnr"]) < 0.1
            return float(last["psnr"])

        async def all_clients() -> list[float]:
            return await asyncio.gather(*map(client, pictures))

        found = asyncio.run(all_clients())
    assert np.mean(found) > 20
    assert np.allclose(found, project(load(where.folder.url), pictures, Search(100)).psnr, atol=0.2)


def test_its_steps_are_told_and_the_class_is_found_or_held(address: str, run: str) -> None:
    sample = load(run).sample(1, 1, seed=77)
    lines = projected(f"http://{address}/project", png(sample[0]), steps=120, each=True)
    assert [line["step"] for line in lines if "step" in line] == list(range(1, 121))
    assert lines[0] == {"guesses": 16, "of": 640}
    steps, last = [line for line in lines if "step" in line], lines[-1]
    assert (len(steps[0]["latents"]), len(steps[0]["label"])) == (64, 3)
    assert last["psnr"] > max(20, steps[0]["psnr"] + 3)
    assert int(np.argmax(last["label"])) == 1
    made = load(run).generate(torch.tensor([last["latents"]]), torch.tensor([last["label"]]))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(last["picture"]))))
    assert int(np.abs(made[0, 0].numpy().astype(int) - shown).max()) <= 1
    held = projected(f"http://{address}/project", png(sample[0]), steps=3, labelled="2", seed=4)
    assert held[-1]["label"] == [0, 0, 1]
    assert "latents" not in held[-2]
    conditions = projected(f"http://{address}/models/r3gan-styled/project", png(sample[0]), steps=2)
    assert len(conditions[-1]["label"]) == 8
    volume = io.BytesIO()
    np.save(volume, np.zeros((1, 8, 8, 8), np.uint8))
    assert "picture" in projected(f"http://{address}/models/voxels/project", volume.getvalue(), steps=2)[-1]


def test_what_is_transparent_is_free(address: str, run: str) -> None:
    sample = load(run).sample(1, 1, seed=5)[0]
    alpha = np.full(sample.shape[1:], 255, np.uint8)
    alpha[:, len(alpha) // 2 :] = 0
    damaged = sample.clone()
    damaged[:, :, len(alpha) // 2 :] = 255
    whole, part = (
        projected(f"http://{address}/project", data, steps=60)[-1]["psnr"]
        for data in (png(damaged), png(damaged, alpha))
    )
    assert part > whole + 3


@pytest.mark.parametrize(
    ("query", "data", "said"),
    [
        ({"steps": "0"}, b"", "query.steps: "),
        ({"steps": "1001"}, b"", "query.steps: "),
        ({"steps": "many"}, b"", "query.steps: "),
        ({"seed": str(2**64)}, b"", "query.seed: "),
        ({}, b"", "not a picture"),
        ({}, b"no picture", "not a picture"),
        ({"labelled": "3"}, None, "class 3: the model's classes are 0 to 2"),
        ({"labelled": "cat"}, None, "class cat"),
        ({"labelled": "{"}, None, "labelled"),
        ({"labelled": '{"2": "x"}'}, None, "no names"),
    ],
)
def test_what_cannot_be_searched_is_one_line_and_422(
    address: str, run: str, query: dict[str, str], data: bytes | None, said: str
) -> None:
    content = png(load(run).sample(1, 1)[0]) if data is None else data
    answer = httpx.post(f"http://{address}/project", params=query, content=content)
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert httpx.get(f"http://{address}/stats").json()["projecting"]["run"] == 0


def test_codes_and_transparent_pictures_are_refused(address: str, run: str) -> None:
    sample = load(run).sample(1, 1)[0]
    clear = png(sample, np.zeros(sample.shape[1:], np.uint8))
    for path, data, said in (("models/fsq/project", png(sample), "codes"), ("project", clear, "the mask needs")):
        answer = httpx.post(f"http://{address}/{path}", content=data)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]


def test_a_client_that_leaves_frees_its_place_and_more_than_there_are_is_503(
    address: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, data, sizes = f"http://{address}", png(load(run).sample(1, 1)[0]), list[int]()

    def slow(model: Any, sought: Sought) -> Any:
        sizes.append(len(sought))
        time.sleep(0.02)
        return advance(model, sought)

    monkeypatch.setattr(projecting, "advance", slow)  # 1,000 steps take 20 s

    @asynccontextmanager
    async def searching(client: httpx.AsyncClient) -> AsyncIterator[AsyncIterator[str]]:
        async with client.stream("POST", f"{url}/project", content=data, params={"steps": 1000}) as answer:
            assert answer.status_code == 200
            lines = answer.aiter_lines()
            while "step" not in json.loads(await anext(lines)):
                pass
            yield lines  # which would close the connection if it were given up

    async def visit() -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            async with searching(client), searching(client), searching(client):
                assert (await client.get(f"{url}/stats")).json()["projecting"]["run"] == PLACES
                refused = await client.post(f"{url}/project", content=data)
                assert refused.status_code == 503
                assert refused.json() == {"detail": "3 projections at once, and all places are taken"}
                assert refused.headers["retry-after"] == "1"
                sampled = await client.post(f"{url}/generate", json={"seeds": [1], "classes": [1]})
                assert sampled.status_code == 200  # between two steps
            while (await client.get(f"{url}/stats")).json()["projecting"]["run"]:
                await asyncio.sleep(0.02)
            computed = len(sizes)
            async with searching(client):
                pass
            assert sizes[computed] == 1

    asyncio.run(visit())
    assert max(sizes) == PLACES  # those under way were one batch
    assert len(sizes) < 900


def test_a_server_without_projections_says_so(run: str) -> None:
    with running(Access(create_app(named([run], Settings(projections=0))))) as address:
        answer = httpx.post(f"http://{address}/project", content=b"")
        assert answer.status_code == 501
        assert "--projections" in answer.json()["detail"]
