"""Destinations of metrics: the interface, the two sinks that every run has, and one that nobody waits for."""

import io
import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from queue import SimpleQueue
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from imagegen_dist.documents import parse_json
from imagegen_dist.run_folder import METRICS
from imagegen_dist.storage import Store


class Sink(Protocol):
    """Receives metrics and pictures. Rows have `images` (images seen) and slash-grouped names, as `loss/generator`."""

    def log(self, row: Mapping[str, float]) -> None:
        """Write one row of metrics."""

    def picture(self, name: str, data: bytes, extension: str, images: int) -> None:
        """Write an encoded picture, made after `images` images seen; extension without a dot, e.g. "png"."""

    def flush(self) -> None:
        """Make everything written so far durable; called before a checkpoint is published and at the end."""

    def close(self) -> None:
        """Flush and release resources."""


S = TypeVar("S", bound=Sink)


class BackgroundSink(Generic[S]):
    """A sink that a thread of its own opens and writes to, in order, so that only `close` waits for it.

    opened: opens the sink, given a function that takes messages. tell: is told of these, on the thread that uses this
    sink. An error of the sink is raised by a later call.
    """

    def __init__(self, opened: Callable[[Callable[[str], None]], S], tell: Callable[[str], None]) -> None:
        self._messages: SimpleQueue[str] = SimpleQueue()
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, "sink")
        self._sink = self._thread.submit(opened, self._messages.put)
        self._work: deque[Future[None]] = deque()

    @property
    def sink(self) -> S:
        """The sink itself; waits until it is open."""
        return self._sink.result()

    def log(self, row: Mapping[str, float]) -> None:
        self._do(lambda sink: sink.log(row))

    def picture(self, name: str, data: bytes, extension: str, images: int) -> None:
        self._do(lambda sink: sink.picture(name, data, extension, images))

    def flush(self) -> None:
        self._do(lambda sink: sink.flush())

    def close(self) -> None:
        self._do(lambda sink: sink.close())
        self._thread.shutdown()
        self._settle()

    def _do(self, work: Callable[[S], None]) -> None:
        self._settle()
        self._work.append(self._thread.submit(lambda: work(self._sink.result())))

    def _settle(self) -> None:
        """Pass messages on, and raise the error of what has been done."""
        while not self._messages.empty():
            self._tell(self._messages.get())
        while self._work and self._work[0].done():
            self._work.popleft().result()


class JSONLSink:
    """Rows as strict JSON, one per line, in a file of a store; values that are not finite are written as null.

    resume_images: images seen at which the run resumes; later rows are removed first, so that the file becomes equal to
    that of an uninterrupted run. None starts an empty file.
    On a local store, each row is in the file when `log` returns; on another, rows are buffered until `flush`.
    """

    def __init__(self, store: Store, name: str = METRICS, resume_images: int | None = None) -> None:
        self._store = store
        self._name = name
        kept = b"" if resume_images is None else _rows_until(store, name, resume_images)
        store.write(name, kept)
        path = store.local_path(name)
        self._remote = path is None
        self._pending = False
        self._file: BinaryIO
        if path is None:
            self._file = io.BytesIO()
            self._file.write(kept)
        else:
            self._file = path.open("ab")

    def log(self, row: Mapping[str, float]) -> None:
        self._file.write(encode_row(row))
        self._file.flush()
        self._pending = True

    def picture(self, name: str, data: bytes, extension: str, images: int) -> None:
        """Ignored: this file has no pictures."""

    def flush(self) -> None:
        if self._remote and self._pending:
            self._file.seek(0)
            self._store.write(self._name, self._file.read())
            self._pending = False

    def close(self) -> None:
        if not self._file.closed:
            self.flush()
            self._file.close()


class PictureSink:
    """Pictures as files `samples/<name>-<images seen, 12 digits>.<extension>` of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store / "samples"

    def log(self, row: Mapping[str, float]) -> None:
        """Ignored: only pictures are written."""

    def picture(self, name: str, data: bytes, extension: str, images: int) -> None:
        self._store.write(f"{name}-{images:012d}.{extension}", data)

    def flush(self) -> None:
        """Each picture is written immediately."""

    def close(self) -> None:
        """Holds no resources."""


def encode_row(row: Mapping[str, float]) -> bytes:
    """One line of strict JSON, `images` first."""
    figures = {name: value if math.isfinite(value) else None for name, value in row.items() if name != "images"}
    return json.dumps({"images": int(row["images"])} | figures, allow_nan=False).encode() + b"\n"


def read_rows(store: Store, name: str = METRICS) -> list[dict[str, float]]:
    """The rows of a JSONL file, with null read as nan; [] if the file does not exist.

    A last line that was truncated by a crash is ignored. Raises ValueError on any other line that is not a JSON object.
    """
    rows = []
    for _, row in _lines(store, name):
        rows.append({key: math.nan if value is None else value for key, value in row.items()})
    return rows


def read_pictures(store: Store, name: str, limit: int = 12) -> list[tuple[int, bytes, str]]:
    """(images seen, data, extension) of pictures that PictureSink wrote, oldest first.

    If there are more than `limit`, that many are read: the first, the last, and others evenly spaced between them.
    """
    samples = store / "samples"
    found: dict[int, str] = {}
    for entry in samples.names():
        owner, _, images = PurePosixPath(entry).stem.rpartition("-")
        if owner == name and images.isdecimal():
            found[int(images)] = entry
    order = sorted(found)
    if len(order) > limit:
        order = [order[round(i * (len(order) - 1) / max(1, limit - 1))] for i in range(limit)]
    return [(images, samples.read(found[images]), PurePosixPath(found[images]).suffix[1:]) for images in order]


def _rows_until(store: Store, name: str, images: int) -> bytes:
    """The file's original bytes, without rows later than `images` images seen."""
    return b"".join(line + b"\n" for line, row in _lines(store, name) if row["images"] <= images)


def _lines(store: Store, name: str) -> list[tuple[bytes, dict[str, Any]]]:
    """Each line with its decoded row, without a truncated last line."""
    if not store.exists(name):
        return []
    lines = store.read(name).splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            if not isinstance(row, dict) or "images" not in row:
                raise ValueError('it is not a JSON object with "images"')
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"{store.url}/{name}, line {number}: {error}; repair or remove that line") from error
        rows.append((line, row))
    return rows
