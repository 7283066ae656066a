"""Console output of a running job: a live view on a terminal or in a notebook, one line every few seconds elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from rich.columns import Columns
from rich.console import Console as Terminal
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from imagegen_dist.metric_table import EVALUATION, describe, place_of
from imagegen_dist.metrics.formatting import count, duration, figure, value_text
from imagegen_dist.metrics.notebook import NotebookView, is_notebook
from imagegen_dist.metrics.terminal_picture import terminal_picture
from imagegen_dist.wording import counted

_REFRESH_PER_S = 4
_SETTLED_S = 10.0
_SHORT = {"discriminator": "D", "generator": "G"}
_GROUPS = {"loss": "losses", "eval": "evaluation"}


class Progress:
    """Images seen over time: the fraction done and the remaining time."""

    def __init__(self, total_images: int) -> None:
        self.total_images = total_images
        self.images = 0
        self._anchor: tuple[int, float] | None = None

    def advance(self, images: int, now_s: float) -> None:
        """`images` were seen at time now_s; fewer than before if workers went back to a checkpoint."""
        if self._anchor is None or images < self.images:
            self._anchor = (images, now_s)
        self.images = images

    @property
    def fraction(self) -> float:
        """Fraction of the run that is done, 0 to 1."""
        return min(1.0, self.images / self.total_images) if self.total_images else 1.0

    def left_s(self, now_s: float, images_per_s: float) -> float:
        """Seconds to the end: by the mean speed since the first row, pauses included, or at first by images_per_s."""
        pace = images_per_s
        if self._anchor is not None and now_s - self._anchor[1] >= _SETTLED_S and self.images > self._anchor[0]:
            pace = (self.images - self._anchor[0]) / (now_s - self._anchor[1])
        return (self.total_images - self.images) / pace if pace > 0 else math.inf


class Screen:
    """Persistent lines of plain text: messages, errors, a final summary; on a terminal with a live view below them.

    In a notebook the live view is above them.

    Use as a context; without a terminal this writes the title. file: where to write, by default standard output.
    terminal, width: override what is detected.
    """

    def __init__(
        self, title: str, file: TextIO | None = None, terminal: bool | None = None, width: int | None = None
    ) -> None:
        self._title = title
        self._live: Live | NotebookView | None = None
        self._notebook = is_notebook(file)
        self._terminal = Terminal(
            file=file,
            force_terminal=terminal,
            force_jupyter=False,  # which would render each line as an HTML element
            width=width,
            highlight=False,
            markup=False,
            emoji=False,
        )

    @property
    def is_live(self) -> bool:
        """True if a view can be updated in place."""
        return self._notebook or (self._terminal.is_terminal and not self._terminal.is_dumb_terminal)

    def _live_view(self, view: Callable[[], RenderableType], transient: bool = False) -> Live | NotebookView:
        """A view that is redrawn continuously. It does not capture what others print to standard output.

        transient: remove the view at the end.
        """
        if self._notebook:
            return NotebookView(view, transient)
        return Live(
            console=self._terminal,
            get_renderable=view,
            refresh_per_second=_REFRESH_PER_S,
            transient=transient,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        else:
            self._write(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the live view."""
        if self._live is not None:
            self._live.stop()

    def message(self, text: str, style: str = "") -> None:
        """A persistent line, above a live view."""
        self._write(text, style)

    def error(self, title: str, text: str = "") -> None:
        """An error in one line, with the full text below it, undecorated so that it can be copied."""
        self._write(title, "bold red")
        if text:
            self._write(text.rstrip())

    def summary(
        self, groups: Sequence[tuple[str, Sequence[tuple[str, str]]]], picture: Callable[[], bytes | None] | None = None
    ) -> None:
        """The final table: groups of (name, value). Values are never truncated, and paths never wrapped.

        picture: reads a picture file, which is shown above the table on a terminal that can; an error leaves it out.
        """
        if picture is not None and self._terminal.is_terminal and self._terminal.file is sys.stdout:
            with suppress(Exception):  # of a storage, a file or a terminal: a finished run is not to fail by it
                self._show(picture())
        for title, entries in groups:
            indent = 2 + max((len(name) for name, _ in entries), default=0) + 3
            self._write("")
            self._write(title, "bold")
            for name, value in entries:
                first, *others = value.splitlines() or [""]
                line = Text(f"  {name:<{indent - 2}}", "dim").append(first, "not dim")
                for other in others:
                    line.append("\n" + " " * indent + other, "not dim")
                self._terminal.print(line, soft_wrap=True)
        self._write("")

    def _show(self, data: bytes | None) -> None:
        if data is not None and (shown := terminal_picture(data)) is not None:
            self._write("")
            self._terminal.print(shown)

    def _write(self, text: str, style: str = "") -> None:
        self._terminal.print(Text(text, style), soft_wrap=True)


class Console(Screen):
    """Shows one run: phases, metric rows, messages, a final summary. Enter as a context before the first row.

    total_images: images seen at which the run ends.
    title: the name shown for the run, e.g. "digits · my-run".
    file: where to write, by default standard output.
    terminal, width: override whether `file` is a terminal, and its number of columns.
    clock: seconds, monotonic.
    min_interval_s: without a terminal, minimum time between lines without evaluation metrics.
    """

    def __init__(
        self,
        total_images: int,
        title: str,
        file: TextIO | None = None,
        *,
        terminal: bool | None = None,
        width: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        min_interval_s: float = 3.0,
    ) -> None:
        super().__init__(title, file, terminal, width)
        self._clock = clock
        self._min_interval_s = min_interval_s
        self._progress = Progress(total_images)
        self._figures: dict[str, float] = {}
        self._phase = ("", clock())
        self._phases_written: set[str] = set()
        self._unwritten: Mapping[str, float] | None = None
        self._written_s = -math.inf
        if self.is_live:
            self._live = self._live_view(self._view, transient=True)

    def close(self) -> None:
        """End the live view, leaving its last state if there were rows; without a terminal, write a pending row."""
        if self._live is not None:
            self._phase = ("", self._clock())
            self._live.transient = not self._figures
            super().close()
        elif self._unwritten is not None:
            self._write_row(self._unwritten)

    def phase(self, text: str) -> None:
        """What the job is currently doing, e.g. "starting 2 workers (cpu, gloo)"; "" during training.

        Without a terminal, each text is written only once.
        """
        if text == self._phase[0]:
            return
        self._phase = (text, self._clock())
        if self._live is None and text and text not in self._phases_written:
            self._phases_written.add(text)
            self._write(f"· {text}")

    def row(self, row: Mapping[str, float]) -> None:
        """Take one row of metrics, as sinks do: `images` and slash-grouped names."""
        now_s = self._clock()
        self._progress.advance(int(row["images"]), now_s)
        self._figures = {**self._figures, **row}
        if self._live is not None:
            return
        evaluated = any(name.startswith(EVALUATION) for name in row)
        done = self._progress.images >= self._progress.total_images
        if evaluated or done or now_s - self._written_s >= self._min_interval_s:
            self._write_row(row)
        else:
            self._unwritten = row

    def _write_row(self, row: Mapping[str, float]) -> None:
        """One plain line, with the evaluation metrics of the row, if any."""
        self._unwritten = None
        self._written_s = self._clock()
        total = f"{self._progress.total_images:,}"
        rate = self._figures.get("system/images_per_s", math.nan)
        parts = [
            f"{self._progress.images:>{len(total)},} / {total}  {math.floor(100 * self._progress.fraction):3d} %",
            f"{rate:7,.0f} img/s" if math.isfinite(rate) else f"{'–':>7} img/s",
            f"left {duration(self._progress.left_s(self._written_s, rate)):>7}",
        ]
        losses = _group(self._figures, "loss")
        if losses:
            parts.append("loss " + "  ".join(f"{_SHORT.get(words, words)} {value}" for words, value in losses))
        parts += [f"{words} {value}" for words, value in _group(row, "eval")]
        skipped = _skipped(self._figures)
        if skipped:
            parts.append(f"skipped {skipped:,}")
        self._write(" " + "   ".join(parts))

    def _view(self) -> RenderableType:
        """The live view's current content."""
        text, since_s = self._phase
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(no_wrap=True, overflow="ellipsis", justify="right")
        head.add_row(
            Text(self._title, "bold"), Text(f"{text}  {duration(self._clock() - since_s)}" if text else "", "dim")
        )
        if not self._figures:
            return head
        return Group(head, self._bar(), self._table())

    def _bar(self) -> RenderableType:
        progress, rate = self._progress, self._figures.get("system/images_per_s", math.nan)
        total = progress.total_images
        left_s = progress.left_s(self._clock(), rate)
        pace = f"{rate:,.0f}" if rate >= 10 else figure(rate)
        figures = Text.assemble(
            (f"{math.floor(100 * progress.fraction):3d} %", "bold"),
            f"  {count(progress.images, total):>6} / {count(total)} images",
            f"  {pace:>6} images/s" if math.isfinite(rate) else "",
            "" if progress.fraction >= 1 else f"  {duration(left_s):>6} left",
        )
        line = Table.grid(expand=True, padding=(0, 2))
        line.add_column(ratio=1)
        line.add_column(no_wrap=True, justify="right")
        line.add_row(
            ProgressBar(total=1, completed=progress.fraction, complete_style="cyan", finished_style="green"), figures
        )
        return line

    def _table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for group, title in _GROUPS.items():
            entries = _group(self._figures, group)
            if entries:
                table.add_row(title, _cells(entries))
        waiting = self._figures.get("data/wait_fraction")
        if waiting is not None:
            table.add_row("data", Text(f"{100 * waiting:.1f} % of the time waited for"))
        skipped = _skipped(self._figures)
        if skipped:
            table.add_row(
                "skipped", Text(f"{counted(skipped, 'step')} with a loss or gradient that was not finite", "yellow")
            )
        return table


def _group(figures: Mapping[str, float], group: str) -> list[tuple[str, str]]:
    """(name in words, value) of the metrics directly under `group/`, excluding nested groups; in the table's order."""
    inside = [name for name in figures if name.startswith(f"{group}/") and name.count("/") == 1]
    inside.sort(key=place_of)
    return [(describe(name).words, value_text(name, figures[name])) for name in inside]


def _skipped(figures: Mapping[str, float]) -> int:
    return int(sum(value for name, value in figures.items() if name.endswith("/skipped_steps")))


def _cells(entries: Sequence[tuple[str, str]]) -> Columns:
    """Names and values in equal columns, as many as fit the width; values are padded to keep the layout stable."""
    return Columns(
        [Text.assemble(f"{name} ", (f"{value:<8}", "bold"), no_wrap=True) for name, value in entries],
        padding=(0, 2),
        equal=True,
    )
