"""A real Slurm on this machine for tests: a controller and two nodes on loopback, in a folder of their own."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.ray.head import free_ports
from tests.ray.jobs import ROOT

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
_START_S = 60.0
_GPUS = ("/dev/null", "/dev/zero")  # what Slurm takes for the GPUs of each node

# Nodes that are no machines of their own; a job of `low` has 100 s after the notice that one of `high` takes its nodes.
_CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
FirstJobId={first_job}
AuthType=auth/munge
AuthInfo=socket={folder}/munge,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=4 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=4 Gres=gpu:2
PartitionName=low Nodes=n[1-2] Default=YES PriorityTier=1 GraceTime=100
PartitionName=high Nodes=n[1-2] PriorityTier=2 PreemptMode=OFF
"""


def missing_slurm() -> str:
    """What this machine lacks for it, or an empty text."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"no {missing[0]} here: apt-get install slurm-wlm munge" if missing else ""


@dataclass(frozen=True)
class Slurm:
    """A cluster that takes jobs."""

    environment: Mapping[str, str]

    def ask(self, *command: str) -> str:
        """What a command of Slurm's says."""
        done = subprocess.run(command, cwd=ROOT, env=dict(self.environment), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def submit(self, *words: str | Path) -> str:
        """The id of a new job."""
        return self.ask("sbatch", "--parsable", *map(str, words))

    def job(self, job: str) -> dict[str, str]:
        """What Slurm knows about a job: JobState, Restarts, ExitCode, ..."""
        words = self.ask("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, states: set[str], seconds: float) -> dict[str, str]:
        """Return once the job is in one of the states."""
        deadline = time.monotonic() + seconds
        while (found := self.job(job))["JobState"] not in states:
            assert time.monotonic() < deadline, found
            time.sleep(0.5)
        return found


@contextmanager
def serving_slurm() -> Iterator[Slurm]:
    """A Slurm cluster for the block. Its folder has a short path: sockets below it have a limit of 107 characters."""
    controller, first, second = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "state").mkdir()
        key = folder / "key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        conf = _CONF.format(
            host=socket.gethostname(), user=getpass.getuser(), folder=folder,
            controller=controller, first=first, second=second,
            first_job=secrets.randbelow(60_000_000) + 1,  # folders of jobs in /tmp are named for it
        )  # fmt: skip
        (folder / "slurm.conf").write_text(conf)
        devices = "".join(f"Name=gpu File={device}\n" for device in _GPUS)
        (folder / "gres.conf").write_text(f"AutoDetect=off\n{devices}")
        variables = {each: value for each, value in os.environ.items() if not each.startswith(("RAY_", "SLURM_"))}
        environment = {**variables, "SLURM_CONF": str(folder / "slurm.conf")}
        log = stack.enter_context((folder / "output.log").open("wb"))

        def start(*command: str) -> None:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)

        files = {"key-file": "key", "socket": "munge", "pid-file": "munged.pid", "log-file": "munged.log"}
        files["seed-file"] = "munged.seed"
        start("munged", "--foreground", "--force", *(f"--{flag}={folder / file}" for flag, file in files.items()))
        _wait_for((folder / "munge").exists, folder)
        start("slurmctld", "-D")
        for node in ("n1", "n2"):
            start("slurmd", "-D", "-N", node)
        stack.callback(_end_jobs, environment)
        _wait_for(lambda: _idle(environment) == 2, folder)
        yield Slurm(environment)


def _end_jobs(environment: Mapping[str, str]) -> None:
    """Kill what jobs still run: without their daemons, Slurm's own processes of a job wait for ever."""
    subprocess.run(["scancel", "--user", getpass.getuser()], env=dict(environment), capture_output=True, timeout=60)
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_daemon = process.name() in ("munged", "slurmctld", "slurmd")
            if not is_daemon and process.environ().get("SLURM_CONF") == environment["SLURM_CONF"]:
                process.kill()


def _idle(environment: Mapping[str, str]) -> int:
    """The number of nodes that wait for jobs."""
    command = ["sinfo", "--noheader", "--partition=low", "--states=idle", "--Node"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=60)
    return done.stdout.count("\n")


def _wait_for(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not condition():
        assert time.monotonic() < deadline, (folder / "output.log").read_text()[-3000:]
        time.sleep(0.2)
