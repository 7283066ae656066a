"""How far packing is, on standard error where that is a terminal; elsewhere nothing."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from imagegen_dist.metrics.numerals import count


class PackingBar:
    """Pictures done, how many a second, and the time left. Enter it as a context. doing: what is done to them.

    It writes past what others do with standard error: Ray's messages are kept off it while it starts.
    """

    def __init__(self, doing: str = "packing") -> None:
        self._doing = doing
        self._shown: Progress | None = None

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
            self._task = self._shown.add_task("looking at the pictures", total=None)
            self._shown.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is not None:
            self._shown.stop()
            self._screen.close()

    def start(self, total: int, done: int, phase: str) -> None:
        """So many pictures in all, and some done; `phase` until the first of the rest is."""
        if self._shown is not None:
            self._shown.reset(self._task, description=phase, total=total, completed=done)

    def phase(self, text: str) -> None:
        """What is done now, until the next picture is."""
        if self._shown is not None:
            self._shown.update(self._task, description=text)

    def advance(self, pictures: int) -> None:
        """So many more are done."""
        if self._shown is not None and pictures:
            self._shown.update(self._task, description=self._doing, advance=pictures)


class _Pace(ProgressColumn):
    """Pictures a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{count(speed)}/s", style="progress.data.speed")
