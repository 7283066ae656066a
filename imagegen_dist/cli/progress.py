"""How far a job is, on standard error: a bar where that is a terminal, elsewhere a line now and then."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from imagegen_dist.metrics.formatting import count, duration
from imagegen_dist.tasks import ShowProgress

_FIRST_LINE_S = 4.0
"""Seconds of silence without a terminal before the first line says what is being done."""

_LINE_EACH_S = 20.0
"""Seconds between lines after that."""


class ProgressBar:
    """Pictures (or shards) done, how many a second, and the time left. Enter it as a context.

    doing: what is done to them. It writes past what others do with standard error: Ray's messages are kept off it while
    it starts. clock: seconds from any moment on.
    """

    def __init__(self, doing: str = "packing", clock: Callable[[], float] = time.monotonic) -> None:
        self._doing, self._clock = doing, clock
        self._shown: Progress | None = None
        self._total = self._done = self._new = 0
        self._began = self._phase_began = self._said_at = clock()
        self._phase = "looking at what there is"
        self._ended = threading.Event()
        self._teller = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._screen = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace")
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Pace(),
                TimeRemainingColumn(),
            )
            self._shown = Progress(
                *columns,
                console=Console(file=self._screen),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._shown.add_task(self._phase, total=None)
            self._shown.start()
        else:
            self._teller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is not None:
            self._shown.stop()
            self._screen.close()
        else:
            self._ended.set()
            self._teller.join()

    def start(self, total: int, done: int, phase: str) -> None:
        """So many in all, and some done; `phase` until the first of the rest is."""
        self._total, self._done, self._new = total, done, 0
        self._phase = phase
        self._began = self._phase_began = self._said_at = self._clock()
        if self._shown is not None:
            self._shown.reset(self._task, description=phase, total=total, completed=done)

    def phase(self, text: str) -> None:
        """What is done now, until the next one is."""
        self._phase, self._phase_began, self._new = text, self._clock(), 0
        if self._shown is not None:
            self._shown.update(self._task, description=text)

    def advance(self, done: int) -> None:
        """So many more are done."""
        if not done:
            return
        self._done, self._new = self._done + done, self._new + done
        if self._shown is not None:
            self._shown.update(self._task, description=self._doing, advance=done)
        elif self._clock() - self._said_at >= _LINE_EACH_S:
            self._say()

    def _say(self) -> None:
        """Say how far it is, without a terminal: samples done where some were counted, else how long a phase takes."""
        self._said_at = self._clock()
        if self._new and self._said_at > self._began:
            pace = self._new / (self._said_at - self._began)
            left = duration((self._total - self._done) / pace)
            said = f"{self._doing}: {self._done:,} of {self._total:,}, {count(pace)}/s, {left} left"
        else:
            said = f"{self._phase}: {duration(self._said_at - self._phase_began)}"
        print(said, file=sys.stderr, flush=True)

    def _tell(self) -> None:
        """Say how far it is where nothing has said so for long."""
        pause = _FIRST_LINE_S
        while not self._ended.wait(pause):
            silent = self._clock() - self._said_at
            if silent >= pause:
                self._say()
                silent = 0.0
            pause = _LINE_EACH_S - silent


def packing_of(dataset: str) -> ShowProgress:
    """A display for the packing of a built-in dataset, which is done once."""
    return lambda _: ProgressBar(f"packing {dataset}, once")


class _Pace(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{count(speed)}/s", style="progress.data.speed")
