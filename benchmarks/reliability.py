"""What faults cost a run, and that they change nothing: `python -m benchmarks.reliability [SCENARIO ...]`

Real Ray nodes on this machine, a training job as its user runs it, and one fault after the other while it trains: a
process killed, stopped or out of memory, a node lost or added, a spot notice, the driver killed and submitted again,
`ray job stop`, kills at random, an object store that fails. Each run ends with the weights and the losses of a run that
nothing has disturbed.
Time to recover: from the fault to the first row of metrics that is new. Images lost: those that were trained twice.

`chaos` kills a random process `--kills` times, with a random pause of `--pause` seconds before each. A run that is over
before all kills are done is judged, and the next run takes the rest: `chaos --kills 100 --pause 3:20`.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch

from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.run_folder import CHECKPOINTS
from imagegen_dist.storage import StorageError, Store
from imagegen_dist.training.checkpoint import newest, newest_images, open_checkpoint
from imagegen_dist.wording import counted
from tests.cli.imds import serving as serving_imds
from tests.ray.head import gcs_address, serving_head
from tests.ray.jobs import RAY
from tests.s3.faults import FaultyProxy
from tests.s3.server import KEY_ID, SECRET, aws_environment
from tests.s3.server import serving as serving_s3

ROOT = Path(__file__).parents[1]
STEP = 12
NEW_ROW_S = 120.0
TOLERANCE = 1e-5

SETTINGS = {
    "model.widths": "16",
    "model.pixel-channels": 0,
    "model.mapping-units": 0,
    "model.head-units": 0,
    "optim.discriminator.lr": 1e-5,
    "optim.generator.lr": 1e-5,
    "training.batch-size": STEP,
    "training.microbatch-size": 4,
    "training.report-every": STEP * 5,
    "training.listen-every": STEP * 10,
    "training.sample-every": STEP * 100_000,
    "training.checkpoint-every": STEP * 60,
    "evaluation.samples": 0,
}
"""The digits preset with one narrow block: steps of milliseconds, so that the faults are what takes time.

At its own learning rate the game of the two networks is chaotic: what another order of adding changes, 1e-7, is all
digits after some hundred steps. At this one it stays small, while another sample in a step shows.
"""


class Machines:
    """A Ray head that trains nothing, and nodes of one CPU core each, all on this machine. Enter it as a context."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> Machines:
        os.environ.update(RAY_AUTH_MODE="disabled", RAY_worker_niceness="0", RAY_USAGE_STATS_ENABLED="0")
        os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        from ray.cluster_utils import Cluster  # after the environment that its processes inherit

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.add() for _ in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, **environment: str) -> Any:
        """One more node, its Ray with these environment variables too."""
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            return self._cluster.add_node(num_cpus=1)
        finally:
            for name in environment:
                os.environ.pop(name)
            os.environ.update({name: before[name] for name in environment if name in before})

    def kill(self, node: Any) -> None:
        """A node's processes are killed at once."""
        self._cluster.remove_node(node, allow_graceful=False)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on the nodes."""
        return psutil.Process().children(recursive=True)


class Job:
    """A training job in a process of its own, its lines kept with the time at which they came."""

    def __init__(
        self,
        storage: str,
        run: str,
        workers: str,
        steps: int,
        address: str = "",
        start: bool = True,
        **settings: object,
    ) -> None:
        self.run = Store(storage) / run
        self.lines: list[str] = []
        changes = {**SETTINGS, "training.total-images": STEP * steps, **settings}
        command = [sys.executable, "-u", "jobs/train_gan.py", "--storage", storage, "--run", run, "--workers", workers]
        command += ["--cpus", "1", "--wandb", "disabled"]
        command += [word for path, value in changes.items() for word in (f"--{path}", str(value))]
        self.command = command
        self._environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        if address:
            self._environment["RAY_ADDRESS"] = address
        if start:
            self.start()

    def start(self) -> None:
        """Run the command, for the first time or again."""
        self.process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        threading.Thread(target=self._follow, args=(self.process,), daemon=True).start()

    def once_more(self) -> tuple[int, str]:
        """The same command beside this one; its exit code and what it says."""
        done = subprocess.run(
            self.command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    def finish(self, limit_s: float = 400) -> int:
        """The exit code, once it has ended."""
        code = self.process.wait(limit_s)
        time.sleep(0.2)
        return code

    def wait_for(self, condition: Callable[[], bool], limit_s: float = 240) -> None:
        """Return once the condition holds, while the job runs."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the job has not come to that:\n" + "\n".join(self.lines[-30:]))
            time.sleep(0.05)

    @property
    def images(self) -> int:
        """Of the last row of metrics on the disk."""
        with suppress(OSError, ValueError):
            rows = read_rows(self.run)
            return int(rows[-1]["images"]) if rows else 0
        return 0

    @property
    def resumed(self) -> list[int]:
        """Images at which the run went on, each time that it did."""
        found = (re.search(r"resuming at ([\d,]+) images", line) for line in list(self.lines))
        return [int(match[1].replace(",", "")) for match in found if match]

    def end(self) -> None:
        """Kill it, if it still runs."""
        self.process.kill()
        self.process.wait()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip())


@dataclass
class Result:
    """A line of the table."""

    name: str
    recovered_s: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    weights: float = math.nan
    losses: float = math.nan
    note: str = ""
    wrong: str = ""

    def line(self) -> str:
        seconds = ", ".join(f"{each:.0f}" for each in self.recovered_s) or "–"
        lost = ", ".join(f"{each:,}" for each in self.lost) or "–"
        weights = "bit for bit" if self.weights == 0 else f"{self.weights:.1e}"
        said = f"WRONG: {self.wrong}" if self.wrong else self.note
        return f"| {self.name} | {seconds} | {lost} | {weights} | {self.losses:.1e} | {said} |"


HEAD = "| fault | seconds to recover | images lost | weights | losses | |\n|---|---|---|---|---|---|"


def recovered(job: Job, fault: Callable[[], None]) -> tuple[float, int]:
    """Do it, and see the job go on: seconds until the first new row, and images that had to be trained again."""
    times, file = len(job.resumed), job.run.local_path("metrics.jsonl")
    assert file is not None
    seen, inode = job.images, file.stat().st_ino
    began = time.monotonic()
    fault()

    def begun_anew() -> bool:
        nonlocal seen
        if file.stat().st_ino == inode:
            seen = max(seen, job.images)
            return False
        return len(job.resumed) > times

    job.wait_for(begun_anew)
    at = job.resumed[-1]
    job.wait_for(lambda: job.images > at)
    return time.monotonic() - began, max(0, seen - at)


def tensors(run: Store) -> dict[str, torch.Tensor]:
    """All of the newest checkpoint: weights, optimizers, averages."""
    found = newest(run, lambda why: None)
    assert found is not None
    return {**found.state, **{f"averaged/{name}": value for name, value in found.model.items()}}


def distance(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> float:
    """0 where all bits agree, of optimizers too; else the largest difference of two weights.

    It is relative to the largest weight of their network: Adam moves a bias whose gradient is all rounding by as much
    as any other, and biases begin at 0.
    """
    assert ours.keys() == theirs.keys()
    if all(torch.equal(value, theirs[name]) for name, value in ours.items()):
        return 0.0
    largest: dict[str, float] = {}
    apart: dict[str, float] = {}
    for name, value in theirs.items():
        network = "/".join(name.split("/")[:2])
        if not name.startswith("optimizers/"):
            largest[network] = max(largest.get(network, 0.0), float(value.abs().max()))
            apart[network] = max(apart.get(network, 0.0), float((value.double() - ours[name].double()).abs().max()))
    return max(apart[network] / largest[network] for network in apart) or sys.float_info.min


def losses_apart(ours: Store, theirs: Store) -> float:
    """The largest relative difference of two rows' losses. Each row has to be there once, and in its order."""
    mine, others = ([row for row in read_rows(run) if "loss/generator" in row] for run in (ours, theirs))
    assert [row["images"] for row in mine] == [row["images"] for row in others], "rows are missing, or there twice"
    names = [name for name in others[0] if name.startswith("loss/")]
    return max(abs(a[name] - b[name]) / abs(b[name]) for a, b in zip(mine, others, strict=True) for name in names)


def orphans(run: Store) -> list[str]:
    """Attempts of checkpoints that are not whole."""
    found = []
    for step in (run / CHECKPOINTS).names():
        for attempt in (run / CHECKPOINTS / step).names():
            try:
                open_checkpoint(run / CHECKPOINTS / step / attempt)
            except (ValueError, StorageError) as error:
                found.append(str(error))
    return found


def judge(result: Result, job: Job, reference: Store, same_size: bool) -> Result:
    """Compare a run that has ended with the undisturbed one."""
    result.weights = distance(tensors(job.run), tensors(reference))
    result.losses = losses_apart(job.run, reference)
    if result.weights > (0 if same_size else TOLERANCE) or result.losses > TOLERANCE:
        result.wrong = "not the undisturbed run"
    if left := orphans(job.run):
        result.wrong = f"left behind: {'; '.join(left)}"
    return result


def workers_of(machines: Machines) -> list[psutil.Process]:
    """The training workers, in the order of their ranks' nodes."""
    return [process for process in machines.processes() if "TrainWorker" in title(process)]


def title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


@dataclass
class Bench:
    """What the scenarios share."""

    machines: Machines
    storage: str
    steps: int
    count: int = 3
    kills: int = 10
    pause_s: tuple[float, float] = (3.0, 30.0)
    _undisturbed: dict[int, Store] = field(default_factory=dict)

    @property
    def reference(self) -> Store:
        """The run of `steps` steps that nothing has disturbed."""
        return self.undisturbed(self.steps)

    def undisturbed(self, steps: int) -> Store:
        """A run of so many steps that nothing has disturbed; it is trained once."""
        if steps not in self._undisturbed:
            job = Job(self.storage, f"undisturbed-{steps}", f"{self.count}", steps, self.machines.address)
            assert job.finish(900) == 0, job.lines
            self._undisturbed[steps] = job.run
        return self._undisturbed[steps]

    @contextmanager
    def job(self, name: str, workers: str, **settings: object) -> Iterator[Job]:
        """A run that has come to its first checkpoint, and a little further."""
        job = Job(self.storage, name, workers, self.steps, self.machines.address, **settings)
        try:
            job.wait_for(lambda: job.images > STEP * 70)
            yield job
        finally:
            job.end()


def worker_killed(bench: Bench) -> Result:
    result = Result("a worker killed (SIGKILL)")
    with bench.job("worker-killed", f"{bench.count}") as job:
        note(result, recovered(job, workers_of(bench.machines)[-1].kill))
        assert job.finish() == 0, job.lines
        return judge(result, job, bench.reference, same_size=True)


def worker_stopped(bench: Bench) -> Result:
    limit = os.environ.get("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "90")
    result = Result("a worker hung (SIGSTOP)", note=f"seen after {limit} s")
    with bench.job("worker-stopped", f"{bench.count}") as job:
        victim = workers_of(bench.machines)[-1]
        note(result, recovered(job, victim.suspend))
        if victim.is_running():
            victim.kill()
        assert job.finish() == 0, job.lines
        return judge(result, job, bench.reference, same_size=True)


def worker_without_memory(bench: Bench, spare_gb: float = 2.0) -> Result:
    """Another program takes the memory of a machine, and Ray kills the worker there; then it gives it back."""
    result = Result("a worker killed for memory (OOM)")
    bench.machines.kill(bench.machines.nodes.pop())
    memory = psutil.virtual_memory()
    limit = memory.total - memory.available + int(spare_gb * 2**30)  # Ray counts some GB less than psutil
    small = bench.machines.add(RAY_memory_usage_threshold=f"{limit / memory.total:.4f}")
    bench.machines.nodes.append(small)
    takes = (
        "import psutil, time\ntaken = []\nwhile True:\n    memory = psutil.virtual_memory()\n"
        f"    if memory.total - memory.available < {limit + 5 * 2**30}:\n        taken.append(b'x' * 2**28)\n"
        "    else:\n        time.sleep(0.1)\n"
    )
    with bench.job("memory", f"{bench.count}") as job:

        def take_memory() -> None:
            with subprocess.Popen([sys.executable, "-c", takes]) as other:
                try:
                    job.wait_for(lambda: any("ran out of memory" in line for line in job.lines))
                finally:
                    other.kill()

        note(result, recovered(job, take_memory))
        assert job.finish() == 0, job.lines
        said = next(line for line in job.lines if "ran out of memory" in line)
        result.note = f"“{said.partition(';')[0]}”"
        judge(result, job, bench.reference, same_size=True)
    bench.machines.nodes.remove(small)
    bench.machines.kill(small)
    return result


def job_stopped(storage: str, steps: int) -> Result:
    """A submitted job is stopped by `ray job stop`, and submitted again."""
    result = Result("`ray job stop`, and submitted again")
    undisturbed = Job(storage, "undisturbed-two", "2", steps)
    assert undisturbed.finish(900) == 0, undisturbed.lines
    with serving_head() as head:
        job = Job(storage, "job-stopped", "2", steps, gcs_address(), start=False)

        def ask(*words: str) -> str:
            done = subprocess.run(
                [str(RAY), "job", words[0], "--address", head, *words[1:]], capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        command = f"cd {ROOT} && exec {shlex.join(job.command)}"
        ask("submit", "--no-wait", "--submission-id", "first", "--", "sh", "-c", command)
        until = time.monotonic() + 240
        while job.images < STEP * 70:
            assert time.monotonic() < until, ask("logs", "first")
            time.sleep(0.05)
        began, seen = time.monotonic(), job.images
        ask("stop", "first")
        said, kept = ask("logs", "first"), newest_images(job.run)
        assert f"stopped with a checkpoint at {kept:,} images" in said, said
        result.lost = [max(0, seen - kept)]
        result.note = f"ended with a checkpoint after {time.monotonic() - began:.0f} s"
        job.start()
        try:
            assert job.finish(600) == 0, job.lines
        finally:
            job.end()
    return judge(result, job, undisturbed.run, same_size=True)


def driver_killed(bench: Bench) -> Result:
    result = Result("the driver killed, and submitted again")
    with bench.job("driver-killed", f"{bench.count}") as job:
        code, said = job.once_more()
        assert code == 2, said
        assert f"is being trained by process {job.process.pid} on" in said, said

        def again() -> None:
            job.end()
            job.start()

        note(result, recovered(job, again))
        assert job.finish() == 0, job.lines
        result.note = "a second submission before that: refused with the first one's id"
        return judge(result, job, bench.reference, same_size=True)


def node_lost_and_added(bench: Bench) -> list[Result]:
    lost = Result(f"a node lost: {bench.count} workers to {bench.count - 1}")
    grown = Result(f"a node added: {bench.count - 1} workers to {bench.count}")
    with bench.job("elastic", f"{bench.count - 1}:{bench.count}") as job:
        victim = bench.machines.nodes.pop()
        note(lost, recovered(job, lambda: bench.machines.kill(victim)))
        job.wait_for(lambda: job.images > job.resumed[-1] + STEP * 50)
        note(grown, recovered(job, lambda: bench.machines.nodes.append(bench.machines.add())))
        assert job.finish() == 0, job.lines
        judge(grown, job, bench.reference, same_size=False)
        lost.weights, lost.losses, lost.note = grown.weights, grown.losses, "the same run as below"
        return [lost, grown]


def holds_rank_0(worker: psutil.Process) -> bool:
    """Rank 0 writes the metrics."""
    return any(file.path.endswith("metrics.jsonl") for file in worker.open_files())


def node_of(machines: Machines, worker: psutil.Process) -> Any:
    """The node whose raylet started a process."""
    above = worker.parent()
    while above is not None and not re.search(r"--node[-_]id=(\w+)", title(above)):
        above = above.parent()
    found = re.search(r"--node[-_]id=(\w+)", title(above) if above else "")
    return next(node for node in machines.nodes if found and node.node_id == found[1])


def spot(bench: Bench, rank_0: bool, notice_s: float = 120.0) -> Result:
    """The watcher of one node gets EC2's notice; a checkpoint is there before the time that it says."""
    whose = "rank 0's node" if rank_0 else "another node"
    result = Result(f"a spot notice of {notice_s:.0f} s to {whose}")
    with bench.job(f"spot-{rank_0}", f"{bench.count - 1}:{bench.count}") as job, serving_imds() as imds:
        worker = next(each for each in workers_of(bench.machines) if holds_rank_0(each) == rank_0)
        victim = node_of(bench.machines, worker)
        command = [sys.executable, "-m", "imagegen_dist.cli.spot", "--endpoint", imds.endpoint, "--poll", "1"]
        command += ["--node-id", victim.node_id, "--address", bench.machines.address]
        with subprocess.Popen(command, cwd=ROOT) as watcher:
            try:
                ends = time.time() + notice_s
                note(result, recovered(job, lambda: imds.interrupt(notice_s)))
            finally:
                watcher.kill()
        written = (job.run.local_path(f"{CHECKPOINTS}/step-{job.resumed[-1]:012d}") or Path()).stat().st_mtime
        assert ends - notice_s < written < ends, "no checkpoint came before the machine's end"
        result.note = f"checkpoint {ends - written:.0f} s before the end"
        bench.machines.nodes.remove(victim)
        bench.machines.kill(victim)  # as EC2 does
        assert job.finish() == 0, job.lines
        return judge(result, job, bench.reference, same_size=False)


def chaos(bench: Bench, seed: int = 0) -> Result:
    """Random processes are killed at random times: workers, nodes, Ray's helpers, the driver.

    A run that is over before all kills are done is judged, and the next run takes the rest.
    """
    steps, generator, killed = bench.steps * 2, random.Random(seed), list[str]()
    result, runs, submissions = Result(f"chaos: {counted(bench.kills, 'kill')}", weights=0.0, losses=0.0), 0, 0
    while len(killed) < bench.kills:
        runs += 1
        job = Job(bench.storage, f"chaos-{runs}", f"{bench.count - 1}:{bench.count}", steps, bench.machines.address)
        before = len(killed)
        try:
            submissions += disturb(bench, job, generator, killed)
        finally:
            job.end()
        judged = judge(Result(job.run.url), job, bench.undisturbed(steps), same_size=False)
        print(f"  run {runs}, {counted(len(killed) - before, 'kill')}: {judged.line()}", file=sys.stderr, flush=True)
        result.weights, result.losses = max(result.weights, judged.weights), max(result.losses, judged.losses)
        result.wrong = "; ".join(filter(None, (result.wrong, judged.wrong and f"run {runs}: {judged.wrong}")))
    names = ", ".join(f"{killed.count(name)} {name}" for name in sorted(set(killed)))
    result.note = f"{runs} run{'s' if runs != 1 else ''}, {submissions} submissions; {names}"
    return result


def disturb(bench: Bench, job: Job, generator: random.Random, killed: list[str]) -> int:
    """Kill processes of the run, and start its job again where that ends it, until all kills are done and it is over.

    Half of the kills, at random, wait until the training has come further than at the one before.
    killed: what was killed before, to which this adds. Returns how often the job was submitted.
    """
    submissions, first, seen = 1, len(killed), 0
    while True:
        if len(killed) < bench.kills:
            if generator.random() < 0.5:  # else most processes are killed before they have trained anything
                until = time.monotonic() + NEW_ROW_S
                while job.process.poll() is None and job.images == seen and time.monotonic() < until:
                    time.sleep(0.1)
            with suppress(subprocess.TimeoutExpired):
                job.process.wait(generator.uniform(*bench.pause_s))
            if job.process.poll() is None:
                seen = job.images
                killed.append(kill_one(bench.machines, job, generator))
                print(f"  {len(killed)}: {killed[-1]} at {seen:,} images", file=sys.stderr, flush=True)
        else:
            job.finish(900)
        if job.process.poll() == 0:
            return submissions
        if job.process.poll() is not None:
            assert submissions <= 2 * (len(killed) - first) + 2, "\n".join(job.lines[-30:])
            job.start()
            submissions += 1


def kill_one(machines: Machines, job: Job, generator: random.Random) -> str:
    """Kill a random process of the run; what it was, in a word. A node that is killed is replaced by a new one."""
    while True:
        victims = [job.process.pid, *(process.pid for process in killable(machines))]
        with suppress(psutil.NoSuchProcess):
            victim = psutil.Process(generator.choice(victims))
            words = title(victim)
            if victim.pid == job.process.pid:
                victim.kill()
                return "driver"
            if "raylet" not in words:
                victim.kill()
                return re.split(r"[.(\s]", words.removeprefix("ray::"))[0]
            lost = next(node for node in machines.nodes if node.node_id in words)
            machines.nodes.remove(lost)
            machines.kill(lost)
            machines.nodes.append(machines.add())
            return "node"


def killable(machines: Machines) -> list[psutil.Process]:
    """Ray's processes that do something for the run, and the nodes themselves; not the head, which a cluster needs.

    A node ends with either of its agents, and so would the head: nodes are killed as such.
    """

    def counts(words: str) -> bool:
        if words.startswith("ray::"):
            return "IDLE" not in words and "Agent" not in words
        return "raylet/raylet" in words and any(node.node_id in words for node in machines.nodes)

    return [process for process in machines.processes() if counts(title(process))]


def store_faults(folder: str, steps: int, kind: str) -> Result:
    """A run whose data and records are in a bucket, two workers, while the store fails."""
    names = {"share": "5 % of writes fail", "gone": "the store gone for 60 s", "denied": "writes refused for good"}
    result = Result(f"object store: {names[kind]}")
    caches = {"data.cache.directory": f"{folder}/cache-{kind}"}
    with tempfile.TemporaryDirectory() as served, serving_s3(Path(served)) as server:
        server.make_bucket("runs")
        proxy = FaultyProxy(server.port)
        with aws_environment(proxy.endpoint):
            job = Job("s3://runs", kind, "2", steps, **caches)
            try:
                job.wait_for(lambda: any("images/s" in line or "img/s" in line for line in job.lines))
                if kind == "share":
                    proxy.inject("slow_down", "reset", share=0.05, match="^(PUT|POST) ")
                    assert job.finish() == 0, job.lines
                    result.note = f"{sum(proxy.done.values())} writes failed"
                elif kind == "gone":
                    proxy.go_away()
                    time.sleep(60)
                    proxy.come_back()
                    assert job.finish() == 0, job.lines
                    result.note = f"went on from a checkpoint {counted(len(job.resumed), 'time')}"
                else:
                    proxy.inject("denied", share=1.0, match="^(PUT|POST) ")
                    began = time.monotonic()
                    assert job.finish() == 1, job.lines
                    assert any("cannot write s3://runs" in line for line in job.lines), job.lines
                    result.note = f"ended with the cause after {time.monotonic() - began:.0f} s; then run again"
                    proxy.heal()
                    job.start()
                    assert job.finish() == 0, job.lines
            finally:
                job.end()
            undisturbed = Job(folder, f"undisturbed-{kind}", "2", steps)
            assert undisturbed.finish() == 0, undisturbed.lines
            judge(result, job, undisturbed.run, same_size=True)
        proxy.go_away()
    return result


def metadata_asleep(folder: str, steps: int) -> Result:
    """A run in a bucket that a machine's role alone opens, while nobody can say what its credentials are.

    The metadata service sleeps when the workers start, and later every token has expired for a while.
    """
    result, asleep_s, expired_s = Result("no credentials: the metadata service asleep, tokens expired"), 20.0, 30.0
    with (
        tempfile.TemporaryDirectory() as served,
        serving_s3(Path(served)) as server,
        serving_imds() as imds,
    ):
        runs, proxy = server.make_bucket("runs"), FaultyProxy(server.port)
        imds.lend(KEY_ID, SECRET)
        with aws_environment(proxy.endpoint):
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
                del os.environ[name]
            os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = imds.endpoint
            job = Job("s3://runs", "metadata", "2", steps, **{"data.cache.directory": f"{folder}/cache-metadata"})
            try:
                job.wait_for((runs / "metadata" / "lease.json").exists)  # the driver has looked at everything
                imds.sleep()
                job.wait_for(lambda: imds.unanswered > 0)
                time.sleep(asleep_s)
                imds.wake()
                job.wait_for(lambda: any("images/s" in line or "img/s" in line for line in job.lines))
                proxy.inject("expired", share=1.0, match="")
                time.sleep(expired_s)
                proxy.heal()
                assert job.finish() == 0, job.lines
                result.note = (
                    f"{imds.unanswered} questions to the metadata service unanswered for {asleep_s:.0f} s, "
                    f"{proxy.done['expired']} requests refused within {expired_s:.0f} s; "
                    f"started again {counted(len(job.resumed), 'time')}"
                )
            finally:
                job.end()
                del os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
        undisturbed = Job(folder, "undisturbed-metadata", "2", steps)
        assert undisturbed.finish() == 0, undisturbed.lines
        with aws_environment(server.endpoint):
            judge(result, job, undisturbed.run, same_size=True)
        proxy.go_away()
    return result


def temporary_full(folder: str, steps: int) -> Result:
    """A run whose temporary folder, 64 MiB on a file system of its own, is filled to the last byte. It wants root."""
    result, small = Result("the temporary folder full"), Path(folder) / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(small)], check=True)
    try:
        with mock.patch.dict(os.environ, TMPDIR=str(small), RAY_TMPDIR="/tmp"):
            job = Job(folder, "temporary", "2", steps)
            try:
                job.wait_for(lambda: job.images > STEP * 10)
                with suppress(OSError), (small / "filler").open("wb", buffering=0) as filler:
                    while True:
                        filler.write(bytes(1 << 16))
                filled_at = job.images
                assert job.finish() == 0, job.lines
            finally:
                job.end()
        os.truncate(small / "filler", (small / "filler").stat().st_size - (1 << 20))  # quite full, Python takes another
        with mock.patch.dict(os.environ, TMPDIR=str(small), RAY_TMPDIR="/tmp"):
            refused = Job(folder, "refused", "2", steps)
        assert refused.finish() == 2, refused.lines
        assert any(f"temporary folder {small} has too little space" in line for line in refused.lines), refused.lines
        undisturbed = Job(folder, "undisturbed-temporary", "2", steps)
        assert undisturbed.finish() == 0, undisturbed.lines
        result.note = (
            f"from image {filled_at:,} on; started again {counted(len(job.resumed), 'time')}; a job submitted "
            "meanwhile was refused in one line, exit code 2"
        )
        return judge(result, job, undisturbed.run, same_size=True)
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


NODES: dict[str, Callable[[Bench], Result | list[Result]]] = {
    "worker-killed": worker_killed,
    "worker-stopped": worker_stopped,
    "memory": worker_without_memory,
    "driver-killed": driver_killed,
    "elastic": node_lost_and_added,
    "spot": lambda bench: spot(bench, rank_0=False),
    "spot-rank-0": lambda bench: spot(bench, rank_0=True),
    "chaos": chaos,
}
ALONE: dict[str, Callable[[str, int], Result]] = {
    "store-share": partial(store_faults, kind="share"),
    "store-gone": partial(store_faults, kind="gone"),
    "store-denied": partial(store_faults, kind="denied"),
    "job-stop": job_stopped,
    "metadata": metadata_asleep,
    "temporary-full": temporary_full,
}


def on_machines(bench: Bench, names: list[str]) -> Iterator[Result]:
    """The scenarios of those names, one after the other."""
    for name in names:
        while len(bench.machines.nodes) < bench.count:
            bench.machines.nodes.append(bench.machines.add())
        found = NODES[name](bench)
        yield from found if isinstance(found, list) else [found]


def pause(text: str) -> tuple[float, float]:
    """Read MIN:MAX, in seconds. Raises ValueError."""
    low, high = (float(part) for part in text.split(":"))
    if not 0 <= low <= high:
        raise ValueError(text)
    return low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there_are = [*NODES, *ALONE]
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(there_are)}; or all")
    parser.add_argument("--nodes", type=int, default=3, help="machines that train, one worker each")
    parser.add_argument("--steps", type=int, default=800, help="of the run, of 12 images each; chaos: twice as many")
    parser.add_argument("--kills", type=int, default=10, help="of chaos, in all; default: %(default)s")
    parser.add_argument(
        "--pause", type=pause, default=(3.0, 30.0), metavar="MIN:MAX", help="seconds before a kill; default: 3:30"
    )
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(there_are)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(there_are)}")
    asked = options.scenarios or there_are
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as storage:
        if on_nodes := [name for name in asked if name in NODES]:
            with Machines(options.nodes) as machines:
                bench = Bench(machines, storage, options.steps, options.nodes, options.kills, options.pause)
                for result in on_machines(bench, on_nodes):
                    results.append(result)
                    print(result.line(), file=sys.stderr, flush=True)
        for name in asked:
            if name in ALONE:
                results.append(ALONE[name](storage, options.steps))
                print(results[-1].line(), file=sys.stderr, flush=True)
    print("\n".join([HEAD, *(result.line() for result in results)]))
    if any(result.wrong for result in results):
        raise SystemExit(1)


def note(result: Result, found: tuple[float, int]) -> None:
    result.recovered_s.append(found[0])
    result.lost.append(found[1])


if __name__ == "__main__":
    main()
