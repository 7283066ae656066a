"""Jobs that read a trained model and write what they make of it go on where the storage fails for a moment."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from imagegen_dist.cli import encode, export, sample
from imagegen_dist.cli.evaluate import command as evaluate
from imagegen_dist.data.pack import pack
from imagegen_dist.errors import DONE
from imagegen_dist.storage import Store
from tests.checkpoints import write_checkpoint
from tests.evaluation.small import PIXELS
from tests.s3.faults import FaultyProxy
from tests.s3.fixtures import Bucket

IN_PROCESS = ("--workers", "0")
JOBS: dict[str, Callable[[str], int]] = {
    "encode": lambda at: encode.main([f"{at}/run", f"{at}/latents", "--data", f"{at}/data", *IN_PROCESS]),
    "export": lambda at: export.main([f"{at}/run", f"{at}/exported"]),
    "sample --folder": lambda at: sample.main([f"{at}/run", "--folder", f"{at}/samples", "--seeds", "0-7"]),
    "sample --grid": lambda at: sample.main([f"{at}/run", "--grid", f"{at}/grid.png", "--seeds", "0-7"]),
    "sample --shards": lambda at: sample.main([f"{at}/run", "--shards", f"{at}/made", "--seeds", "0-7", *IN_PROCESS]),
    "evaluate": lambda at: evaluate.main(
        [f"{at}/run", "--data", f"{at}/data", "--features", f"module:{PIXELS}", "--metrics", "fid", *IN_PROCESS]
    ),
}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_goes_on_after_credentials_that_had_expired(
    job: str, bucket: Bucket, network: FaultyProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every third request for a file fails, of those that read and of those that write."""
    write_checkpoint(bucket.folder / "run", "res-vae")
    samples = ((np.full((3, 8, 8), number, np.uint8), None) for number in range(12))
    pack(samples, Store(bucket.folder / "data"), shard_samples=6)
    network.inject("expired", share=1 / 3, match=r"^(GET|PUT) \S+\.(safetensors|json|png|tar)")
    assert JOBS[job](bucket.url) == DONE, capsys.readouterr().err
    assert network.done["expired"] > 1


@pytest.mark.parametrize("job", JOBS)
def test_a_store_that_never_answers_is_said_at_once(
    job: str, bucket: Bucket, network: FaultyProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    network.inject("expired", share=1.0, match="")
    assert JOBS[job](bucket.url) != DONE
    assert capsys.readouterr().err.count("\n") == 1
