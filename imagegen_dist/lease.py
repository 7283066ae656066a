"""Who trains a run: one driver at a time, by a small file in the run's directory that its holder keeps renewing.

Nothing is asked of the storage but whole files, so that it holds on a disk and in any object store. No clocks of two
machines are compared: a newcomer looks whether the file changes while it looks.
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
RENEW_S = 10.0
STALE_S = 60.0
"""For how long a newcomer sees a lease unchanged before it counts as left behind."""


@dataclass(frozen=True)
class Holder:
    """A driver, as others see it.

    machine: which one, and which of its process name spaces; "" where it is not known.
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
        """Whether its process is gone; None where this cannot be seen from here."""
        if not self.machine or self.machine != _machine():
            return None
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) > 1
        return True


class Lease:
    """The right to train a run. Take it with `acquire`, enter it as a context while training goes on.

    lost: set when another driver is seen to hold it, which took it for left behind: this one has to end at once.
    """

    def __init__(
        self,
        run: Store,
        renew_s: float = RENEW_S,
        stale_s: float = STALE_S,
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
        """Take the lease, or raise UsageError where another driver holds it; `tell` hears why that takes time."""
        found = holder_of(self._run)
        if found is not None:
            self._see_that_it_is_left(found, tell)
        self._write()

    def confirm(self) -> None:
        """A little after `acquire`: raise UsageError where another driver took it at the same moment."""
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

    def _see_that_it_is_left(self, found: Holder, tell: Callable[[str], None]) -> None:
        """Return once the holder is known to be gone, or not to renew the file; else raise UsageError."""
        if found.has_ended is False:
            raise _refusal(self._run, found)
        if found.has_ended:
            return
        tell(f"{found.name} was training this run: seeing for {self._stale_s:.0f} s whether it still does")
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
            with suppress(OSError):  # a store that is away takes no lease of another driver either
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
    """The Ray job's id where this is one, else the process and its host."""
    job: dict[str, Any] = parse_json(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("metadata", {})
    submitted = job.get("job_submission_id")
    return f"job {submitted}" if submitted else f"process {os.getpid()} on {socket.gethostname()}"


def _machine() -> str:
    """This boot of this machine, and the name space in which process ids are meant; "" where the system has neither."""
    with suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"
    return ""
