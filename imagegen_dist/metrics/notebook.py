"""A live view in a notebook: an output of the cell that is replaced, because its text has no cursor that moves up."""

from __future__ import annotations

import importlib
import io
import threading
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console as Terminal
from rich.console import RenderableType

_REFRESH_S = 0.5
_WIDTH = 100
_HTML = "<pre style=\"line-height: normal; font-family: Menlo, 'DejaVu Sans Mono', Consolas, monospace\">{code}</pre>"


def is_notebook(file: TextIO | None) -> bool:
    """True if what is written to a file appears below a notebook's cell."""
    return type(file).__module__.partition(".")[0] == "ipykernel"


class NotebookView:
    """Shows what `view` returns from `start` to `stop`, and draws it anew twice a second.

    transient: remove it at the end, instead of leaving its last state.
    """

    def __init__(self, view: Callable[[], RenderableType], transient: bool = False) -> None:
        self._view = view
        self.transient = transient
        self._handle: Any = None
        self._ended = threading.Event()
        self._painter = threading.Thread(target=self._paint, daemon=True)

    def start(self) -> None:
        """Show it below the cell that runs now."""
        display = importlib.import_module("IPython.display").display
        self._handle = display(self._drawn(), raw=True, display_id=True)
        self._painter.start()

    def stop(self) -> None:
        """Draw it a last time, or remove it. A second call does nothing."""
        if self._handle is None or self._ended.is_set():
            return
        self._ended.set()
        self._painter.join()
        self._handle.update({"text/plain": "", "text/html": ""} if self.transient else self._drawn(), raw=True)

    def _paint(self) -> None:
        while not self._ended.wait(_REFRESH_S):
            self._handle.update(self._drawn(), raw=True)

    def _drawn(self) -> dict[str, str]:
        """The view by media type."""
        drawing = Terminal(file=io.StringIO(), record=True, width=_WIDTH, force_terminal=True, force_jupyter=False)
        drawing.print(self._view())
        html = drawing.export_html(inline_styles=True, code_format=_HTML, clear=False)
        return {"text/plain": drawing.export_text().rstrip(), "text/html": html}
