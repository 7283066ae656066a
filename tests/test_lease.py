"""One driver a run: refused beside a living one, taken over from a dead one, given up to a usurper."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from imagegen_dist.errors import UsageError
from imagegen_dist.storage import Store
from imagegen_dist.storage.lease import FILE, Holder, Lease


@pytest.fixture(params=["disk", "objects"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path / "run" if request.param == "disk" else f"memory://{tmp_path}/run")


class Elsewhere:
    """A driver on another machine, that writes the lease each time a newcomer's clock has moved by a second."""

    def __init__(self, run: Store, alive: bool) -> None:
        self.run, self.alive, self.now = run, alive, 0.0
        self.holder = replace(Holder.here(), name="job raysubmit_1", machine="another", beat=1)
        self.write()

    def write(self) -> None:
        self.run.write(FILE, json.dumps(asdict(self.holder)).encode())

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.alive:
            self.holder = replace(self.holder, beat=self.holder.beat + 1)
            self.write()


def newcomer(run: Store, other: Elsewhere) -> Lease:
    return Lease(run, clock=other.clock, sleep=other.sleep)


def told(text: str) -> None:
    pass


def test_a_living_driver_of_another_machine_is_named_and_keeps_the_run(run: Store) -> None:
    other = Elsewhere(run, alive=True)
    said: list[str] = []
    with pytest.raises(UsageError, match=r"run is being trained by job raysubmit_1: wait for it, .* another --run"):
        newcomer(run, other).acquire(said.append)
    assert other.now < 10
    assert "raysubmit_1 was training this run" in said[0]


def test_a_lease_that_does_not_change_is_taken_over(run: Store) -> None:
    other = Elsewhere(run, alive=False)
    lease = newcomer(run, other)
    lease.acquire(told)
    assert 60 <= other.now < 70
    lease.confirm()


def test_a_living_driver_of_this_machine_is_refused_at_once(run: Store) -> None:
    with Driver(run):
        lease = Lease(run, sleep=lambda seconds: pytest.fail("it waited"))
        with pytest.raises(UsageError, match=r"is being trained by process \d+ on "):
            lease.acquire(told)


def test_the_lease_of_a_killed_driver_of_this_machine_is_free_at_once(run: Store) -> None:
    with Driver(run) as process:
        process.kill()
        process.wait()
        Lease(run, sleep=lambda seconds: pytest.fail("it waited")).acquire(told)


def test_a_process_that_got_the_dead_ones_number_is_not_taken_for_it(run: Store) -> None:
    gone = replace(Holder.here(), started=psutil.Process().create_time() - 100)
    run.write(FILE, json.dumps(asdict(gone)).encode())
    Lease(run, sleep=lambda seconds: pytest.fail("it waited")).acquire(told)


def test_of_two_that_come_together_the_last_writer_stays(run: Store) -> None:
    first, second = Lease(run), Lease(run)
    for lease in (first, second):  # both have read that there is none
        lease._write()
    second.confirm()
    with pytest.raises(UsageError, match="is being trained by"):
        first.confirm()


def test_it_is_renewed_while_held_and_gone_afterwards(run: Store) -> None:
    lease = Lease(run, renew_s=0.02)
    lease.acquire(told)
    first = json.loads(run.read(FILE))
    with lease:
        wait_until(lambda: json.loads(run.read(FILE))["beat"] >= first["beat"] + 3)
        assert json.loads(run.read(FILE))["token"] == first["token"]
    assert run.names() == []


def test_a_driver_whose_lease_was_taken_over_learns_it_and_leaves_the_file(run: Store) -> None:
    lease = Lease(run, renew_s=0.02)
    lease.acquire(told)
    with lease:
        usurper = Elsewhere(run, alive=False)
        wait_until(lambda: lease.lost.is_set() or usurper.write())
        usurper.write()
    assert json.loads(run.read(FILE))["token"] == usurper.holder.token


def test_a_file_of_another_kind_is_no_lease(run: Store) -> None:
    run.write(FILE, b"{not json")
    Lease(run).acquire(told)


def test_a_submitted_job_is_named_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "raysubmit_7"}}')
    assert Holder.here().name == "job raysubmit_7"


class Driver:
    """Another process of this machine, in whose name the run's lease is."""

    def __init__(self, run: Store) -> None:
        self.run = run

    def __enter__(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        started = psutil.Process(self.process.pid).create_time()
        name = f"process {self.process.pid} on here"
        self.run.write(
            FILE, json.dumps(asdict(replace(Holder.here(), name=name, pid=self.process.pid, started=started))).encode()
        )
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
