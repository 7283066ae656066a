"""cluster/slurm.sbatch on a real Slurm of two nodes: a whole training, a preemption, and what a job is given."""

from __future__ import annotations

import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import newest_images
from tests.cluster.slurm import Slurm, missing_slurm, serving_slurm
from tests.ray.jobs import ROOT, words
from tests.runs import TINY, assert_bit_identical, final_tensors, settings

pytestmark = [pytest.mark.full, pytest.mark.skipif(bool(missing_slurm()), reason=missing_slurm())]

RULER = "# ----"
STEPS = 300
WHOLE = TINY | {
    "training.total_images": 24 * STEPS,
    "training.checkpoint_every": 24 * 100_000,  # the only ones are that of the signal, and the last
}


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with serving_slurm() as cluster:
        yield cluster


def edited(folder: Path, name: str, nodes: int, gpus: int, cpus: int, command: list[str]) -> Path:
    """The script with other settings at its top, as a user edits it; its log is below the folder."""
    head, _, rest = (ROOT / "cluster" / "slurm.sbatch").read_text().partition(RULER)
    settings, ruler, body = rest.partition(RULER)
    for flag, value in {"nodes": nodes, "gpus-per-node": gpus, "cpus-per-task": cpus, "time": "0:10:00"}.items():
        settings, found = re.subn(rf"--{flag}=\S+", f"--{flag}={value}", settings)
        assert found == 1, flag
    settings = settings.replace("#SBATCH --gpus-per-node=0\n", "")
    settings = settings.replace("--output=imagegen-%j.log", f"--output={folder}/{name}.log")
    settings = settings.replace("environment=~/venv", f"environment={sys.prefix}")
    settings = re.sub(r"command=\(.*?\n\)", lambda _: "command=(\n" + " ".join(command) + "\n)", settings, flags=re.S)
    script = folder / f"{name}.sbatch"
    script.write_text(head + RULER + settings + ruler + body)
    return script


@pytest.mark.timeout(600)
def test_a_job_that_is_preempted_ends_with_the_weights_of_the_job_beside_it(slurm: Slurm, tmp_path: Path) -> None:
    """Both on the same two nodes; one of them is asked to go, writes a checkpoint and comes back."""
    storage = tmp_path / "runs"
    jobs = {}
    for name, partition in (("preempted", "low"), ("undisturbed", "high")):
        command = ["python", *words(storage, name, WHOLE)[1:]]
        script = edited(tmp_path, name, nodes=2, gpus=0, cpus=1, command=command)
        jobs[name] = slurm.submit(f"--partition={partition}", script)
    run = Store(str(storage)) / "preempted"
    wait_for_rows(slurm, jobs["preempted"], run)
    assert [each.name() for each in processes_of(jobs["preempted"])].count("raylet") == 2  # of one core each
    assert refuses_without_token(jobs["preempted"])

    began = time.monotonic()
    more_urgent = slurm.submit(
        "--partition=high", "--nodes=2", "--cpus-per-task=3", "--output=/dev/null", "--wrap", "sleep 1"
    )
    slurm.wait(jobs["preempted"], {"PENDING", "COMPLETING"}, 60)
    print(f"from the more urgent job to the checkpoint and the queue: {time.monotonic() - began:.0f} s")
    saved = newest_images(run)
    assert 0 < saved < 24 * STEPS
    assert saved >= read_rows(run)[-1]["images"]  # nothing is trained twice
    slurm.wait(more_urgent, {"COMPLETED"}, 60)
    ended = slurm.wait(jobs["preempted"], {"COMPLETED", "FAILED"}, 200)
    print(f"and to its end: {time.monotonic() - began:.0f} s")
    beside = slurm.wait(jobs["undisturbed"], {"COMPLETED", "FAILED"}, 200)
    log = (tmp_path / "preempted.log").read_text()
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), log
    assert (beside["JobState"], beside["Restarts"]) == ("COMPLETED", "0"), (tmp_path / "undisturbed.log").read_text()
    assert f"resuming at {saved:,} images" in log
    ours = settings(storage, "preempted", tmp_path / ".data")
    theirs = settings(storage, "undisturbed", tmp_path / ".data")
    assert_bit_identical(final_tensors(ours), final_tensors(theirs))
    for job in jobs.values():
        assert nothing_left(job)


PROBE = """
import os, sys, time, ray
ray.init(log_to_driver=False)
has = ray.cluster_resources()
print("given", has["CPU"], has["GPU"], os.environ["CUDA_VISIBLE_DEVICES"], os.environ["RAY_AUTH_MODE"], flush=True)
try:
    time.sleep(300)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.timeout(300)
def test_a_signal_ends_a_job_for_the_queue_and_another_for_good(slurm: Slurm, tmp_path: Path) -> None:
    """Its Ray has what Slurm has given: 3 of the node's 4 cores, 1 of its 2 GPUs."""
    (tmp_path / "probe.py").write_text(PROBE)
    command = ["python", f"{tmp_path}/probe.py"]
    job = slurm.submit(edited(tmp_path, "probe", nodes=1, gpus=1, cpus=3, command=command))
    log = tmp_path / "probe.log"
    wait_for_text(log, "given 3.0 1.0 0 token", 1)
    slurm.ask("scancel", "--signal=USR1", job)
    wait_for_text(log, "given 3.0 1.0 0 token", 2)
    assert slurm.job(job)["Restarts"] == "1"
    slurm.ask("scancel", "--signal=USR2", job)
    ended = slurm.wait(job, {"FAILED", "COMPLETED", "PENDING"}, 60)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "130:0", "1"), log.read_text()
    assert nothing_left(job)


def wait_for_text(log: Path, text: str, times: int) -> None:
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_text().count(text) < times:
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.2)


def wait_for_rows(slurm: Slurm, job: str, run: Store) -> None:
    deadline = time.monotonic() + 200
    file = run.local_path("metrics.jsonl")
    assert file is not None
    while not file.exists() or not read_rows(run):
        assert slurm.job(job)["JobState"] in {"PENDING", "RUNNING"}
        assert time.monotonic() < deadline
        time.sleep(0.2)


def processes_of(job: str) -> list[psutil.Process]:
    """What the job runs on both nodes."""
    running = psutil.process_iter(["cmdline"])
    return [each for each in running if f"/tmp/imagegen-{job}-" in " ".join(each.info["cmdline"] or [])]


def refuses_without_token(job: str) -> bool:
    """True if the dashboard of the job's Ray answers 401 to a request that has no token."""
    [port] = {
        word.partition("=")[2]
        for process in processes_of(job)
        for word in process.cmdline()
        if word.startswith("--dashboard-port=")
    }
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/cluster_status", timeout=30).close()
    except urllib.error.HTTPError as error:
        return error.code == 401
    return False


def nothing_left(job: str) -> bool:
    """True if neither a process nor a folder of the job is left on its nodes."""
    deadline = time.monotonic() + 20
    while processes_of(job) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not processes_of(job) and not list(Path("/tmp").glob(f"imagegen-{job}-*"))
