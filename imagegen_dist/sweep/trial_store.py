"""The trials of a sweep, stored in trials.json: a sweep continues from this file, and its tables are made from it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError
from imagegen_dist.storage import Store
from imagegen_dist.sweep.searches import Goal

TRIALS_FILE = "trials.json"

WAITING, RUNNING, COMPLETE = "waiting", "running", "complete"
STOPPED = "stopped early"
REPLACED = "replaced"
DIVERGED, FAILED, CUT = "diverged", "failed", "cut short"
"""States. A scheduler ended the trial (stopped early) or continued it from another trial's checkpoint (replaced); its
loss or metric was not finite (diverged); it failed for another reason (failed); the sweep was ended (cut short)."""

_OVER = (COMPLETE, STOPPED, REPLACED, DIVERGED, FAILED)
"""States of trials that are not run again."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep, from the searcher to the report; for a member of a population, one generation of it."""

    number: int
    """Its number in the sweep, from 0."""
    values: dict[str, Any]
    """Its values, by path."""
    state: str = WAITING
    images: int = 0
    """Images seen."""
    figures: dict[str, float] = field(default_factory=dict)
    """Its latest metrics, by their full names."""
    seconds: float = 0.0
    """Seconds for which it has run."""
    generation: int = 0
    """How often a population has changed its values."""
    parent: str = ""
    """Run from whose checkpoint it started; empty for none."""
    start: str = ""
    """URL of that checkpoint."""
    born: int = 0
    """Images seen by that checkpoint."""
    note: str = ""
    """Why it diverged or failed."""

    @property
    def run(self) -> str:
        """Name of its run: 0003, or 0003-g2 after two changes of its values."""
        return f"{self.number:04d}-g{self.generation}" if self.generation else f"{self.number:04d}"

    @property
    def is_over(self) -> bool:
        """True if it is not run again."""
        return self.state in _OVER

    @property
    def status(self) -> str:
        """Its state, with the reason for it."""
        return f"{self.state}: {self.note}" if self.note else self.state

    def score(self, goals: Sequence[Goal]) -> tuple[float, ...]:
        """Its metrics as losses (lower is better); infinite if a metric is missing."""
        return losses_of(self.figures, goals)


def losses_of(figures: Mapping[str, Any], goals: Sequence[Goal]) -> tuple[float, ...]:
    """Metrics as losses (lower is better); infinite if one is missing."""
    return tuple(goal.loss(float(figures[goal.metric])) if goal.metric in figures else math.inf for goal in goals)


class TrialStore:
    """The trials of one sweep by the names of their runs; written to trials.json when a trial changes its state.

    show: called with each trial that has changed.
    """

    def __init__(self, folder: Store, trials: Sequence[Trial] = ()) -> None:
        self._folder = folder
        self._trials = {trial.run: trial for trial in trials}
        self.show: Callable[[Trial], None] = lambda trial: None

    @classmethod
    def read(cls, folder: Store) -> TrialStore:
        """Read trials.json; an empty store if there is none. Raises UsageError if it is damaged."""
        if not folder.exists(TRIALS_FILE):
            return cls(folder)
        try:
            trials = [decode_trial(entry) for entry in parse_json(folder.read(TRIALS_FILE))]
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{folder.url}/{TRIALS_FILE} cannot be read ({error}); restore it, or remove it"
            ) from error
        return cls(folder, trials)

    @property
    def trials(self) -> list[Trial]:
        """All trials, by number and generation."""
        return sorted(self._trials.values(), key=lambda trial: (trial.number, trial.generation))

    def __getitem__(self, run: str) -> Trial:
        return self._trials[run]

    def __contains__(self, run: str) -> bool:
        return run in self._trials

    def latest(self, number: int) -> Trial | None:
        """The latest generation of a trial; None if it has not been created."""
        return max((t for t in self._trials.values() if t.number == number), key=lambda t: t.generation, default=None)

    def put(self, trial: Trial) -> None:
        """Store a trial as it is now, and write the file if its state has changed."""
        before = self._trials.get(trial.run)
        self._trials[trial.run] = trial
        if before is None or before.state != trial.state:
            self.write()
        if before != trial:
            self.show(trial)

    def change(self, run: str, **changes: Any) -> None:
        """Change fields of a trial."""
        self.put(replace(self._trials[run], **changes))

    def write(self) -> None:
        """Write trials.json."""
        data = [encode_trial(trial) for trial in self.trials]
        self._folder.write(TRIALS_FILE, json.dumps(data, indent=1).encode())


def encode_trial(trial: Trial) -> dict[str, Any]:
    """The trial as JSON data; metrics that are not finite are null."""
    figures = {name: value if math.isfinite(value) else None for name, value in trial.figures.items()}
    return {**vars(trial), "figures": figures}


def decode_trial(data: Mapping[str, Any]) -> Trial:
    """The inverse of `encode_trial`. Raises ValueError or TypeError for other data."""
    figures = {name: math.nan if value is None else float(value) for name, value in data["figures"].items()}
    return Trial(**{**data, "figures": figures})
