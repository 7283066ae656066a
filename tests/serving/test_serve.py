"""`imagegen serve` as a process: where it listens, whom it answers, and what it says to mistakes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from imagegen_dist.cli.serve import main
from imagegen_dist.errors import MISUSED
from tests.runs import settings, tiny, train_here


def test_a_server_says_where_it_is_needs_its_token_and_stops_on_a_signal(tmp_path: Path) -> None:
    where = settings(tmp_path, "digits-1", tmp_path / "data")
    train_here(tiny(training__total_images=48, evaluation__samples=0), where)
    command = [sys.executable, "-m", "imagegen_dist", "serve", where.folder.url, "--host", "0.0.0.0", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "IMAGEGEN_TOKEN": "token-of-the-test"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("digits-1: 28 × 28 × 1 after 48 images, from ")
            found = re.search(r"http://0\.0\.0\.0:(\d+)/\?token=token-of-the-test", server.stdout.readline())
            assert found is not None
            server.stdout.readline()
            url = f"http://127.0.0.1:{found[1]}/model.json"
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(url, timeout=10)
            asked = urllib.request.Request(url, headers={"Authorization": "Bearer token-of-the-test"})
            with urllib.request.urlopen(asked, timeout=10) as answer:
                assert json.load(answer)["classes"] == 10
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) in (0, -signal.SIGTERM)
        finally:
            server.kill()


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, said in {
            (): "CHECKPOINT is needed",
            (str(tmp_path),): "holds no complete checkpoint",
            ("run", "--token", "short"): "at least 16 characters",
            ("run", "--token", "with spaces and more"): "letters, digits, - and _",
            ("run", "--port", port): f"cannot listen on 127.0.0.1 port {port}: address already in use",
            ("run", "--host", "203.0.113.1", "--port", "0"): "cannot listen on 203.0.113.1",
            ("run", "--batch", "0"): "--batch",
        }.items():
            assert main(words) == MISUSED
            printed = capsys.readouterr().err
            assert said in printed
            assert printed.count("\n") == 1
