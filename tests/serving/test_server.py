"""The server as its clients see it: over HTTP and WebSockets, on loopback."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

import httpx
import torch
import websockets

from imagegen_dist.inference import load
from imagegen_dist.serving.access import Access
from imagegen_dist.serving.app import create_app
from imagegen_dist.serving.requests import stream_message
from imagegen_dist.serving.served import Settings, named
from tests.runs import settings, tiny, train_here
from tests.serving.running import running

SECRET = "a-token-of-tests-0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short run of the digits preset."""
    folder = tmp_path_factory.mktemp("served")
    where = settings(folder, "digits-1", folder / "data")
    train_here(tiny(training__total_images=240, evaluation__samples=0), where)
    return where.folder.url


@pytest.fixture(scope="module")
def address(run: str) -> Iterator[str]:
    with running(Access(create_app(named([run, run], Settings(most=32))))) as found:
        yield found


def post(address: str, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"http://{address}/{path}", json=body, timeout=30)


def close_to(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """To one grey level: batches of other sizes round differently."""
    return ours.shape == theirs.shape and int(np.abs(ours.astype(int) - theirs.astype(int)).max()) <= 1


def test_samples_are_those_of_the_model_in_every_format(address: str, run: str) -> None:
    expected = load(run).sample(1, classes=7, seed=3).numpy()[0]
    array = post(address, "generate", seeds=[3], classes=[2, 7], format="npy").content
    assert close_to(np.load(io.BytesIO(array))[1], expected)
    picture = Image.open(io.BytesIO(post(address, "generate", seeds=[3], classes=[7]).content))
    assert close_to(np.asarray(picture), expected[0])
    grid = post(address, "models/digits-1-2/generate", seeds=[0, 1], classes=[0, 1, 2], scale=2, format="webp")
    assert grid.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(grid.content)).width > 3 * 56
    latents = load(run).latents(1, 3).tolist()
    blend = post(address, "decode", latents=latents, classes=[{"7": 1.0}], format="npy").content
    assert close_to(np.load(io.BytesIO(blend))[0], expected)


def test_a_page_comes_with_the_model_and_its_rows_are_samples(address: str, run: str) -> None:
    url, model = f"http://{address}", load(run)
    assert 'src="page.js"' in httpx.get(f"{url}/").text
    assert httpx.get(f"{url}/models/digits-1-2/page.css").headers["content-type"].startswith("text/css")
    assert httpx.get(f"{url}/other.js").status_code == 404
    told = httpx.get(f"{url}/model.json").json()
    assert (told["runtime"]["server"], told["streams"], told["classes"]) == (True, [64], 10)
    label = np.eye(10, dtype="<f4")[[3, 7]]
    body = model.latents(2, 5).numpy().astype("<f4").tobytes() + label.tobytes()
    samples = np.frombuffer(httpx.post(f"{url}/rows", content=body).content, np.uint8)
    assert close_to(samples.reshape(2, 1, 28, 28), model.sample(2, [3, 7], 5).numpy())
    for wrong in (b"", body[:-4], body[:-4] + b"\0\0\xc0\x7f", body * 40):
        assert httpx.post(f"{url}/rows", content=wrong).status_code == 422
    assert httpx.post(f"{url}/rows", params={"decoded": "true"}, content=body).status_code == 422
    assert httpx.post(f"{url}/rows/encode", content=np.zeros(28 * 28 + 10, "<f4").tobytes()).status_code == 422


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("generate", {"seeds": [-1]}, "seeds.0"),
        ("generate", {"seeds": [2**64]}, "seeds.0"),
        ("generate", {"seeds": []}, "seeds"),
        ("generate", {"sedes": [1]}, "sedes"),
        ("generate", {"seeds": [1] * 5000}, "seeds"),
        ("generate", {"seeds": list(range(33))}, "a request is for 32 at most"),
        ("generate", {"classes": [10]}, "class 10"),
        ("generate", {"classes": ["cat"]}, "class cat"),
        ("generate", {"classes": [{}]}, "class"),
        ("generate", {"truncation": 1.5}, "truncation"),
        ("generate", {"conditions": [{"age": 1}]}, "not told conditions"),
        ("generate", {"format": "glb"}, "no meshes"),
        ("generate", {"format": "mp4"}, "do not move"),
        ("generate", {"format": "exe"}, "format"),
        ("decode", {"latents": [[0.0, 1.0]]}, "this model's have 64"),
        ("decode", {"latents": [["a"] * 64]}, "latents.0.0"),
        ("decode", {}, "latents"),
        ("encode", {}, "labelled"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_422(address: str, path: str, body: dict[str, Any], said: str) -> None:
    answer = post(address, path, **body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_a_body_that_is_no_json_and_numbers_that_are_none(address: str) -> None:
    for content in (b"{", b"\xff\xfe", b'{"latents": [[NaN]]}', b'{"latents": [[1e999]]}', b'{"seeds": 1}' * 9):
        path = "decode" if b"latents" in content else "generate"
        answer = httpx.post(f"http://{address}/{path}", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 422, content


def test_streams_of_64_clients_are_not_mixed(address: str, run: str) -> None:
    model = load(run)
    expected = [model.sample(1, classes=seed % 10, seed=seed).numpy()[0] for seed in range(64)]

    async def client(seed: int) -> int:
        label = np.eye(10, dtype=np.float32)[seed % 10]
        message = stream_message(seed, model.latents(1, seed), torch.from_numpy(label))
        async with websockets.connect(f"ws://{address}/stream") as socket:
            for _ in range(4):
                await socket.send(message)
                answer = await socket.recv()
                assert struct.unpack("<I", answer[:4]) == (seed,)
                assert close_to(np.frombuffer(answer[4:], np.uint8).reshape(1, 28, 28), expected[seed])
        return seed

    async def all_clients() -> list[int]:
        return await asyncio.gather(*(client(seed) for seed in range(64)))

    assert asyncio.run(all_clients()) == list(range(64))
    stats = httpx.get(f"http://{address}/stats").json()
    assert max(map(int, stats["batches"])) > 1  # those that waited were computed together
    assert set(stats["waiting"].values()) == {0}
    assert 'imagegen_request_seconds_count{kind="stream"} ' in httpx.get(f"http://{address}/metrics").text


def test_of_messages_that_came_meanwhile_the_newest_is_answered(address: str, run: str) -> None:

    z = load(run).latents(1, 0)

    async def drag() -> list[int]:
        found: list[int] = []
        async with websockets.connect(f"ws://{address}/stream") as socket:
            for number in range(300):
                await socket.send(stream_message(number, z, torch.eye(10)[3]))
            while not found or found[-1] != 299:
                found.append(struct.unpack("<I", (await socket.recv())[:4])[0])
        return found

    answered = asyncio.run(drag())
    assert answered == sorted(answered)
    assert len(answered) < 300


@pytest.mark.parametrize("message", [b"", b"\0" * 10, struct.pack("<I", 0) + b"\xff" * 4 * 74, "text"])
def test_a_stream_of_nonsense_is_closed_with_the_reason(address: str, message: bytes | str) -> None:
    async def send() -> websockets.exceptions.ConnectionClosed:
        async with websockets.connect(f"ws://{address}/stream") as socket:
            await socket.send(message)
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                await socket.recv()
        return closed.value

    closed = asyncio.run(send())
    assert closed.rcvd is not None
    assert closed.rcvd.code == 1008
    assert "message has" in closed.rcvd.reason or "finite" in closed.rcvd.reason


def test_what_a_client_that_left_had_asked_for_is_not_computed(run: str) -> None:
    served = named([run], Settings(most=32))
    compute, computed = served[0].compute, list[int]()

    def slow(rows: Any) -> Any:
        computed.append(len(rows))
        time.sleep(0.5)
        return compute(rows)

    served[0].compute = slow  # type: ignore[method-assign]
    with running(Access(create_app(served))) as address:

        async def leave() -> None:
            async with httpx.AsyncClient() as stays, httpx.AsyncClient() as leaves:
                first = asyncio.create_task(stays.post(f"http://{address}/generate", json={"seeds": [0]}))
                await asyncio.sleep(0.15)
                with pytest.raises(httpx.ReadTimeout):
                    await leaves.post(f"http://{address}/generate", json={"seeds": list(range(31))}, timeout=0.15)
                assert (await first).status_code == 200
                assert (await stays.post(f"http://{address}/generate", json={"seeds": [1]})).status_code == 200

        asyncio.run(leave())
    assert computed == [1, 1]


def test_a_token_is_needed_and_moves_into_a_cookie(run: str) -> None:
    with running(Access(create_app(named([run], Settings())), SECRET, ())) as address:
        url = f"http://{address}"
        assert httpx.get(f"{url}/model.json").status_code == 401
        assert httpx.get(f"{url}/model.json?token=another").status_code == 401
        assert httpx.get(f"{url}/healthz").status_code == 200
        bearer = {"Authorization": f"Bearer {SECRET}"}
        assert httpx.get(f"{url}/model.json", headers=bearer).json()["classes"] == 10
        with httpx.Client() as browser:
            opened = browser.get(f"{url}/?token={SECRET}&s=1")
            assert opened.status_code == 303
            assert opened.headers["location"] == "/?s=1"
            assert "HttpOnly; SameSite=Strict" in opened.headers["set-cookie"]
            assert browser.get(f"{url}/model.json").status_code == 200

        async def connect() -> None:
            async with websockets.connect(f"ws://{address}/stream"):
                pass

        with pytest.raises(websockets.exceptions.InvalidStatus, match="403"):
            asyncio.run(connect())


def test_other_sites_other_names_and_long_bodies_are_refused(address: str) -> None:
    url = f"http://{address}"
    assert httpx.get(f"{url}/model.json", headers={"Host": "rebound.example"}).status_code == 403
    assert httpx.get(f"{url}/model.json", headers={"Origin": "http://elsewhere.example"}).status_code == 403
    assert httpx.get(f"{url}/model.json", headers={"Origin": url}).status_code == 200
    assert httpx.post(f"{url}/generate", content=b" " * 33_000_000).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 1_000_000

    assert httpx.post(f"{url}/encode", params={"labelled": "1"}, content=endless(), timeout=30).status_code == 413
    headers = httpx.get(f"{url}/healthz").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers

    async def connect() -> None:
        async with websockets.connect(f"ws://{address}/stream", origin="http://elsewhere.example"):
            pass

    with pytest.raises(websockets.exceptions.InvalidStatus, match="403"):
        asyncio.run(connect())


def test_a_run_in_training_is_followed(tmp_path: Path) -> None:
    where = settings(tmp_path, "learning", tmp_path / "data")
    train_here(tiny(training__total_images=240, evaluation__samples=0), where)
    with running(Access(create_app(named([where.folder.url], Settings(follow_s=0.1))))) as address:
        assert httpx.get(f"http://{address}/model.json").json()["images"] == 240

        async def watch() -> Any:
            async with websockets.connect(f"ws://{address}/stream") as socket:
                await asyncio.to_thread(train_here, tiny(training__total_images=480, evaluation__samples=0), where)
                told = [json.loads(await socket.recv())["images"]]
                while told[-1] != 480:
                    told.append(json.loads(await socket.recv())["images"])
            return told

        told = asyncio.run(watch())
        assert told == sorted(told)
        assert httpx.get(f"http://{address}/model.json").json()["images"] == 480
        shutil.rmtree(where.folder.local_path() or "")
        time.sleep(0.3)
        assert httpx.get(f"http://{address}/model.json").json()["images"] == 480
