"""What a user sees of a sweep: a live table on a terminal, elsewhere a line for every change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from imagegen_dist.metric_table import describe
from imagegen_dist.metrics.console import Screen
from imagegen_dist.metrics.formatting import count, duration, value_text
from imagegen_dist.sweep.report import short_names, value_of
from imagegen_dist.sweep.searches import Goal
from imagegen_dist.sweep.trial_store import (
    COMPLETE,
    CUT,
    DIVERGED,
    FAILED,
    REPLACED,
    RUNNING,
    WAITING,
    Trial,
)

_OTHER_LINES = 7  # lines of the screen that are not trials
_STYLES = {RUNNING: "cyan", COMPLETE: "green", DIVERGED: "red", FAILED: "red", CUT: "yellow"}


class LiveTable(Screen):
    """Shows one sweep. Enter it as a context.

    title: name of the sweep. paths: the settings that are searched, a column each. goals: the metrics. total: number of
    trials. file, terminal, width: see Screen. clock: monotonic seconds.
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
        self._labels = short_names(paths)
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
        """Show a trial that has changed; without a terminal as a line, if its state or its metrics have changed."""
        before = self._trials.get(trial.run)
        self._trials[trial.run] = trial
        seen = before is not None and before.state == trial.state and before.figures == trial.figures
        if self._live is None and not seen and trial.state != WAITING:
            self._write(self._line(trial))

    def phase(self, text: str) -> None:
        """Say what the sweep is doing; "" while trials run. Without a terminal each text is written once."""
        if text != self._phase and text and self._live is None:
            self._write(f"· {text}")
        self._phase = text

    def view(self) -> RenderableType:
        """The live table at this moment."""
        states = [trial.state for trial in self._trials.values()]
        over = sum(state not in (WAITING, RUNNING, CUT, REPLACED) for state in states)
        doing = self._phase or f"{over} of {self._total} done, {states.count(RUNNING)} running"
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(no_wrap=True, justify="right")
        head.add_row(Text(self._title, "bold"), Text(f"{doing}  {duration(self._clock() - self._began)}", "dim"))
        return Group(head, Text(""), self._table()) if self._trials else head

    def _table(self) -> RenderableType:
        order = sorted(self._trials.values(), key=lambda t: (t.state != RUNNING, t.score(self._goals), t.number))
        rows = max(3, self._terminal.height - _OTHER_LINES)
        best = min(order, key=lambda trial: trial.score(self._goals))
        table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="dim")
        table.add_column("trial", no_wrap=True)
        for label in [*self._labels.values(), "images", *(describe(goal.metric).words for goal in self._goals)]:
            table.add_column(label, justify="right", no_wrap=True)
        table.add_column("state", ratio=1)  # the one column that may shrink
        for trial in order[:rows]:
            is_best = trial is best and len(self._goals) == 1 and trial.figures
            table.add_row(
                trial.run,
                *(value_of(trial.values.get(path, "")) for path in self._labels),
                count(trial.images),
                *(Text(self._metric(trial, goal), "bold" if is_best else "") for goal in self._goals),
                Text(
                    f"{trial.status}{'  best' if is_best else ''}",
                    _STYLES.get(trial.state, "dim"),
                    no_wrap=True,
                    overflow="ellipsis",
                ),
            )
        if len(order) > rows:
            table.add_row(Text(f"and {len(order) - rows} more", "dim"))
        return table

    def _metric(self, trial: Trial, goal: Goal) -> str:
        return value_text(goal.metric, trial.figures[goal.metric]) if goal.metric in trial.figures else "–"

    def _line(self, trial: Trial) -> str:
        values = "  ".join(f"{label} {value_of(trial.values[path])}" for path, label in self._labels.items())
        metrics = "  ".join(
            f"{describe(goal.metric).words} {self._metric(trial, goal)}" for goal in self._goals if trial.figures
        )
        parts = [f"{trial.run:<8}", values, f"{count(trial.images):>7} images", metrics, trial.status]
        return " " + "   ".join(part for part in parts if part)
