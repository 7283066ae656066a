"""Checks of a cluster's machines before workers start on them: versions, data, storage. Loads without torch."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from imagegen_dist.errors import UsageError
from imagegen_dist.ray.memory import memory_line
from imagegen_dist.storage import StorageError, Store, check_temporary_room
from imagegen_dist.versions import versions
from imagegen_dist.wording import described, message

_ANSWER_S = 90.0
"""Seconds within which a machine has to answer, including its imports."""

_LOOK_PATIENCE_S = 20.0
"""Seconds for which a machine retries remote storage: its role's credentials may arrive late."""

_PROBE_S = 10.0
"""Seconds within which a machine has to start a process that shows that it has memory for one."""

_EXCHANGE = ".preflight"
_QUESTION = "question"
_POLL_S = 0.5


@dataclass(frozen=True)
class Preflight:
    """Checks each machine once.

    storage: URL where runs are kept. data: for each dataset the URL of its shards and the name of one shard.
    interrupted: returns True if the job is to end, which ends every wait. warn: takes a line about a machine that is
    short of memory, which may be temporary.
    """

    storage: str
    data: Sequence[tuple[str, str]]
    interrupted: Callable[[], bool] = lambda: False
    warn: Callable[[str], None] = lambda text: None

    def check(self, node_ids: Sequence[str]) -> None:
        """Raise UsageError in one line if a machine cannot do a worker's job, or has other versions than this one."""
        name = f"{_EXCHANGE}-{uuid.uuid4().hex}"  # several drivers may share the storage and check at the same time
        exchange = Store(self.storage) / name
        exchange.write(_QUESTION, name.encode())
        try:
            for node_id, answer in self._ask(node_ids, name).items():
                machine = _node_name(node_id)
                if answer["problem"]:
                    raise UsageError(f"machine {machine}: {answer['problem']}")
                if different := differences(versions(), answer["versions"]):
                    raise UsageError(f"machine {machine} has {different}; install the same on all of the cluster")
                self._read_back(exchange, node_id, machine)
        finally:
            with suppress(OSError):
                exchange.remove()

    def _ask(self, node_ids: Sequence[str], exchange: str) -> dict[str, dict[str, Any]]:
        remote = ray.remote(num_cpus=0, max_retries=0)(look)
        asked = {}
        for node_id in node_ids:
            there = NodeAffinitySchedulingStrategy(node_id, soft=False)
            asked[node_id] = remote.options(scheduling_strategy=there).remote(
                self.storage, list(self.data), exchange, node_id
            )
        answers = {}
        until = time.monotonic() + _ANSWER_S
        waiting = list(asked.values())
        while waiting and time.monotonic() < until and not self.interrupted():
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_POLL_S)
        if self.interrupted():
            return {}
        for node_id, answer in asked.items():
            try:
                answers[node_id] = ray.get(answer, timeout=0)
            except ray.exceptions.OutOfMemoryError as error:
                self.warn(memory_line(str(error)) or f"machine {_node_name(node_id)} ran out of memory")
            except ray.exceptions.RayTaskError as error:
                cause = error.cause or error
                answers[node_id] = {"problem": f"cannot run this job ({described(cause)})"}
            except ray.exceptions.GetTimeoutError:
                answers[node_id] = {"problem": f"does not answer within {_ANSWER_S:g} s"}
            except ray.exceptions.RayError:
                continue  # the machine has left: no worker starts there
        return answers

    def _read_back(self, exchange: Store, name: str, machine: str) -> None:
        with suppress(FileNotFoundError):
            if exchange.read(name) == name.encode():
                return
        raise UsageError(
            f"machine {machine} writes to {self.storage}, but this one cannot read it back: --storage has to be one "
            "place for all, e.g. s3://... or a shared folder"
        )


def memory_shortage(node_ids: Sequence[str], timeout_s: float = _PROBE_S) -> str:
    """A line about the first machine that lacks the memory to start a process, with its numbers; "" if none does.

    Starts a process on each machine that does nothing.
    """
    remote = ray.remote(num_cpus=0, max_retries=0)(_nothing)
    asked = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote()
        for node_id in node_ids
    ]
    done, _ = ray.wait(asked, num_returns=len(asked), timeout=timeout_s) if asked else ([], [])
    for answer in done:
        try:
            ray.get(answer)
        except ray.exceptions.OutOfMemoryError as error:
            return memory_line(str(error))
        except ray.exceptions.RayError:
            continue
    return ""


def _nothing() -> None:
    """Do nothing: the start alone shows that there is memory."""


def look(storage: str, data: Sequence[tuple[str, str]], exchange: str, answer: str) -> dict[str, Any]:
    """Run on a machine: return its versions and what it cannot do, "" if it can do everything.

    exchange: the folder of the storage in which the driver has left a question. answer: the file to write there.
    """
    problem = ""
    folder = Store(storage, _LOOK_PATIENCE_S) / exchange
    try:
        check_temporary_room()
    except StorageError as error:
        return {"problem": str(error), "versions": versions()}
    try:
        for url, shard in data:
            Store(url, _LOOK_PATIENCE_S).read_range(shard, 0, 512)
        if folder.read(_QUESTION) != exchange.encode():
            problem = f"a file written to {storage} reads back as another there"
        folder.write(answer, answer.encode())
    except OSError as error:
        shared = "" if "://" in storage else "; --storage and --data have to be places that all machines see"
        problem = f"{message(error)}{shared}"
    return {"problem": problem, "versions": versions()}


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """The versions that differ, in words; "" if all are equal."""
    return ", ".join(
        f"{name} {theirs.get(name, 'missing')} (here {version})"
        for name, version in ours.items()
        if theirs.get(name) != version
    )


def fitting_nodes(resources: Mapping[str, float]) -> list[str]:
    """Ids of the machines that are alive and large enough for a worker."""
    return [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and all(node["Resources"].get(name, 0) >= amount for name, amount in resources.items())
    ]


def _node_name(node_id: str) -> str:
    """A machine's address with its node's id shortened; the id alone if the address is unknown."""
    found = [node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == node_id]
    return f"{found[0]} ({node_id[:8]})" if found else node_id[:8]
