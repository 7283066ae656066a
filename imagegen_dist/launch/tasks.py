"""Many independent pieces of work: side by side as Ray tasks, or, where they are few, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from imagegen_dist.launch.environment import set_ray_environment

Work = TypeVar("Work")
Result = TypeVar("Result")

_WAITING_PER_SLOT = 2


def run_tasks(
    function: Callable[[Work], Result], pieces: Sequence[Work], parallel: bool = True
) -> Iterator[tuple[int, Result]]:
    """(number of the piece, what the function returned), as pieces finish.

    function: importable by name, with an argument and a result that can be pickled. parallel: by Ray tasks of one CPU
    core each, on the cluster of RAY_ADDRESS or a Ray of this machine; else, and where there is one piece, in order in
    this process. An exception that the function raises is raised here, as it is, and ends the rest.
    """
    if not parallel or len(pieces) < 2:
        for number, piece in enumerate(pieces):
            yield number, function(piece)
        return
    set_ray_environment()
    import ray  # after the environment that Ray reads when it is imported

    from imagegen_dist.launch.cluster import connected

    with connected():
        remote = ray.remote(num_cpus=1, max_retries=3, retry_exceptions=False)(function)
        slots = _WAITING_PER_SLOT * max(1, int(ray.cluster_resources().get("CPU", 1)))
        queue, running = iter(enumerate(pieces)), dict[Any, int]()
        while True:
            for number, piece in queue:
                running[remote.remote(piece)] = number
                if len(running) >= slots:
                    break
            if not running:
                return
            (done,), _ = ray.wait(list(running), num_returns=1)
            number = running.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause or error) from None
            yield number, result
