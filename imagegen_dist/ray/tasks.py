"""Independent tasks on a Ray cluster, or on a Ray that is started on this machine."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from imagegen_dist import extensions
from imagegen_dist.errors import TaskError
from imagegen_dist.ray.environment import set_ray_environment
from imagegen_dist.redirect_output import output_to
from imagegen_dist.tasks import Advance, Result, Work, run_in_process
from imagegen_dist.wording import first_line

_QUEUED_PER_CORE = 2
_REPORT_S = 0.5


def run_tasks(
    function: Callable[..., Result],
    pieces: Sequence[Work],
    workers: int | None = None,
    advance: Advance | None = None,
    gpu: bool = False,
) -> Generator[tuple[int, Result], None, None]:
    """Run a function on every piece as a Ray task of one CPU core; yield (number of the piece, result) as they finish.

    The cluster is that of RAY_ADDRESS, else a Ray of this machine. A single piece runs in this process.

    function: importable by name, with an argument and a result that can be pickled. With `advance` it takes a second
    argument, which it calls with the number of units finished since the last call; they reach `advance` about twice a
    second. workers: tasks at a time, None for all CPU cores. gpu: give each task a GPU of its own if the cluster has
    any. An exception that the function raises is raised unchanged and ends the rest; TaskError if a task dies.
    """
    if len(pieces) < 2:
        yield from run_in_process(function, pieces, workers, advance)
        return
    set_ray_environment()
    import ray  # after the environment that Ray reads when it is imported

    with _connected():
        tally = ray.remote(num_cpus=0)(_Tally).remote() if advance else None
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if gpu else 0
        needs = {"num_cpus": 1, "num_gpus": 1 if gpus else 0}
        remote = ray.remote(**needs, max_retries=3, retry_exceptions=False)(_work)
        slots = workers or _QUEUED_PER_CORE * max(1, gpus or int(resources.get("CPU", 1)))
        queue, running = iter(enumerate(pieces)), dict[Any, int]()
        try:
            while True:
                while len(running) < slots and (following := next(queue, None)):
                    running[remote.remote(function, following[1], tally, extensions.recorded())] = following[0]
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1, timeout=_REPORT_S if advance else None)
                if advance and tally is not None:
                    with suppress(ray.exceptions.RayError):  # the work continues without the tally
                        advance(ray.get(tally.take.remote()))
                for finished in done:
                    yield running.pop(finished), _result(finished)
        finally:
            for unfinished in running:
                ray.cancel(unfinished, force=True)


class _Tally:
    """Counts the units that tasks have finished; an actor."""

    def __init__(self) -> None:
        self._units = 0

    def add(self, units: int) -> None:
        self._units += units

    def take(self) -> int:
        """The units counted since the last call."""
        taken, self._units = self._units, 0
        return taken


def _work(function: Callable[..., Result], piece: Work, tally: Any, modules: Sequence[str]) -> Result:
    """Run one task. modules: what this process imports first."""
    extensions.import_all(modules)
    if tally is None:
        return function(piece)
    unreported, reported_at = 0, time.monotonic()

    def advance(units: int) -> None:
        nonlocal unreported, reported_at
        unreported += units
        if time.monotonic() - reported_at >= _REPORT_S:
            tally.add.remote(unreported)
            unreported, reported_at = 0, time.monotonic()

    result = function(piece, advance)
    tally.add.remote(unreported)
    return result


def _result(finished: Any) -> Any:
    import ray

    try:
        return ray.get(finished)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause or error) from None
    except ray.exceptions.RayError as error:
        raise TaskError(f"a task died ({type(error).__name__}): {first_line(error)}") from error


@contextmanager
def _connected() -> Iterator[None]:
    """Connect to Ray within the block; the messages of its start and end are not shown."""
    from imagegen_dist.ray.cluster import connected

    with ExitStack() as stack:
        with _silence():
            stack.enter_context(connected(show_logs=False))
            logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            yield
        finally:
            with _silence():
                stack.close()


@contextmanager
def _silence() -> Iterator[None]:
    """Discard printed output and logged warnings within the block; errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with output_to(Path(os.devnull)):
            yield
    finally:
        logging.disable(before)
