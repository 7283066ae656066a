"""The temporary folder: not needed for checkpoints, named where it is full, swept of what killed processes left."""

import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from PIL import Image

from imagegen_dist.cli.train import main_gan
from imagegen_dist.data.pack import pack
from imagegen_dist.drawing.animation import animate
from imagegen_dist.errors import MISUSED
from imagegen_dist.metrics.sinks import JSONLSink, read_rows
from imagegen_dist.ray.preflight import look
from imagegen_dist.storage import StorageError, Store, abandoned, temporary_file, temporary_folder
from imagegen_dist.training.checkpoint import Checkpointer, Snapshot, check_room, newest


@pytest.fixture
def no_temporary_folder(tmp_path, monkeypatch):
    """A temporary folder that is not there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A temporary folder of 1 MiB, on a file system of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"] if shutil.which("sudo") else ["false"]
    command = [*as_root, "mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here, which takes root")
    try:
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield folder
    finally:
        subprocess.run([*as_root, "umount", "--lazy", folder], check=True)


def snapshot(images: int, numbers: int = 1000) -> Snapshot:
    weight = torch.arange(numbers, dtype=torch.float32)
    return Snapshot(images, {"w": weight}, {"w": weight + 1, "step": torch.tensor(2)}, {"images": images})


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_checkpoints_and_metrics_need_no_temporary_folder(no_temporary_folder, request, tmp_path, kind):
    url = request.getfixturevalue("bucket").url if kind == "s3" else f"memory://{tmp_path.name}"
    run = Store(tmp_path / "runs" if kind == "local" else url) / "run"
    checkpointer = Checkpointer(run, "hash", "attempt")
    checkpointer.save(snapshot(7))
    checkpointer.wait()
    found = newest(run, pytest.fail)
    assert torch.equal(found.model["w"], snapshot(7).model["w"])
    sink = JSONLSink(run)
    sink.log({"images": 7, "loss": 0.5})
    sink.close()
    assert read_rows(run) == [{"images": 7, "loss": 0.5}]


def test_a_dataset_is_packed_without_a_temporary_folder(no_temporary_folder, tmp_path):
    samples = ((np.full((1, 4, 4), number, np.uint8), number % 2) for number in range(10))
    index = pack(samples, Store(tmp_path / "set"), shard_samples=4)
    assert [shard.samples for shard in index.shards] == [4, 4, 2]


def test_a_checkpoint_is_written_while_the_temporary_folder_is_full(small, tmp_path):
    (small / "filler").write_bytes(bytes(1 << 20))
    checkpointer = Checkpointer(Store(tmp_path / "run"), "hash", "attempt")
    checkpointer.save(snapshot(7, numbers=1_000_000))
    assert checkpointer.wait().images == 7


def test_what_needs_a_full_temporary_folder_is_one_line_that_names_it(small, tmp_path):
    said = f"temporary folder {small} has too little space: .*; free some, or set TMPDIR to another folder"
    with pytest.raises(StorageError, match=said), temporary_file() as file:
        file.write(bytes(2 << 20))
    with pytest.raises(StorageError, match=said), temporary_folder("test") as folder:
        (folder / "file").write_bytes(bytes(2 << 20))
    (small / "filler").write_bytes(bytes(1 << 20))
    pytest.importorskip("av")
    noise = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    with pytest.raises(StorageError, match=said):
        animate([Image.fromarray(frame) for frame in noise], "mp4", fps=4)


def test_a_temporary_folder_without_room_is_found_before_the_workers_start(small, tmp_path, capsys):
    said = f"the temporary folder {small} has too little space: 1 MiB are free and 32 MiB are needed"
    assert said in look(str(tmp_path), [], "question", "answer")["problem"]
    samples = ((np.full((1, 28, 28), number, np.uint8), number % 2) for number in range(10))
    pack(samples, Store(tmp_path / "set"))
    code = main_gan(["digits", "--data", str(tmp_path / "set"), "--storage", str(tmp_path / "runs"), "--dry-run"])
    line = f"train_gan.py: {said}; free some, or set TMPDIR to another folder\n"
    assert (code, capsys.readouterr().err) == (MISUSED, line)


def test_room_for_the_checkpoints_is_checked_at_the_start(small):
    run = Store(small / "run")
    check_room(run, weights=10_000, keep=2)
    with pytest.raises(ValueError, match=r"has 1 MiB free, but 5 checkpoints of 15 MiB .* choose another --storage"):
        check_room(run, weights=1_000_000, keep=3)
    check_room(Store("memory://run"), weights=10**12, keep=3)


def test_a_download_that_finds_no_room_names_the_local_file(small, bucket):
    (bucket.folder / "large").write_bytes(bytes(2 << 20))
    with pytest.raises(StorageError, match=f"cannot write {small}/copy: No space left on device"):
        Store(bucket.url).download("large", small / "copy")


_WRITER = """
import sys
from imagegen_dist.storage import Store, temporary_folder
def wait(file):
    file.write(b"half")
    print("writes", flush=True)
    sys.stdin.read()
with temporary_folder("test"):
    Store(sys.argv[1]).publish("file", wait)
"""


def test_what_a_killed_process_left_is_swept_and_what_another_writes_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(abandoned, "_UNLOCKED_S", 0.0)
    store = Store(tmp_path / "store")

    def swept() -> tuple[int, int]:
        """(files in the store, temporary folders) that are left after a start."""
        store.sweep()
        with temporary_folder("test"):
            return len(os.listdir(tmp_path / "store")), len(list(tmp_path.glob("imagegen-test-*"))) - 1

    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", _WRITER, store.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout.readline() == b"writes\n"
        assert swept() == (1, 1)
        writer.kill()
    assert swept() == (0, 0)
