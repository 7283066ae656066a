"""What a driver does with SIGTERM and SIGINT: the first asks it to end in good order, a second ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from imagegen_dist.launch.train import INTERRUPTED, TERMINATED

_CODES = {int(signal.SIGTERM): TERMINATED, int(signal.SIGINT): INTERRUPTED}


class Interruption:
    """Whether the process was asked to end; `code` is then the exit code for it."""

    def __init__(self) -> None:
        self.code: int | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take the signals for the block, which begins after Ray has set handlers of its own."""
        before = {number: signal.signal(number, self._note) for number in _CODES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.code is not None:
            raise SystemExit(_CODES[number])
        self.code = _CODES[number]
