"""Independent tasks: who runs them and who shows their progress is passed in.

`run_in_process` runs them one after another; `imagegen_dist.ray.tasks.run_tasks` runs them on a Ray cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")

Advance = Callable[[int], None]
"""Takes the number of units (pictures, shards) finished since its last call."""


class TaskRunner(Protocol):
    """Runs a function on every piece of work and yields (number of the piece, result) as pieces finish."""

    def __call__(
        self,
        function: Callable[..., Result],
        pieces: Sequence[Work],
        workers: int | None = None,
        advance: Advance | None = None,
    ) -> Generator[tuple[int, Result], None, None]:
        """workers: tasks at a time, None for all CPU cores. advance: passed to the function as its second argument.

        An exception that the function raises is raised unchanged and ends the rest.
        """


class Progress(Protocol):
    """Shows how much of the work is done."""

    def start(self, total: int, done: int, phase: str) -> None:
        """Begin with `done` of `total` units finished, showing `phase` until the next unit finishes."""

    def advance(self, units: int) -> None:
        """Count more finished units."""


ShowProgress = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress display for an activity, such as "packing"."""


def run_in_process(
    function: Callable[..., Result], pieces: Sequence[Work], workers: int | None = None, advance: Advance | None = None
) -> Generator[tuple[int, Result], None, None]:
    """A `TaskRunner` that runs the pieces in order in this process; `workers` has no effect."""
    for number, piece in enumerate(pieces):
        yield number, function(piece, advance) if advance else function(piece)


@contextmanager
def no_progress(activity: str) -> Iterator[Progress]:
    """A `ShowProgress` that shows nothing."""
    yield _Silent()


class _Silent:
    def start(self, total: int, done: int, phase: str) -> None: ...

    def advance(self, units: int) -> None: ...
