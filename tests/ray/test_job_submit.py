"""The job submitted to a Ray that was started by hand does the same work as a plain start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.ray.jobs import RAY, ROOT, words
from tests.runs import assert_bit_identical, final_tensors, train_on
from tests.test_vae_runs import place, small_vae, tiny

SHORT = {"training__total_images": 24 * 10}


@pytest.mark.timeout(400)
def test_a_submitted_job_does_the_same_work_as_a_plain_start(head: str, tmp_path: Path) -> None:
    job = ["python", *words(tmp_path, "submitted", small_vae("beta-tcvae", **SHORT), "train_vae")[1:]]
    done = subprocess.run(
        [str(RAY), "job", "submit", "--address", head, "--working-dir", ".", "--", *job],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert "240 / 240" in done.stdout

    plain, submitted = (place(tmp_path, name, tmp_path / ".data") for name in ("plain", "submitted"))
    train_on(2, tiny("beta-tcvae", **SHORT), plain, tmp_path / "meeting")
    assert_bit_identical(final_tensors(submitted), final_tensors(plain))
