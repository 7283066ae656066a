"""A lease ensures that one driver at a time trains a run: a small file in the run's directory, renewed by its holder.

It needs only whole files, so that it works on disks and in all object stores. The clocks of machines are not compared:
a new driver watches whether the file changes.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError
from imagegen_dist.storage import Store

FILE = "lease.json"
_RENEW_S = 10.0
_STALE_S = 60.0
"""Seconds for which a lease must be unchanged before it counts as abandoned."""


@dataclass(frozen=True)
class Holder:
    """A driver, as others see it.

    machine: the machine and its process namespace; "" if unknown.
    """

    token: str
    name: str
    machine: str
    pid: int
    started: float
    beat: int = 0

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        pid = os.getpid()
        return cls(secrets.token_hex(8), _name(), _machine(), pid, psutil.Process(pid).create_time())

    @property
    def has_ended(self) -> bool | None:
        """Whether its process has ended; None if this cannot be determined from here."""
        if not self.machine or self.machine != _machine():
            return None
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) > 1
        return True


class Lease:
    """The right to train a run. Take it with `acquire`, and enter it as a context during training.

    lost: set when another driver, which took the lease for abandoned, holds it: this one must end immediately.
    """

    def __init__(
        self,
        run: Store,
        renew_s: float = _RENEW_S,
        stale_s: float = _STALE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.lost = threading.Event()
        self._run = run
        self._renew_s = renew_s
        self._stale_s = stale_s
        self._clock = clock
        self._sleep = sleep
        self._holder = Holder.here()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, tell: Callable[[str], None]) -> None:
        """Take the lease, or raise UsageError if another driver holds it. `tell` takes the reason for a delay."""
        self.check_free(tell)
        self._write()

    def check_free(self, tell: Callable[[str], None]) -> None:
        """Raise UsageError if a driver holds the lease; it is not taken. `tell` takes the reason for a delay."""
        found = holder_of(self._run)
        if found is not None:
            self._check_abandoned(found, tell)

    def confirm(self) -> None:
        """Shortly after `acquire`, raise UsageError if another driver took the lease at the same time."""
        found = holder_of(self._run)
        if found is not None and found.token != self._holder.token:
            raise _refusal(self._run, found)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=self._renew_s)
        with suppress(OSError):
            found = holder_of(self._run)
            if found is not None and found.token == self._holder.token:
                self._run.remove(FILE)

    def _check_abandoned(self, found: Holder, tell: Callable[[str], None]) -> None:
        """Return when the holder has ended or does not renew the file; otherwise raise UsageError."""
        if found.has_ended is False:
            raise _refusal(self._run, found)
        if found.has_ended:
            return
        tell(f"{found.name} was training this run: watching for {self._stale_s:.0f} s whether it still does")
        until = self._clock() + self._stale_s
        while self._clock() < until:
            self._sleep(self._renew_s / 4)
            now = holder_of(self._run)
            if now is None:
                return
            if now != found:
                raise _refusal(self._run, now)

    def _keep(self) -> None:
        while not self._ended.wait(self._renew_s):
            with suppress(OSError):  # another driver cannot take the lease while the storage is unavailable
                found = holder_of(self._run)
                if found is not None and found.token != self._holder.token:
                    self.lost.set()
                    return
                self._write()

    def _write(self) -> None:
        self._holder = Holder(**{**asdict(self._holder), "beat": self._holder.beat + 1})
        self._run.write(FILE, json.dumps(asdict(self._holder), indent=1).encode())


def holder_of(run: Store) -> Holder | None:
    """Who holds the lease of a run; None if nobody does, or if the file is of another kind. Raises StorageError."""
    try:
        return Holder(**parse_json(run.read(FILE)))
    except (FileNotFoundError, ValueError, TypeError) as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise
        return None


def _refusal(run: Store, holder: Holder) -> UsageError:
    return UsageError(f"{run.url} is being trained by {holder.name}: wait for it, stop it, or choose another --run")


def _name() -> str:
    """The id of the Ray job, or else the process and its host."""
    job: dict[str, Any] = parse_json(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("metadata", {})
    submitted = job.get("job_submission_id")
    return f"job {submitted}" if submitted else f"process {os.getpid()} on {socket.gethostname()}"


def _machine() -> str:
    """The current boot of this machine and the namespace of its process ids; "" if the system has neither."""
    with suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"
    return ""
