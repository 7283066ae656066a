"""What each worker gets of a cluster's machines."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import ray

from imagegen_dist.cli.command import run_command
from imagegen_dist.cli.sweep import main as sweep_main
from imagegen_dist.cli.train import main_gan
from imagegen_dist.errors import FAILED, UsageError
from imagegen_dist.ray.cluster import connected, divide
from imagegen_dist.resources import Demand, Workers

HEAD = {"CPU": 0.0}
FOUR_GPUS = {"CPU": 48.0, "GPU": 4.0}
TWO_CORES = {"CPU": 2.0}
ANY = Demand()


def test_without_a_word_there_is_one_worker_a_gpu_with_its_share_of_the_cores():
    share = divide([HEAD, FOUR_GPUS, FOUR_GPUS], None, ANY, 64, own=False)
    assert (share.workers, share.gpu, share.cpus) == (Workers(8, 8), True, 12)
    assert share.resources == {"CPU": 12.0, "GPU": 1.0}


def test_without_gpus_there_are_two_and_never_more_than_microbatches():
    assert divide([{"CPU": 16.0}], None, ANY, 64, own=True).workers == Workers(2, 2)
    assert divide([{"CPU": 16.0}], None, ANY, 1, own=True).workers == Workers(1, 1)


@pytest.mark.parametrize("machines", [1, 2, 5])
def test_a_gpu_workers_share_is_the_same_however_many_machines_there_are(machines):
    assert divide([FOUR_GPUS] * machines, Workers(2, 20), ANY, 64, own=False).cpus == 12


def test_a_worker_is_never_larger_than_a_machine():
    assert divide([TWO_CORES] * 4, Workers(2, 2), ANY, 64, own=False).cpus == 2
    assert divide([TWO_CORES] * 4, Workers(8, 8), ANY, 64, own=False).cpus == 1


def test_gpus_that_will_only_come_are_waited_for():
    share = divide([HEAD], Workers(2, 8), Demand(gpus=1, cpus=6), 64, own=False)
    assert (share.gpu, share.cpus) == (True, 6)
    assert share.short_of == "2 workers need a GPU each, and it has 0 GPUs"


def test_gpus_are_left_alone_where_none_is_asked_for():
    assert not divide([FOUR_GPUS], Workers(2, 2), Demand(gpus=0), 64, own=True).gpu


def test_what_this_machine_cannot_hold_is_refused_with_the_fix():
    with pytest.raises(UsageError, match="--workers 4: this machine has 2 CPU cores; set --workers to at most 2"):
        divide([TWO_CORES], Workers(4, 4), ANY, 64, own=True)
    with pytest.raises(UsageError, match=r"--workers 2 with --cpus 2: this machine has 2 CPU cores; .* at most 1$"):
        divide([TWO_CORES], Workers(2, 2), Demand(cpus=2), 64, own=True)
    with pytest.raises(UsageError, match=r"--cpus 3: this machine has 2 CPU cores; leave --cpus out, .* at most 2$"):
        divide([TWO_CORES], Workers(1, 1), Demand(cpus=3), 64, own=True)
    with pytest.raises(UsageError, match=r"--gpus 1: this machine has no GPU; leave --gpus out$"):
        divide([TWO_CORES], Workers(1, 1), Demand(gpus=1), 64, own=True)
    with pytest.raises(UsageError, match=r"--workers 20 with --cpus 12: .* 48 CPU cores; set --workers to at most 4$"):
        divide([FOUR_GPUS], Workers(20, 20), Demand(cpus=12), 64, own=True)
    assert divide([TWO_CORES], Workers(2, 4), ANY, 64, own=True).short_of == ""


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--gpus", "1"], "--gpus 1: this machine has no GPU; leave --gpus out"),
        (["--cpus", "4096"], "--cpus 4096: this machine has"),
    ],
)
@pytest.mark.parametrize("job", ["train_gan", "sweep"])
def test_what_this_machine_lacks_is_refused_before_ray_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    job: str,
    flags: list,
    line: str,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("imagegen_dist.ray.cluster.connected", None)
    search = ["digits", "--space", "optim.*.lr=loguniform:1e-4:1e-2", "--trials", "2"] if job == "sweep" else []
    command = sweep_main if job == "sweep" else main_gan
    assert command([*search, *flags, "--storage", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (None, r"\(not a directory\); check that {folder}/ray can be written"),
        (Exception("The current node timed out\nduring startup."), r"\(The current node timed out during startup\.\);"),
    ],
)
def test_a_ray_that_does_not_start_is_one_line(
    failure: Exception | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def start(words: Sequence[str]) -> None:
        with connected():
            pytest.fail("Ray started")

    def init(**options: object) -> None:
        raise failure or AssertionError

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    if failure:  # as Ray raises it after half a minute
        monkeypatch.setattr(ray, "init", init)
    assert run_command("train", [], lambda words: "", start) == FAILED
    [line] = [line for line in capfd.readouterr().err.splitlines() if "Ray did not start on this machine" in line]
    assert re.search(said.format(folder=tmp_path / "file"), line)
