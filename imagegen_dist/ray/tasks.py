"""Many independent pieces of work: side by side as Ray tasks, or, where they are few, in this process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from imagegen_dist.errors import TaskError
from imagegen_dist.ray.environment import set_ray_environment
from imagegen_dist.redirect_output import output_to

Work = TypeVar("Work")
Result = TypeVar("Result")

_WAITING_PER_SLOT = 2
_TELL_S = 0.5


def run_tasks(
    function: Callable[..., Result],
    pieces: Sequence[Work],
    parallel: bool = True,
    at_once: int | None = None,
    tell: Callable[[int], None] | None = None,
    gpu: bool = False,
) -> Generator[tuple[int, Result], None, None]:
    """(number of the piece, what the function returned), as pieces finish.

    function: importable by name, with an argument and a result that can be pickled; with `tell` it has a second
    argument, which it calls with the units of work that it has done since, and which reach `tell` about twice a second.
    parallel: by Ray tasks of one CPU core each, on the cluster of RAY_ADDRESS or a Ray of this machine; else, and where
    there is one piece, in order in this process. at_once: tasks side by side, by default as many as there are cores.
    gpu: whether a task gets a GPU of its own, on a cluster that has any.
    An exception that the function raises is raised here, as it is, and ends the rest; TaskError where a task died.
    """
    if not parallel or len(pieces) < 2:
        for number, piece in enumerate(pieces):
            yield number, function(piece, tell) if tell else function(piece)
        return
    set_ray_environment()
    import ray  # after the environment that Ray reads when it is imported

    with _connected():
        tally = ray.remote(num_cpus=0)(_Tally).remote() if tell else None
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if gpu else 0
        needs = {"num_cpus": 1, "num_gpus": 1 if gpus else 0}
        remote = ray.remote(**needs, max_retries=3, retry_exceptions=False)(_work)
        slots = at_once or _WAITING_PER_SLOT * max(1, gpus or int(resources.get("CPU", 1)))
        queue, running = iter(enumerate(pieces)), dict[Any, int]()
        try:
            while True:
                while len(running) < slots and (following := next(queue, None)):
                    running[remote.remote(function, following[1], tally)] = following[0]
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1, timeout=_TELL_S if tell else None)
                if tell and tally is not None:
                    with suppress(ray.exceptions.RayError):  # without the tally the work still goes on
                        tell(ray.get(tally.take.remote()))
                for finished in done:
                    yield running.pop(finished), _result(finished)
        finally:
            for unfinished in running:
                ray.cancel(unfinished, force=True)


class _Tally:
    """Units of work that tasks have done; an actor."""

    def __init__(self) -> None:
        self._units = 0

    def add(self, units: int) -> None:
        self._units += units

    def take(self) -> int:
        """Those since the last call."""
        taken, self._units = self._units, 0
        return taken


def _work(function: Callable[..., Result], piece: Work, tally: Any) -> Result:
    """One task."""
    if tally is None:
        return function(piece)
    waiting, told = 0, time.monotonic()

    def tell(units: int) -> None:
        nonlocal waiting, told
        waiting += units
        if time.monotonic() - told >= _TELL_S:
            tally.add.remote(waiting)
            waiting, told = 0, time.monotonic()

    result = function(piece, tell)
    tally.add.remote(waiting)
    return result


def _result(finished: Any) -> Any:
    import ray

    try:
        return ray.get(finished)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause or error) from None
    except ray.exceptions.RayError as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise TaskError(f"a task died ({type(error).__name__}): {line}") from error


@contextmanager
def _connected() -> Iterator[None]:
    """A connection to Ray for the block; what Ray says when it starts and ends is kept off the screen."""
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
    """What is printed in the block is lost, and so are warnings that are logged; errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with output_to(Path(os.devnull)):
            yield
    finally:
        logging.disable(before)
