"""Runs a sweep on a cluster from a laptop: submits it as a Ray job, follows it, and fetches its results.

The job is the same command. It prints its events as lines of JSON (see json_events), from which a machine that reaches
the dashboard shows the live table. The laptop keeps nothing else: closing it changes nothing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.job_submission import JobStatus, JobSubmissionClient

import imagegen_dist
from imagegen_dist import config
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import DONE, FAILED, MISUSED, UsageError
from imagegen_dist.ray.environment import JOB_STOP_WAIT, JOB_STOP_WAIT_S
from imagegen_dist.ray.token import TOKEN_ADVICE, keep_to_owner, refused
from imagegen_dist.ray.upload import NOT_SENT, check_size
from imagegen_dist.storage import Store
from imagegen_dist.sweep.export import files
from imagegen_dist.sweep.json_events import JSON_EVENTS
from imagegen_dist.sweep.live_table import LiveTable
from imagegen_dist.sweep.plan import JOB, PLAN
from imagegen_dist.sweep.searches import Goal
from imagegen_dist.sweep.trial_store import decode_trial
from imagegen_dist.wording import message

EXCLUDED = [*NOT_SENT, "/docs", "/tests", "/benchmarks"]
"""Parts of a checkout that are not sent, besides those that .gitignore and .rayignore name."""

PYTHON = (
    "import sys; sys.version_info >= (3, 11) or "
    f"sys.exit('{JOB}.py: the cluster runs Python %d.%d, and imagegen_dist needs 3.11 or newer' % sys.version_info[:2])"
)
"""What a job runs first, to check the cluster's Python: pip has not, because it does not install the checkout."""

_POLL_S = 1.0
_AGENT_S = 60.0  # a new head accepts jobs within this time


def connect(address: str) -> JobSubmissionClient:
    """Connect to the cluster's job server. Raises UsageError if none answers, or if it refuses this client."""
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"--address {address}: give the address of the head's dashboard, e.g. http://HEAD:8265")
    keep_to_owner()
    logging.disable(logging.WARNING)  # Ray's notes about what it packs and sends
    try:
        client = JobSubmissionClient(address)
    except Exception as error:  # connection, version and authentication errors have no common kind
        if refused(error):
            raise UsageError(f"--address {address}: {TOKEN_ADVICE}") from error
        raise UsageError(f"--address {address}: no Ray answers there ({message(error)})") from error
    theirs = str(getattr(client, "_server_ray_version", ray.__version__))
    if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise UsageError(
            f"--address {address}: the cluster runs Ray {theirs}, this machine Ray {ray.__version__}; "
            f"pip install ray=={theirs}"
        )
    return client


def checkout() -> Path:
    """The checkout that is sent: that of the running script, else that of the package. Raises UsageError for none."""
    package = Path(imagegen_dist.__file__).parents[1]
    for root in (Path(sys.argv[0]).resolve().parent.parent, package):
        if (root / "jobs" / f"{JOB}.py").is_file() and (root / "imagegen_dist").is_dir():
            return root
    raise UsageError(f"--address submits a checkout, and there is no jobs/{JOB}.py beside {package}; run it there")


def submit(client: JobSubmissionClient, words: Sequence[str], name: str) -> str:
    """Submit the command as a job, without this machine's environment; the job's id.

    Waits for a new head that does not accept jobs yet. Raises UsageError if the checkout is too large,
    or the job was not accepted.
    """
    root = checkout()
    check_size(root, EXCLUDED)
    checked, run = shlex.join(["python", "-c", PYTHON]), shlex.join(["python", f"jobs/{JOB}.py", *words])
    environment = {JSON_EVENTS: "1", JOB_STOP_WAIT: str(JOB_STOP_WAIT_S)}
    deadline = time.monotonic() + _AGENT_S
    while True:
        try:
            return client.submit_job(
                entrypoint=f"{checked} && exec {run}",
                submission_id=f"sweep-{name}-{time.strftime('%H%M%S')}",
                runtime_env={"working_dir": str(root), "excludes": EXCLUDED, "env_vars": environment},
                metadata={"sweep": name},
            )
        except (RuntimeError, ValueError, ConnectionError) as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise UsageError(f"the job was not accepted: {message(error)}") from error
            time.sleep(1)


def check_reachable(flag: str, url: str) -> None:
    """Raise UsageError for a relative path, which each machine would resolve on its own disk."""
    if url and "://" not in url and not Path(url).is_absolute():
        raise UsageError(
            f"--{flag} {url}: on a cluster give a URL that all machines reach: s3://..., gs://..., or the absolute "
            "path of a folder that they share"
        )


def follow(client: JobSubmissionClient, job: str) -> int:
    """Show the job's table until the job ends, or until Ctrl-C, which leaves it running; the exit code."""
    _info(client, job)
    shown = JobView()
    try:
        asyncio.run(_tail(client, job, shown.line))
    except KeyboardInterrupt:
        shown.close()
        print(f"The sweep continues. --attach {job} shows it again, --stop {job} ends it.")
        return DONE
    shown.close()
    return shown.code(_ended(client, job))


def status(client: JobSubmissionClient, job: str) -> int:
    """Print the job's state and its current table."""
    info = _info(client, job)
    print(f"{job}: {str(info.status).lower()}{f' ({info.message})' if info.message else ''}")
    shown = JobView()
    for line in client.get_job_logs(job).splitlines():
        shown.line(line)
    shown.close()
    return DONE


def stop(client: JobSubmissionClient, job: str) -> int:
    """End the job. Its trials write checkpoints first, from which --resume continues."""
    _info(client, job)
    if client.stop_job(job):
        print(f"{job}: stopping, its trials write a checkpoint first", flush=True)
    state = _ended(client, job)
    print(f"{job}: {state.lower()}")
    return DONE


def fetch(client: JobSubmissionClient, job: str, folder: Path) -> int:
    """Copy the sweep's tables, report, best config and best checkpoint into a local folder.

    From the sweep's storage if this machine can read it, else through the log of a small job.
    """
    _info(client, job)
    facts = next((e for e in _events(client.get_job_logs(job).splitlines()) if e["event"] == "sweep"), None)
    if facts is None:
        raise UsageError(f"--fetch {job}: the sweep has not started yet")
    url = facts["folder"]
    source = readable(url)
    if source is not None:
        print(f"from {url}", flush=True)
        names = copied(source, folder)
    else:
        print(f"through the job server, as this machine cannot read {url}", flush=True)
        names = received(_sent(client, job, url), Store(folder))
    for name in names:
        print(folder / name)
    return DONE


def _sent(client: JobSubmissionClient, job: str, url: str) -> list[str]:
    """The lines that sweep.export prints as a job. Raises UsageError if the job cannot read the sweep either."""
    sending = client.submit_job(
        entrypoint=shlex.join(["python", "-m", "imagegen_dist.sweep.export", url]),
        runtime_env={"working_dir": str(checkout()), "excludes": EXCLUDED},
    )
    if _ended(client, sending) != JobStatus.SUCCEEDED:
        raise UsageError(f"--fetch {job}: {url} could not be read there; see the logs of job {sending}")
    return client.get_job_logs(sending).splitlines()


def readable(url: str) -> Store | None:
    """The folder of a sweep if this machine can read it: in a store, not on a disk of the cluster's."""
    try:
        folder = Store(url)
        return folder if folder.protocol not in ("file", "memory") and folder.exists(PLAN) else None
    except OSError:
        return None


def copied(source: Store, folder: Path) -> Iterator[str]:
    """Copy the results of a sweep from its storage, and yield the names of the files. Raises StorageError."""
    for name in files(source):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.unlink(missing_ok=True)
        source.download(name, part)
        part.replace(path)
        yield name


def received(lines: Sequence[str], folder: Store) -> Iterator[str]:
    """Write the files that sweep.export printed, and yield their names. Raises ValueError for a damaged file."""
    parts: list[str] = []
    for event in _events(lines):
        if event["event"] == "part":
            parts.append(event["data"])
        elif event["event"] == "file":
            data, parts = base64.b64decode("".join(parts)), []
            if hashlib.sha256(data).hexdigest() != event["sha256"]:
                raise ValueError(f"{event['name']} did not arrive complete; fetch again")
            folder.write(event["name"], data)
            yield event["name"]


class JobView:
    """Shows the table that the lines of a job describe."""

    def __init__(self) -> None:
        self._table: LiveTable | None = None
        self._misused = ""

    def line(self, line: str) -> None:
        """Take one line of the job's output; lines that are not events are ignored."""
        if line.startswith(f"{JOB}.py: "):
            self._misused = line
        for event in _events([line]):
            self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "sweep":
            goals = [config.decode(Goal, goal) for goal in event["goals"]]
            self._table = LiveTable(event["title"], event["paths"], goals, event["total"])
            self._table.__enter__()
        table = self._table
        if table is None:
            return
        match event["event"]:
            case "trial":
                table.trial(decode_trial({key: value for key, value in event.items() if key != "event"}))
            case "phase":
                table.phase(event["text"])
            case "message":
                table.message(event["text"], event["style"])
            case "error":
                table.error(event["title"], event["text"])
            case "summary":
                table.close()
                table.summary(event["groups"])

    def close(self) -> None:
        """End the table, which leaves its last state."""
        if self._table is not None:
            self._table.close()

    def code(self, state: str) -> int:
        """The exit code of a job that has ended in that state."""
        if self._misused:
            print(self._misused, file=sys.stderr)
            return MISUSED
        return DONE if state == JobStatus.SUCCEEDED else FAILED


def _events(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith('{"event": '):
            yield parse_json(line)


async def _tail(client: JobSubmissionClient, job: str, take: Callable[[str], None]) -> None:
    rest = ""
    async for chunk in client.tail_job_logs(job):
        *lines, rest = (rest + chunk).split("\n")
        for line in lines:
            take(line)


def _info(client: JobSubmissionClient, job: str) -> Any:
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        raise UsageError(f"there is no job {job} on this cluster") from error


def _ended(client: JobSubmissionClient, job: str) -> str:
    while not (state := client.get_job_status(job)).is_terminal():
        time.sleep(_POLL_S)
    return state
