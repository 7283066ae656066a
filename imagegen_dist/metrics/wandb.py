"""Weights & Biases: a sink that never stops a run, and what it shows besides rows and pictures."""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL import Image

_START_TIMEOUT_S = 30.0
_VIDEO_FORMATS = ("gif", "mp4", "webm")

Cell = float | str | bytes | None
"""Of a table: a number, a text, an encoded picture, or nothing."""


@dataclass(frozen=True)
class Table:
    """Rows under the names of their columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Lines:
    """Curves by their names, as points (x, y); `x` names what they are drawn over."""

    title: str
    x: str
    curves: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Points:
    """Points by their names; `x` and `y` name the axes."""

    title: str
    x: str
    y: str
    points: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Bars:
    """Sizes by their names; `unit` says what they are."""

    title: str
    unit: str
    sizes: Mapping[str, float]


@dataclass(frozen=True)
class Page:
    """A whole HTML page that needs no other file."""

    html: str


Exhibit = Table | Lines | Points | Bars | Page


class WandbSink:
    """Rows and pictures in one W&B run, whose x-axis is `images`; a restart with the same run_id goes on in it.

    project, run_id, run_name, group, job_type: as W&B knows them; run_id follows from the run's name, so that a restart
    finds it.
    config: the resolved experiment, shown beside the run.
    directory: where W&B keeps its files, made if missing.
    mode: "online", "offline" or "disabled"; None and "online" are online where there is a key, else offline.
    api_key_present: whether W&B would find a key.
    warn: told what failed, once. A server that is not reached leads to an offline run, any other failure to no W&B.
    """

    def __init__(
        self,
        project: str,
        run_id: str,
        run_name: str,
        config: Mapping[str, Any],
        directory: Path,
        group: str | None = None,
        mode: str | None = None,
        *,
        job_type: str | None = None,
        api_key_present: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._run: Any = None
        self._directory: Path | None = None

        def start(mode: str) -> None:
            import wandb

            quiet = wandb.Settings(silent=True, console="off", init_timeout=_START_TIMEOUT_S)
            wandb.setup(settings=quiet)
            directory.mkdir(parents=True, exist_ok=True)
            run = wandb.init(
                project=project,
                id=run_id,
                name=run_name,
                config=dict(config),
                dir=str(directory),
                group=group,
                job_type=job_type,
                mode=cast(Any, mode),
                resume="allow",
                reinit="create_new",
                settings=quiet,
            )
            run.define_metric("images")
            run.define_metric("*", step_metric="images")
            self._run = run
            if mode != "disabled":
                self._directory = Path(run.dir).parent

        def start_online_else_offline() -> None:
            try:
                start("online")
            except Exception as error:
                _release()
                start("offline")
                warn(f"Weights & Biases was not reached ({_line(error)}); the run is kept offline, to be synced later")

        if mode not in (None, "online"):
            self._guard("could not start", lambda: start(mode))
        elif api_key_present:
            self._guard("could not start", start_online_else_offline)
        else:
            self._guard("could not start", lambda: start("offline"))

    @property
    def directory(self) -> Path | None:
        """Where this run's W&B files lie, for `wandb sync`; None where it did not start or is disabled."""
        return self._directory

    def log(self, row: Mapping[str, float]) -> None:
        self._attempt("could not log", lambda: self._run.log(dict(row)))

    def picture(self, name: str, data: bytes, extension: str, images: int) -> None:
        def show() -> None:
            import wandb

            if extension in _VIDEO_FORMATS:
                media: Any = wandb.Video(io.BytesIO(data), format=extension)
            else:
                with Image.open(io.BytesIO(data)) as picture:
                    media = wandb.Image(picture)
            self._run.log({f"samples/{name}": media, "images": images})

        self._attempt("could not log a picture", show)

    def show(self, exhibits: Mapping[str, Exhibit], images: int) -> None:
        """Show these, by their names, beside the rows."""

        def show() -> None:
            self._run.log({**{name: _media(exhibit) for name, exhibit in exhibits.items()}, "images": images})

        self._attempt("could not log a table or a plot", show)

    def summarize(self, values: Mapping[str, float | str]) -> None:
        """Set what W&B's list of runs has in this run's line."""
        self._attempt("could not log", lambda: self._run.summary.update(dict(values)))

    def flush(self) -> None:
        """W&B's own process writes and sends as it goes."""

    def close(self) -> None:
        self._attempt("could not finish", lambda: self._run.finish())
        self._run = None

    def _attempt(self, failure: str, action: Callable[[], None]) -> None:
        if self._run is not None:
            self._guard(failure, action)

    def _guard(self, failure: str, action: Callable[[], None]) -> None:
        """Call into W&B; the first failure is reported and gives W&B up."""
        try:
            action()
        except Exception as error:
            self._run = None
            _release()
            self._warn(f"Weights & Biases {failure} ({_line(error)}); the run goes on without it")


def _media(exhibit: Exhibit) -> Any:
    """The exhibit as W&B has it."""
    import wandb

    match exhibit:
        case Table(columns, rows):
            data = [[_cell(value) for value in row] for row in rows]
            return wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)
        case Lines(title, x, curves):
            xs, ys = ([[point[axis] for point in points] for points in curves.values()] for axis in (0, 1))
            return wandb.plot.line_series(xs, ys, list(curves), title, x)
        case Points(title, x, y, points):
            data = [[name, *point] for name, point in points.items()]
            return wandb.plot.scatter(wandb.Table(columns=["name", x, y], data=data), x, y, title)
        case Bars(title, unit, sizes):
            data = [list(pair) for pair in sizes.items()]
            return wandb.plot.bar(wandb.Table(columns=["name", unit], data=data), "name", unit, title)
        case Page(html):
            return wandb.Html(html, inject=False)


def _cell(value: Cell) -> Any:
    import wandb

    if not isinstance(value, bytes):
        return value
    with Image.open(io.BytesIO(value)) as picture:
        return wandb.Image(picture)


def _release() -> None:
    """End W&B's own process, which else keeps the run's id in use: a restart in this process would be refused."""
    with suppress(Exception):
        import wandb

        wandb.teardown()


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
