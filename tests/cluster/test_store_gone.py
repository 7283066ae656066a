"""The job on data in a bucket, as its user runs it: the store goes away for good, and comes back."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imagegen_dist.data.pack import pack
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import newest
from tests.ray.jobs import finish, started, wait_for_checkpoint, words
from tests.runs import TINY, assert_bit_identical, final_tensors, tiny, train_on
from tests.s3.faults import FaultyProxy
from tests.s3.fixtures import Bucket
from tests.s3.server import SECRET

IMAGES = 24 * 60
CHANGES = {
    "training__total_images": IMAGES,
    "training__checkpoint_every": 24 * 10,
    "training__report_every": 24 * 10,
    "data__lanes": 6,
    "data__block": 1,
    "data__decoded_bytes": 0,
    "data__cache__timeout_s": 15.0,
}


def command(storage: Path, data: str) -> list[str]:
    changes = {**TINY, **CHANGES, "data.cache.directory": storage / "cache"}
    return [*words(storage, "run", changes), "--data", data]


@pytest.mark.timeout(400)
def test_a_store_that_is_gone_for_good_ends_the_job_with_a_checkpoint(
    bucket: Bucket, network: FaultyProxy, tmp_path: Path
) -> None:
    """Shards of five samples, so that every step needs new ones."""
    pictures = ((np.random.default_rng(n).integers(0, 256, (1, 28, 28), dtype=np.uint8), n % 10) for n in range(3000))
    pack(pictures, Store(bucket.folder / "train"), shard_samples=5)

    with started(command(tmp_path, f"{bucket.url}/train")) as process:
        wait_for_checkpoint(tmp_path / "run", process)
        network.go_away()
        gone = time.monotonic()
        output = finish(process)
    assert time.monotonic() - gone < 60
    assert process.returncode == 1, output
    assert f"{bucket.url}/train/shard-" in output
    assert "cannot be fetched" in output
    assert "continue" in output
    assert "Traceback" not in output
    where = RunSettings("run", str(tmp_path), preset="digits", job="train_gan", data="", wandb_mode="disabled")
    left = newest(where.folder, lambda why: None)
    assert left is not None
    assert 240 <= left.images < IMAGES

    network.come_back()
    again = replace(where, data=f"{bucket.url}/train", attempt="again")
    cached = tiny(**CHANGES, data__cache__directory=str(tmp_path / "cache"))
    train_on(2, cached, again, tmp_path / "again")
    whole = replace(where, name="whole", data=str(bucket.folder / "train"))
    train_on(2, tiny(**CHANGES), whole, tmp_path / "meeting")
    assert_bit_identical(final_tensors(where), final_tensors(whole))
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert SECRET.encode() not in written
    assert SECRET not in output
