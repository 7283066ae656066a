"""What became of each trial, kept in trials.json: the sweep goes on from it, and its tables are made of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from imagegen_dist import config
from imagegen_dist.config import ConfigError
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError
from imagegen_dist.presets.searches import Goal
from imagegen_dist.storage import Store

LEDGER = "trials.json"

WAITING, RUNNING, COMPLETE = "waiting", "running", "complete"
STOPPED = "stopped early"
REPLACED = "replaced"
DIVERGED, FAILED, CUT = "diverged", "failed", "cut short"
"""States. A scheduler has ended a trial (stopped early), or let it go on from another's checkpoint (replaced);
it had no finite loss or figure (diverged); it could not go on otherwise (failed); the sweep was ended (cut short)."""

OVER = (COMPLETE, STOPPED, REPLACED, DIVERGED, FAILED)
"""States of trials that are not run again."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep; of a population's member, one generation of it."""

    # Its number in the sweep, from 0.
    number: int
    # Its values, by path.
    values: dict[str, Any]
    state: str = WAITING
    # Images seen.
    images: int = 0
    # Its last figures, by their full names.
    figures: dict[str, float] = field(default_factory=dict)
    # Time that it has run.
    seconds: float = 0.0
    # How often its values were changed on the way.
    generation: int = 0
    # Run of another trial that it began from, with that one's checkpoint; empty for none.
    parent: str = ""
    # URL of that checkpoint.
    start: str = ""
    # Images at which it began.
    born: int = 0
    # Why it ended, where something was wrong.
    note: str = ""

    @property
    def run(self) -> str:
        """Name of its run."""
        return run_name(self.number, self.generation)

    @property
    def is_over(self) -> bool:
        """Whether it is not run again."""
        return self.state in OVER

    def score(self, goals: Sequence[Goal]) -> tuple[float, ...]:
        """Its figures so that less is better; infinite where one is missing."""
        return tuple(
            goal.loss(self.figures[goal.metric]) if goal.metric in self.figures else math.inf for goal in goals
        )


def run_name(number: int, generation: int) -> str:
    """The run of a trial: 0003, or 0003-g2 after two changes of its values."""
    return f"{number:04d}-g{generation}" if generation else f"{number:04d}"


class TrialStore:
    """The trials of one sweep by their runs' names, written at each change of a state.

    show: told of a trial each time it has changed; set it once there is somebody to see it.
    """

    def __init__(self, folder: Store, trials: Sequence[Trial] = ()) -> None:
        self._folder = folder
        self._trials = {trial.run: trial for trial in trials}
        self.show: Callable[[Trial], None] = _nobody

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune keeps a copy beside its own state, which nobody reads."""
        return {"_folder": self._folder, "_trials": self._trials, "show": _nobody}

    @classmethod
    def read(cls, folder: Store) -> TrialStore:
        """The trial store that the directory holds; an empty one where there is none. Raises UsageError."""
        if not folder.exists(LEDGER):
            return cls(folder)
        try:
            trials = [decode_trial(entry) for entry in parse_json(folder.read(LEDGER))]
        except (ValueError, TypeError) as error:
            raise UsageError(f"{folder.url}/{LEDGER} cannot be read ({error}); restore it, or remove it") from error
        return cls(folder, trials)

    @property
    def trials(self) -> list[Trial]:
        """All of them, by number and generation."""
        return sorted(self._trials.values(), key=lambda trial: (trial.number, trial.generation))

    def __getitem__(self, run: str) -> Trial:
        return self._trials[run]

    def __contains__(self, run: str) -> bool:
        return run in self._trials

    def latest(self, number: int) -> Trial | None:
        """The newest generation of a trial, if it was begun."""
        return max((t for t in self._trials.values() if t.number == number), key=lambda t: t.generation, default=None)

    def put(self, trial: Trial) -> None:
        """Take a trial as it is now; the file is written where its state is another than before."""
        before = self._trials.get(trial.run)
        self._trials[trial.run] = trial
        if before is None or before.state != trial.state:
            self.write()
        if before != trial:
            self.show(trial)

    def change(self, run: str, **changes: Any) -> Trial:
        """Change a trial, and return it as it is then."""
        trial = replace(self._trials[run], **changes)
        self.put(trial)
        return trial

    def write(self) -> None:
        """Write trials.json."""
        data = [encode_trial(trial) for trial in self.trials]
        self._folder.write(LEDGER, json.dumps(data, indent=1).encode())


def _nobody(trial: Trial) -> None:
    """Nobody is told."""


def encode_trial(trial: Trial) -> dict[str, Any]:
    """The JSON form; figures that are not finite are null."""
    figures = {name: value if math.isfinite(value) else None for name, value in trial.figures.items()}
    return {**{name: getattr(trial, name) for name in _FIELDS}, "figures": figures}


def decode_trial(data: Mapping[str, Any]) -> Trial:
    """The trial whose JSON form that is. Raises ValueError."""
    unknown = set(data) - set(_FIELDS)
    if unknown:
        raise ConfigError(f"{sorted(unknown)[0]} is not known; {config.nearest(sorted(unknown)[0], _FIELDS)}")
    figures = {name: math.nan if value is None else float(value) for name, value in data["figures"].items()}
    return Trial(**{**data, "figures": figures})


_FIELDS = tuple(Trial.__dataclass_fields__)
