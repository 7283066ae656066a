"""Models on a Ray Serve cluster, deployed by cluster/serve.yaml."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

pytest.importorskip("ray.serve.config")
pytest.importorskip("httpx")

import httpx

from imagegen_dist.errors import UsageError
from imagegen_dist.inference import load
from tests.ray.head import free_ports, serving_head
from tests.ray.jobs import RAY, ROOT
from tests.runs import settings, tiny, train_here

TOKEN = "token-of-the-test"
CLIENTS = 8


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """(address, run) of two replicas of a short run, deployed as the file says but for what this machine has."""
    where = settings(tmp_path, "digits-1", tmp_path / "data")
    train_here(tiny(training__total_images=48, evaluation__samples=0), where)
    monkeypatch.setenv("IMAGEGEN_TOKEN", TOKEN)
    spec = yaml.safe_load((ROOT / "cluster" / "serve.yaml").read_text())
    [port] = free_ports(1)
    spec["http_options"] = {"host": "127.0.0.1", "port": port}
    [application] = spec["applications"]
    application["args"] |= {"checkpoints": [where.folder.url], "device": "cpu", "follow_s": 0}
    [deployment] = application["deployments"]
    deployment.pop("autoscaling_config")
    deployment |= {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0.5}}
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(spec))
    with serving_head() as head:
        command = [RAY.with_name("serve"), "deploy", file, "--address", head]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while len(replicas()) < 2 or not is_healthy(address):
            assert time.monotonic() < deadline
            time.sleep(0.3)
        yield address, where.folder.url


def is_healthy(address: str) -> bool:
    try:
        return bool(httpx.get(f"{address}/healthz", timeout=5).status_code == 200)
    except httpx.HTTPError:
        return False


def replicas() -> list[psutil.Process]:
    found = []
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "ServeReplica:imagegen:models" in " ".join(each.cmdline()):
                found.append(each)
    return found


def ask(address: str, seed: int) -> tuple[bytes, int]:
    """The pixels of a seed, and how often it had to be asked for again, once at most."""
    body: dict[str, Any] = {"seeds": [seed], "classes": [seed % 10], "format": "npy"}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for again in range(2):
        try:
            answer = httpx.post(f"{address}/generate", json=body, headers=headers, timeout=60)
            if answer.status_code == 200:
                return answer.content[-28 * 28 :], again
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"seed {seed} was lost")


@pytest.mark.cluster
@pytest.mark.full
@pytest.mark.timeout(400)
def test_a_replica_that_is_killed_under_load_loses_no_request(deployed: tuple[str, str]) -> None:
    address, run = deployed
    assert httpx.get(f"{address}/model.json", timeout=60).status_code == 401
    model = load(run)
    expected = {seed: model.sample(1, classes=seed % 10, seed=seed).numpy().tobytes() for seed in range(20)}
    seeds = [seed for _ in range(30) for seed in range(20)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        asked = [clients.submit(ask, address, seed) for seed in seeds]
        while sum(each.done() for each in asked) < 50:
            time.sleep(0.01)
        replicas()[0].send_signal(signal.SIGKILL)
        answers = [each.result() for each in asked]
    wrong = 0
    for seed, (pixels, _) in zip(seeds, answers, strict=True):
        differences = (abs(ours - theirs) for ours, theirs in zip(pixels, expected[seed], strict=True))
        wrong += max(differences) > 1
    assert wrong == 0
    assert sum(again for _, again in answers) <= CLIENTS  # those that the dead replica had


def test_arguments_that_are_not_known_are_one_line() -> None:
    from imagegen_dist.ray.serving import application

    for arguments, said in (
        ({}, "args.checkpoints"),
        ({"checkpoints": "run"}, "args.checkpoints"),
        ({"checkpoints": ["run"], "devise": "cpu"}, "devise"),
        ({"checkpoints": ["run"], "most": "many"}, "most"),
    ):
        with pytest.raises(UsageError, match=said):
            application(arguments)
