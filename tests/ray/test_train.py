"""A training job as its user runs it, on real Ray workers: a command in a process of its own."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.training.checkpoint import newest_images
from tests.ray.jobs import START_S, finish, gcs_port, on_terminal, started, training_workers, wait_for_checkpoint, words
from tests.runs import TINY, assert_bit_identical, final_tensors, settings, tiny, train_on

IMAGES = 24 * 120
LONG = {"training__total_images": IMAGES, "training__checkpoint_every": 24 * 20, "training__report_every": 24 * 10}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The final state of the same experiment on two gloo processes without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    where = settings(folder, "run", folder / ".data")
    train_on(2, tiny(**LONG), where, folder / "meeting")
    return final_tensors(where)


@pytest.mark.timeout(400)
def test_a_killed_worker_and_a_terminated_driver_change_nothing(undisturbed: dict, tmp_path: Path) -> None:
    storage = tmp_path / "my runs"
    run, where = storage / "run", settings(storage, "run", storage / ".data")

    with started(words(storage, "run", TINY | LONG)) as process:
        wait_for_checkpoint(run, process)
        process.send_signal(signal.SIGTERM)
        output = finish(process)
    assert process.returncode == 143, output
    assert "stopped with a checkpoint" in output
    assert not (run / "result.json").exists()
    [printed] = [line.strip() for line in output.splitlines() if line.startswith("  python jobs/train_gan.py")]

    with on_terminal(["sh", "-c", f"exec {shlex.quote(sys.executable)} {printed.removeprefix('python ')}"]) as (
        process,
        shown,
    ):
        before = newest_images(where.folder)
        while newest_images(where.folder) == before:
            assert process.poll() is None, shown()
            time.sleep(0.05)
        killed = training_workers(process)[1]
        assert killed.environ()["RAY_ADDRESS"].rpartition(":")[2] == gcs_port(process)  # and not another Ray's
        killed.kill()
        process.wait(START_S)
        output = shown()
    assert process.returncode == 0, output
    assert "restarting from the last checkpoint" in output
    assert output.count("was lost") == 1
    assert "pid=" not in output  # what Ray's processes print is in driver.log
    assert_bit_identical(final_tensors(where), undisturbed)
    assert [row["images"] for row in read_rows(where.folder)] == list(range(240, IMAGES + 1, 240))

    result = json.loads((run / "result.json").read_text())
    for name, path in result["paths"].items():
        if name == "wandb" and path is None:  # W&B may fail, never silently
            assert "Weights & Biases" in output
        else:
            assert path in output, name
            assert Path(path).exists()
    assert "Traceback" not in output


@pytest.mark.cluster
@pytest.mark.full
@pytest.mark.timeout(200)
def test_an_error_of_a_worker_is_shown_once_with_its_cause(tmp_path: Path) -> None:
    settings(tmp_path, "run", tmp_path / ".data")
    index = tmp_path / ".data" / "digits-v1" / "train"
    shard = next(index.glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-5000])
    with started(words(tmp_path, "run", TINY | LONG)) as process:
        output = finish(process)
    assert process.returncode == 1, output
    assert output.count(shard.name) == 1
    assert "driver.log" in output
