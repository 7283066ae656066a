"""Read a source once for what its pictures are by their bytes, side by side where that takes long."""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np

from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.data.contents import Contents, join_contents, read_contents
from imagegen_dist.data.sources.base import Source
from imagegen_dist.ray.tasks import run_tasks
from imagegen_dist.storage import Store

_CHUNK = 5_000  # records of a task
_FIRST = 100  # by which the pace is measured
_IN_PROCESS_S = 10.0  # of work, up to which Ray's start would not pay


def contents_of(source: Source, workers: int | None) -> Contents:
    """The digests and labels of all records. workers: tasks at once; 0: this process. Raises what reading raises."""
    with ProgressBar("looking for copies") as bar:
        bar.start(source.count, 0, "looking for copies")
        began, first = time.monotonic(), min(_FIRST, source.count)
        parts = {-1: read_contents(source.select(np.arange(first)), bar.advance)}
        left = (time.monotonic() - began) / first * (source.count - first)
        chunks = -(-(source.count - first) // _CHUNK)
        pieces = (
            [source.select(rows) for rows in np.array_split(np.arange(first, source.count), chunks)] if chunks else []
        )
        parallel = workers != 0 and Store(source.place).protocol != "memory" and left > _IN_PROCESS_S
        with closing(run_tasks(read_contents, pieces, parallel, workers, bar.advance)) as results:
            parts.update(results)
    return join_contents([parts[number] for number in sorted(parts)])
