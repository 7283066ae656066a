"""Work that a run does beside its training: one thing at a time, in a thread that nobody waits for before the end."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Does the newest of what it is given, in a thread of its own; what was waiting before it is left out.

    failed: told of each error, by `report_failures` and `drain`, on the thread that calls these.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._changed = threading.Condition()
        self._waiting: Callable[[], object] | None = None
        self._busy = False
        self._failures: list[Exception] = []

    def submit(self, work: Callable[[], object]) -> None:
        """Do this next; returns at once."""
        with self._changed:
            self._waiting = work
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._run, name="background", daemon=True).start()

    def report_failures(self) -> None:
        """Tell of what has failed by now."""
        with self._changed:
            failures, self._failures = self._failures, []
        for failure in failures:
            self._failed(failure)

    def drain(self) -> None:
        """Wait until nothing is left to do, and tell of what has failed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)
        self.report_failures()

    def _run(self) -> None:
        while True:
            with self._changed:
                work, self._waiting = self._waiting, None
                if work is None:
                    self._busy = False
                    self._changed.notify_all()
                    return
            try:
                work()
            except Exception as error:
                with self._changed:
                    self._failures.append(error)
