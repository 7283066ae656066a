"""The events of a sweep as lines of JSON, from which another machine shows its live table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from imagegen_dist.sweep.trial_store import Trial, encode_trial

JSON_EVENTS = "IMAGEGEN_SWEEP_WIRED"
"""Environment variable of a job whose sweep is shown on another machine."""


class JsonEvents:
    """Writes what a LiveTable shows. Enter it as a context. facts: what the table is made from."""

    def __init__(self, facts: dict[str, Any], file: TextIO) -> None:
        self._file = file
        self._sent: dict[str, Trial] = {}
        self._phase = ""
        self._send("sweep", **facts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.flush()

    def trial(self, trial: Trial) -> None:
        """A trial, if it has changed."""
        if self._sent.get(trial.run) != trial:
            self._sent[trial.run] = trial
            self._send("trial", **encode_trial(trial))

    def phase(self, text: str) -> None:
        """What the sweep is doing, if that has changed; "" while trials run."""
        if text != self._phase:
            self._phase = text
            self._send("phase", text=text)

    def message(self, text: str, style: str = "") -> None:
        """A line for the user."""
        self._send("message", text=text, style=style)

    def error(self, title: str, text: str = "") -> None:
        """An error."""
        self._send("error", title=title, text=text)

    def summary(self, groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        """The closing table."""
        self._send("summary", groups=groups)

    def _send(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=self._file, flush=True)
