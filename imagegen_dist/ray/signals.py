"""What a driver does with SIGTERM and SIGINT: the first asks it to end in good order, a second ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from imagegen_dist.errors import INTERRUPTED, TERMINATED

_CODES = {int(signal.SIGTERM): TERMINATED, int(signal.SIGINT): INTERRUPTED}


class Interruption:
    """Whether the process was asked to end; `code` is then the exit code for it."""

    def __init__(self) -> None:
        self.code: int | None = None

    @property
    def asked(self) -> bool:
        """Whether the process was asked to end."""
        return self.code is not None

    @contextmanager
    def watched(self, at_once: bool = False) -> Iterator[None]:
        """Take the signals for the block. Ray sets handlers of its own when it starts: enter a second block after that.

        at_once: whether the first signal ends the process too, by SystemExit, because there is nothing to save yet.
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
