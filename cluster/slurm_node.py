"""The task of slurm.sbatch on each node: its Ray, and on the first node the job's driver.

    srun python cluster/slurm_node.py PORT COMMAND...

Slurm signals all processes of a step. Ray has to outlive the signal, since the workers write a checkpoint after it, so
the signals are blocked here and in every process that this one starts, and the driver gets one SIGINT instead:
SIGTERM (preemption) and SIGUSR1 (`#SBATCH --signal`) end it for the queue, SIGUSR2 for good.

PORT: where the first node tells the others its Ray's address. They stay connected, and end with the connection.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil

REQUEUE = 75
"""Exit code of a job that has stopped because Slurm asked for its nodes: EX_TEMPFAIL of sysexits.h."""

_FOR_THE_QUEUE = {signal.SIGTERM, signal.SIGUSR1}
_SIGNALS = {*_FOR_THE_QUEUE, signal.SIGUSR2}
_START_S = 300.0
"""Seconds within which every node of the allocation has to be part of the Ray cluster."""

_RESTART_S = 5.0
_POLL_S = 0.5
_PR_SET_CHILD_SUBREAPER = 36
_WAIT_FOR_NODES = """
import sys, time, ray
ray.init(log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(0.5)
"""


def main(port: int, command: list[str]) -> int:
    """Run this node's part of the job; the task's exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    # Ray's processes are adopted where their parents end, so that _ended finds them all.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    first = os.environ["SLURM_LAUNCH_NODE_IPADDR"]
    with _folder() as folder, _ended():
        if os.environ["SLURM_NODEID"] == "0":
            return _lead(first, port, folder, command)
        return _follow(first, port, folder)


@contextmanager
def _folder() -> Iterator[Path]:
    """A private folder for the block, with the token in a file. Its path is short: Ray's sockets lie below it."""
    folder = Path(f"/tmp/imagegen-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_NODEID']}")
    shutil.rmtree(folder, ignore_errors=True)  # of the same job, before it was put back into the queue
    folder.mkdir(mode=0o700)
    token = folder / "token"
    token.touch(0o600)
    token.write_text(os.environ.pop("RAY_AUTH_TOKEN"))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ended() -> Iterator[None]:
    """Kill what was started in the block, at its end: SIGTERM is blocked in all of it."""
    try:
        yield
    finally:
        while children := psutil.Process().children(recursive=True):
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(children, timeout=_POLL_S)


def _lead(address: str, port: int, folder: Path, command: list[str]) -> int:
    """Start the head, tell the other nodes, and run the job."""
    with socket.create_server(("", port), backlog=128) as server:
        gcs, dashboard, client = _free_ports(3)
        head = ["--head", f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        ray = _start_ray(folder, address, [*head, f"--ray-client-server-port={client}"])
        os.environ["RAY_ADDRESS"] = f"{address}:{gcs}"
        until = time.monotonic() + _START_S
        while not _listens(address, gcs):
            if ray.poll() is not None or time.monotonic() > until:
                return _failed("Ray did not start", folder)
            time.sleep(_POLL_S)
        nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
        others = []
        joined = subprocess.Popen([sys.executable, "-c", _WAIT_FOR_NODES, str(nodes)], stderr=subprocess.DEVNULL)
        server.settimeout(_POLL_S)
        while joined.poll() is None:
            if time.monotonic() > until:
                return _failed(
                    f"{len(others) + 1} of {nodes} nodes reached the first one within {_START_S:g} s", folder
                )
            if asked := _signal(0):
                return REQUEUE if asked in _FOR_THE_QUEUE else 128 + asked
            with suppress(TimeoutError):
                other, _ = server.accept()
                other.sendall(f"{gcs}\n".encode())
                others.append(other)
        if joined.returncode:
            return _failed("Ray does not answer", folder)
        return _run(command)


def _follow(address: str, port: int, folder: Path) -> int:
    """Start Ray on a further node, again where it ends, until the first node ends."""
    first = _connected(address, port)
    if first is None:
        return _failed(f"the first node does not answer at {address}:{port}", folder)
    with closing(first), suppress(ConnectionError):  # the first node may end in other ways
        gcs, own = first.makefile().readline().strip(), first.getsockname()[0]
        first.settimeout(_RESTART_S)
        ray = None
        while gcs:
            if ray is None or ray.poll() is not None:
                ray = _start_ray(folder, own, [f"--address={address}:{gcs}"])
            with suppress(TimeoutError):
                gcs = first.recv(1)  # the first node says no more: an empty answer is its end
    return 0


def _connected(address: str, port: int) -> socket.socket | None:
    """A connection to the first node, once it listens; None if it does not in time."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        with suppress(OSError):
            return socket.create_connection((address, port))
        time.sleep(_POLL_S)
    return None


def _start_ray(folder: Path, address: str, role: list[str]) -> subprocess.Popen[bytes]:
    """Ray's processes of this node, on free ports: other jobs may run here."""
    [agent] = _free_ports(1)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *role]
    command += [f"--node-ip-address={address}", f"--temp-dir={folder}/ray", f"--dashboard-agent-listen-port={agent}"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--num-cpus={os.environ['SLURM_CPUS_ON_NODE']}", f"--num-gpus={_gpus()}"]
    with (folder / "ray.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def _gpus() -> int:
    """The GPUs that Slurm gives the job on this node; Ray would count those of the machine."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return int(os.environ.get("SLURM_GPUS_ON_NODE", len(visible)))


def _run(command: list[str]) -> int:
    """Run the job's driver; its exit code, or REQUEUE where Slurm asked for the nodes before its end."""
    driver = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    asked = None
    while (code := driver.poll()) is None:
        if (signalled := _signal(_POLL_S)) and not asked:  # a second SIGINT would end it without a checkpoint
            asked = signalled
            print(f"slurm_node.py: {asked.name} from Slurm: stopping the job", file=sys.stderr, flush=True)
            driver.send_signal(signal.SIGINT)
    if code and asked in _FOR_THE_QUEUE:
        return REQUEUE
    return 128 - code if code < 0 else code


def _signal(timeout_s: float) -> signal.Signals | None:
    """The next signal that Slurm sends within the time, if any."""
    found = signal.sigtimedwait(_SIGNALS, timeout_s)
    return None if found is None else signal.Signals(found.si_signo)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _listens(address: str, port: int) -> bool:
    """True if a process accepts connections there."""
    try:
        socket.create_connection((address, port), timeout=_POLL_S).close()
    except OSError:
        return False
    return True


def _failed(why: str, folder: Path) -> int:
    """Say so, with the last lines of Ray's output; the exit code."""
    print(f"slurm_node.py: {socket.gethostname()}: {why}", file=sys.stderr)
    with suppress(OSError):
        sys.stderr.writelines((folder / "ray.log").read_text().splitlines(keepends=True)[-20:])
    return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
