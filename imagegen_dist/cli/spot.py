"""The watcher of a machine that may be taken away: its notice drains the machine's Ray node ahead of time.

    imagegen spot-watch                 beside Ray on an EC2 spot machine
    imagegen spot-watch --now           in a Kubernetes preStop hook

Ray has no eye on EC2's notice of interruption, two minutes before it. Drained with the reason "preemption", a node gets
no new work, and Ray Train tells the training there, which writes a checkpoint and continues elsewhere. This needs
neither torch nor Ray in its own process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import psutil

from imagegen_dist.cli.command import Switch, check_range, flag, flags_help, parse_flags, run_command
from imagegen_dist.wording import described

_JOB = "spot_watch"
_SUMMARY = "Drain this machine's Ray node before the machine is taken away."

_ENDPOINT = "http://169.254.169.254"
_POLL_S = 5.0
REBALANCE_S = 120.0
"""How long a machine is given where EC2 says that it may soon be interrupted, and not when."""

_TOKEN_TTL_S = 21_600
_REQUEST_TIMEOUT_S = 2.0
_DRAIN_TIMEOUT_S = 60.0
_LONGEST_S = 86_400


@dataclass(frozen=True)
class Notice:
    """Why a machine is given up, and when: Unix time in seconds."""

    reason: str
    at: float


class InstanceMetadata:
    """EC2's instance metadata by its second version, which wants a session token. (EC2 User Guide, "Use IMDS")"""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token = ""
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def interruption(self) -> Notice | None:
        """When this machine will be stopped, hibernated or terminated; None while nobody says. Raises OSError."""
        found = self._get("spot/instance-action")
        return None if found is None else Notice(f"spot {found['action']}", _unix_time(found["time"]))

    def rebalance(self) -> Notice | None:
        """Since when EC2 thinks an interruption likely; None while it does not. Raises OSError."""
        found = self._get("events/recommendations/rebalance")
        return None if found is None else Notice("spot rebalance recommendation", _unix_time(found["noticeTime"]))

    def _get(self, name: str) -> dict[str, str] | None:
        """A JSON document, or None where there is none. A token that has run out is renewed."""
        for _ in range(2):
            self._token = self._token or self._new_token()
            try:
                text = self._ask("GET", f"meta-data/{name}", {"X-aws-ec2-metadata-token": self._token})
                return json.loads(text)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 404:
                    return None
                if error.code != 401:
                    raise
                self._token = ""
        raise PermissionError(f"{self._endpoint}: the metadata service takes no token that it gave")

    def _new_token(self) -> str:
        return self._ask("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)})

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(f"{self._endpoint}/latest/{path}", method=method, headers=headers)
        with self._opener.open(request, timeout=_REQUEST_TIMEOUT_S) as answer:
            return answer.read().decode()


def drain(notice: Notice, address: str = "", node_id: str = "") -> None:
    """Drain a Ray node, this machine's unless another is named, with the notice's reason and time.

    address: of the cluster; empty for the one that this machine is part of. Raises OSError.
    """
    left = max(0, int(notice.at - time.time()))
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", notice.reason, f"--deadline-remaining-seconds={left}"]
    command += [f"--address={address}"] if address else []
    command += [f"--node-id={node_id}"] if node_id else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DRAIN_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"Ray did not drain the node within {_DRAIN_TIMEOUT_S:g} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise OSError(f"Ray did not drain the node: {said[-1]}")


class Watch:
    """Looks for a notice, and drains the node for it.

    drain_node: drains it, or raises OSError. told_to_end: set where the machine is given up for another reason than
    EC2's; it has then grace_s seconds left. heed_rebalance: whether EC2's recommendation to move elsewhere drains the
    node too; one that is older than this watch does not, since Ray was started on the machine in spite of it.
    """

    def __init__(
        self,
        metadata: InstanceMetadata,
        drain_node: Callable[[Notice], None],
        told_to_end: threading.Event,
        grace_s: float = 30.0,
        heed_rebalance: bool = True,
    ) -> None:
        self._metadata = metadata
        self._drain_node = drain_node
        self._told_to_end = told_to_end
        self._grace_s = grace_s
        self._heed_rebalance = heed_rebalance
        self._began = time.time()
        self._complaint = ""

    def run(self, poll_s: float) -> Notice:
        """Until the machine is given up, and its node drained; what for."""
        while (notice := self._look()) is None:
            self._told_to_end.wait(poll_s)
        _say(f"{notice.reason} in {notice.at - time.time():.0f} s: draining this machine's Ray node")
        drained = False
        while not drained and time.time() < notice.at:
            with self._bearing_faults():
                self._drain_node(notice)
                drained = True
            time.sleep(0 if drained else min(1.0, poll_s))
        return notice

    def _look(self) -> Notice | None:
        """The notice by which this machine is given up, if it has come."""
        if self._told_to_end.is_set():
            return Notice("SIGTERM", time.time() + self._grace_s)
        notice = None
        with self._bearing_faults():
            notice = self._metadata.interruption()
            if notice is None and self._heed_rebalance:
                self._heed(self._metadata.rebalance())
        return notice

    def _heed(self, recommended: Notice | None) -> None:
        if recommended is None:
            return
        if recommended.at < self._began:
            _say("EC2 recommended to move elsewhere before this watch began; the watch continues")
        else:
            _say("EC2 recommends to move elsewhere: draining this machine's Ray node")
            self._drain_node(Notice(recommended.reason, time.time() + REBALANCE_S))
        self._heed_rebalance = False

    @contextmanager
    def _bearing_faults(self) -> Iterator[None]:
        """A fault in the block, of the network or of a Ray that is not up yet, ends it, and is said once."""
        said = ""
        try:
            yield
        except (OSError, ValueError, KeyError) as error:
            said = described(error)
        if said and said != self._complaint:
            _say(said)
        self._complaint = said


def _wait_until_gone(until: float) -> None:
    """Return once no raylet runs here any more, which a drained one ends when it is idle, or at that Unix time."""
    while time.time() < until and any(process.name() == "raylet" for process in psutil.process_iter(["name"])):
        time.sleep(0.5)


@dataclass(frozen=True)
class Options:
    """Flags of the command."""

    address: Annotated[str, flag("HOST:PORT")] = ""
    """The cluster's GCS. Default: this machine's."""
    node_id: Annotated[str, flag("ID")] = ""
    """The Ray node to drain. Default: this machine's."""
    endpoint: Annotated[str, flag("URL")] = ""
    """EC2's metadata service. Default: AWS_EC2_METADATA_SERVICE_ENDPOINT, or http://169.254.169.254."""
    poll: Annotated[float, flag("SECONDS")] = _POLL_S
    """Time between two looks at the metadata. Default: 5."""
    grace: Annotated[float, flag("SECONDS")] = 30.0
    """Time that is left after SIGTERM. Default: 30."""
    rebalance: Annotated[Literal["drain", "ignore"], flag("drain|ignore")] = "drain"
    """What EC2's recommendation to move elsewhere does. Default: drain."""
    now: Switch = False
    """Do at once what SIGTERM does, and end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen spot-watch`: returns the exit code."""
    return run_command(_JOB, arguments, lambda _: flags_help(Options, _JOB, _SUMMARY), _run)


def parse(words: Sequence[str]) -> Options:
    """Read the command's words. Raises UsageError."""
    options = parse_flags(Options, _JOB, words)
    check_range(options, poll=(0.01, _LONGEST_S), grace=(0, _LONGEST_S))
    return options


def _run(words: Sequence[str]) -> None:
    options = parse(words)
    told = threading.Event()
    if options.now:
        told.set()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    notice = Watch(
        InstanceMetadata(options.endpoint or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _ENDPOINT)),
        lambda notice: drain(notice, options.address, options.node_id),
        told,
        options.grace,
        options.rebalance == "drain",
    ).run(options.poll)
    _say(f"{max(0.0, notice.at - time.time()):.0f} s left")
    if told.is_set():
        _wait_until_gone(notice.at)


def _unix_time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
