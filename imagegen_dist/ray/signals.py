"""SIGTERM and SIGINT: the first requests an orderly end, with a checkpoint; a second one ends the process at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from imagegen_dist.errors import INTERRUPTED, TERMINATED

_CODES = {int(signal.SIGTERM): TERMINATED, int(signal.SIGINT): INTERRUPTED}


class Interruption:
    """A request to end the process; `code` is then the exit code."""

    def __init__(self) -> None:
        self.code: int | None = None

    @property
    def asked(self) -> bool:
        """True if the end was requested."""
        return self.code is not None

    @contextmanager
    def watched(self, at_once: bool = False) -> Iterator[None]:
        """Handle the signals within the block. Ray sets its own handlers at its start: enter a second block after that.

        at_once: the first signal already ends the process, by SystemExit, because there is nothing to save yet.
        """

        def note(number: int, frame: FrameType | None) -> None:
            if self.asked or at_once:
                raise SystemExit(_CODES[number])
            self.code = _CODES[number]

        before = {number: signal.signal(number, note) for number in _CODES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
