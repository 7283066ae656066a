"""What a user sees of a sweep: one live table on a terminal, a line a change elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from imagegen_dist.metric_table import describe
from imagegen_dist.metrics.console import Screen
from imagegen_dist.metrics.formatting import count, duration, value_text
from imagegen_dist.presets.searches import Goal
from imagegen_dist.sweep.report import labels
from imagegen_dist.sweep.trial_store import (
    COMPLETE,
    CUT,
    DIVERGED,
    FAILED,
    REPLACED,
    RUNNING,
    STOPPED,
    WAITING,
    Trial,
)

_AROUND = 7  # lines of the screen that are not trials
_STYLES = {RUNNING: "cyan", COMPLETE: "green", DIVERGED: "red", FAILED: "red", CUT: "yellow"}
_FIRST = (RUNNING, COMPLETE, STOPPED, REPLACED, WAITING, CUT, DIVERGED, FAILED)


class LiveTable(Screen):
    """Shows one sweep. Enter it as a context.

    title: what the sweep is called. paths: of the values, a column each. goals: of the figures. total: of trials.
    file, terminal, width: as Screen has them. clock: seconds, monotonic.
    """

    def __init__(
        self,
        title: str,
        paths: Sequence[str],
        goals: Sequence[Goal],
        total: int,
        file: TextIO | None = None,
        *,
        terminal: bool | None = None,
        width: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(title, file, terminal, width)
        self._labels = dict(zip(paths, labels(paths), strict=True))
        self._goals = goals
        self._total = total
        self._clock = clock
        self._began = clock()
        self._phase = ""
        self._trials: dict[str, Trial] = {}
        if self.is_live:
            self._live = self._live_view(self.view)

    def close(self) -> None:
        """End the live table, which leaves its last state."""
        self._phase = ""
        if self._live is not None:
            self._live.transient = not self._trials
            super().close()

    def trial(self, trial: Trial) -> None:
        """A trial has changed; off a terminal a line, where it has a new state or a new figure."""
        before = self._trials.get(trial.run)
        self._trials[trial.run] = trial
        seen = before is not None and before.state == trial.state and before.figures == trial.figures
        if self._live is None and not seen and trial.state != WAITING:
            self._write(self._line(trial))

    def phase(self, text: str) -> None:
        """What is being done; "" while trials run. Off a terminal each text is written once."""
        if text != self._phase and text and self._live is None:
            self._write(f"· {text}")
        self._phase = text

    def view(self) -> RenderableType:
        """The live table at this moment."""
        states = [trial.state for trial in self._trials.values()]
        over = sum(state not in (WAITING, RUNNING, CUT, REPLACED) for state in states)
        told = self._phase or f"{over} of {self._total} done, {states.count(RUNNING)} running"
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(no_wrap=True, justify="right")
        head.add_row(Text(self._title, "bold"), Text(f"{told}  {duration(self._clock() - self._began)}", "dim"))
        if not self._trials:
            return head
        return Group(head, Text(""), self._table())

    def _table(self) -> RenderableType:
        order = sorted(self._trials.values(), key=lambda t: (_FIRST.index(t.state) > 0, t.score(self._goals), t.number))
        room = max(3, self._terminal.height - _AROUND)
        best = min(order, key=lambda trial: trial.score(self._goals))
        table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="dim")
        table.add_column("trial")
        for label in self._labels.values():
            table.add_column(label, justify="right")
        table.add_column("images", justify="right")
        for goal in self._goals:
            table.add_column(describe(goal.metric).words, justify="right")
        table.add_column("state", no_wrap=True, overflow="ellipsis", ratio=1)
        for trial in order[:room]:
            marked = trial is best and len(self._goals) == 1 and trial.figures
            said = f"{trial.state}: {trial.note}" if trial.note else trial.state
            table.add_row(
                trial.run,
                *(shown(trial.values.get(path, "")) for path in self._labels),
                count(trial.images),
                *(Text(self._figure(trial, goal), "bold" if marked else "") for goal in self._goals),
                Text(f"{said}{'  best' if marked else ''}", _STYLES.get(trial.state, "dim")),
            )
        if len(order) > room:
            table.add_row(Text(f"and {len(order) - room} more", "dim"))
        return table

    def _figure(self, trial: Trial, goal: Goal) -> str:
        return value_text(goal.metric, trial.figures[goal.metric]) if goal.metric in trial.figures else "–"

    def _line(self, trial: Trial) -> str:
        values = "  ".join(f"{label} {shown(trial.values[path])}" for path, label in self._labels.items())
        figures = "  ".join(
            f"{describe(goal.metric).words} {self._figure(trial, goal)}" for goal in self._goals if trial.figures
        )
        said = f"{trial.state}: {trial.note}" if trial.note else trial.state
        parts = [f"{trial.run:<8}", values, f"{count(trial.images):>7} images", figures, said]
        return " " + "   ".join(part for part in parts if part)


def shown(value: Any) -> str:
    """A value as a table has it."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    return str(value)
