"""gs:// URLs: by gcsfs against an emulator of Cloud Storage, and the one line that says that gcsfs is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.registry import _registry

from imagegen_dist.cli.train import main_gan
from imagegen_dist.storage import Store, forget_clients
from tests.loopback import wait_for
from tests.ray.head import free_ports
from tests.runs import assert_bit_identical, final_tensors, settings, tiny, train_here


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty bucket."""
    for name in ("gcsfs", "gcp_storage_emulator"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[test]'")
    [port] = free_ports(1)
    program = "import sys; from gcp_storage_emulator.__main__ import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
    with (tmp_path_factory.mktemp("gcs") / "server.log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        server = subprocess.Popen([*command, "--default-bucket=bucket"], stdout=log, stderr=log)
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        try:
            wait_for(f"http://127.0.0.1:{port}/storage/v1/b/bucket", server)
            yield "gs://bucket"
        finally:
            forget_clients()
            server.terminate()
            server.wait(timeout=10)


@pytest.mark.filterwarnings("ignore:Sending a large body")  # aiohttp's, about how gcsfs sends a file
def test_files_are_written_read_listed_and_removed_by_their_literal_names(bucket: str, tmp_path: Path) -> None:
    store = Store(bucket) / "files"
    store.write("a/[x]*?.txt", b"one")
    store.write("a/b/two.txt", b"0123456789")
    assert store.read("a/[x]*?.txt") == b"one"
    assert store.read_range("a/b/two.txt", 2, 5) == b"234"
    assert (store.size("a/b/two.txt"), store.exists("a/c")) == (10, False)
    assert sorted((store / "a").names()) == ["[x]*?.txt", "b"]
    content = os.urandom(3 << 20)
    (tmp_path / "up").write_bytes(content)
    store.upload("large", tmp_path / "up")
    store.download("large", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    (store / "a/b").remove()
    assert (store / "a").names() == ["[x]*?.txt"]
    with pytest.raises(FileNotFoundError, match="cannot read gs://bucket/files/none: it does not exist"):
        store.read("none")


@pytest.mark.filterwarnings("ignore:Sending a large body")
def test_a_run_that_is_stopped_and_resumed_in_a_bucket_has_the_weights_of_a_local_one(
    bucket: str, tmp_path: Path
) -> None:
    local = settings(tmp_path, "run", tmp_path / "data")
    train_here(tiny(training__total_images=24 * 8), local)
    remote = replace(local, storage=f"{bucket}/runs", data=f"{bucket}/train", validation=f"{bucket}/val")
    for ours, theirs in ((local.data, remote.data), (local.validation, remote.validation)):
        for file in Path(ours).iterdir():
            Store(theirs).upload(file.name, file)
    train_here(tiny(training__total_images=24 * 4), remote)
    train_here(tiny(training__total_images=24 * 8), remote)
    assert_bit_identical(final_tensors(remote), final_tensors(local))


def test_a_missing_client_is_one_line_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(_registry, "gs", raising=False)
    forget_clients()
    assert main_gan(["digits", "--storage", "gs://bucket/runs", "--run", "x"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "gs:// needs a package that is missing" in said
    assert "pip install -e '.[gcp]'" in said
