"""Weights & Biases: a sink that never stops a run, and what it shows besides rows and pictures."""

import io
import shlex
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL import Image

from imagegen_dist.drawing.animation import as_video, is_film
from imagegen_dist.metric_table import registered
from imagegen_dist.storage import temporary_folder
from imagegen_dist.wording import described

_START_TIMEOUT_S = 30.0
_PROBE_TIMEOUT_S = 5.0
"""Seconds within which the W&B server must answer a first request; otherwise the run starts offline."""
_FINISH_TIMEOUT_S = 60.0
"""Seconds to wait at the end for the upload; the remainder is kept for `wandb sync`."""
_LONGEST_TAG = 64
_SUMMARIZED = ("eval", "loss")
"""Groups whose best values W&B's list of runs shows beside the last: minimum and maximum if no direction is known."""
FOLDERS = "wandb"
"""Subdirectory of a run's files in which W&B makes a directory for each start of the run."""
_MESHES = ("glb",)

Cell = float | str | bytes | None
"""A table cell: a number, a text, an encoded picture, or nothing."""


@dataclass(frozen=True)
class Table:
    """Rows with named columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Lines:
    """Curves by name, as points (x, y); `x` names the x-axis."""

    title: str
    x: str
    curves: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Points:
    """Points by name; `x` and `y` name the axes."""

    title: str
    x: str
    y: str
    points: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Bars:
    """Values by name; `unit` is their unit."""

    title: str
    unit: str
    sizes: Mapping[str, float]


@dataclass(frozen=True)
class Page:
    """A self-contained HTML page."""

    html: str


Exhibit = Table | Lines | Points | Bars | Page


class WandbSink:
    """Rows and pictures in one W&B run, whose x-axis is `images`; a restart with the same run_id continues that run.

    project, run_id, run_name, group, job_type: as in W&B; run_id is derived from the run's name, so that a restart
    finds it.
    config: the resolved experiment, shown with the run.
    directory: where W&B keeps its files, created if missing.
    mode: "online", "offline" or "disabled"; None and "online" are online if there is a key, else offline.
    tags: by which W&B's list of runs can be filtered.
    captions: what pictures show, by name.
    api_key_present: True if W&B would find a key.
    warn: called with a failure, once. An unreachable server leads to an offline run, any other failure disables W&B.
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
        tags: Sequence[str] = (),
        captions: Mapping[str, str] | None = None,
        api_key_present: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._captions = captions or {}
        self._run: Any = None
        self._run_id = run_id
        self._directory: Path | None = None
        self._complete = False
        settings = {
            "project": project,
            "id": run_id,
            "name": run_name,
            "config": dict(config),
            "dir": str(directory),
            "group": group,
            "job_type": job_type,
            "tags": list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags if tag)) or None,
        }
        if mode is None:
            mode = "online" if api_key_present else "offline"
        elif mode == "online" and not api_key_present:
            mode = "offline"
        self._guard("could not start", lambda: self._start(mode, settings))

    def _start(self, mode: str, settings: Mapping[str, Any]) -> None:
        """Start the W&B run; offline, with a warning, if the server cannot be reached."""
        try:
            self._run = _start_run(mode, settings)
        except Exception as error:
            if mode != "online":
                raise
            _release()
            self._run, mode = _start_run("offline", settings), "offline"
            self._warn(
                f"Weights & Biases was not reached ({described(error)}); "
                "the run is recorded offline, to be synced later"
            )
        if mode != "disabled":
            self._directory = Path(self._run.dir).parent

    @property
    def directory(self) -> Path | None:
        """The directory of W&B files of this start of the run; None if it did not start or is disabled."""
        return self._directory

    @property
    def sync_command(self) -> str:
        """The command that uploads what W&B's server lacks of the run, once it is closed; empty if nothing is missing.

        Each start of a run has its own directory. Syncing one replaces what W&B has of the run, so that the command
        names all of them, in order.
        """
        if self._directory is None:
            return ""
        return sync_command(self._directory.parent, [self._run_id], () if self._complete else [self._directory])

    def log(self, row: Mapping[str, float]) -> None:
        self._attempt("could not log", lambda: self._run.log(dict(row)))

    def picture(self, name: str, data: bytes, extension: str, images: int) -> None:
        caption = ", ".join(filter(None, (self._captions.get(name), f"after {images:,} images")))

        def show() -> None:
            with temporary_folder("wandb") as folder:
                media = _shown(data, extension, caption, folder)
                self._run.log({f"samples/{name}": media, "images": images})

        self._attempt("could not log a picture", show)

    def show(self, exhibits: Mapping[str, Exhibit], images: int) -> None:
        """Show these, by name, beside the rows."""

        def show() -> None:
            self._run.log({**{name: _media(exhibit) for name, exhibit in exhibits.items()}, "images": images})

        self._attempt("could not log a table or a plot", show)

    def summarize(self, values: Mapping[str, float | str]) -> None:
        """Set this run's values in W&B's list of runs."""
        self._attempt("could not log", lambda: self._run.summary.update(dict(values)))

    def flush(self) -> None:
        """W&B's own process writes and sends continuously."""

    def close(self) -> None:
        def finish() -> None:
            try:
                self._run.finish()
                self._complete = True
            except TimeoutError:
                _release()
                self._warn(
                    f"Weights & Biases had not taken everything {_FINISH_TIMEOUT_S:g} s after the end; "
                    f"`{self.sync_command}` sends the rest"
                )

        self._attempt("could not finish", finish)
        self._run = None

    def _attempt(self, failure: str, action: Callable[[], None]) -> None:
        if self._run is not None:
            self._guard(failure, action)

    def _guard(self, failure: str, action: Callable[[], None]) -> None:
        """Call into W&B; the first failure is reported and disables W&B."""
        try:
            action()
        except Exception as error:
            self._run = None
            _release()
            self._warn(f"Weights & Biases {failure} ({described(error)}); the run continues without it")


def sync_command(directory: Path, run_ids: Sequence[str], unsent: Sequence[Path] = ()) -> str:
    """The command that uploads what W&B's server lacks of some runs; empty if nothing is missing.

    directory: contains the directories of the runs' starts. unsent: those of online starts with incomplete uploads.
    Several runs are sent with everything else that is pending in the directory, in the order of their starts.
    """
    folders = _folders_of_starts(directory, run_ids)
    online = [folder for folder in folders if not folder.name.startswith("offline-")]
    synced = [folder for folder in folders if any(folder.glob("*.wandb.synced"))]
    sent = {*synced, *(folder for folder in online if folder not in unsent)}
    if sent.issuperset(folders):
        return ""
    flags = ["--include-online"] * bool(online) + ["--include-synced"] * bool(synced)
    return shlex.join(["wandb", "sync", *flags, *map(str, folders if len(run_ids) == 1 else [directory])])


def _folders_of_starts(directory: Path, run_ids: Sequence[str]) -> list[Path]:
    """The directories of the runs' starts, earliest first.

    A directory's name is `[offline-]run-YYYYMMDD_HHMMSS-ID[-N]`, where W&B numbers the starts of a run in one second.
    """

    def start(folder: Path) -> tuple[str, int, str]:
        name = folder.name.removeprefix("offline-")
        return name[: len("run-YYYYMMDD_HHMMSS")], len(name), name

    files = [file for run_id in run_ids for file in directory.glob(f"*run-*-{run_id}*/run-{run_id}.wandb")]
    return sorted((file.parent for file in files), key=start)


def _start_run(mode: str, settings: Mapping[str, Any]) -> Any:
    """A W&B run with these arguments of `wandb.init`. Raises ConnectionError if its server does not answer."""
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=_START_TIMEOUT_S,
        finish_timeout=_FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
    )
    server = wandb.setup(settings=quiet).settings
    if mode == "online" and not _answers(server.base_url, server.http_proxy, server.https_proxy):
        raise ConnectionError(f"{server.base_url} did not answer within {_PROBE_TIMEOUT_S:g} s")
    Path(settings["dir"]).mkdir(parents=True, exist_ok=True)
    run = wandb.init(**settings, mode=cast(Any, mode), resume="allow", reinit="create_new", settings=quiet)
    run.define_metric("images")
    for name in _SUMMARIZED:
        run.define_metric(f"{name}/*", step_metric="images", summary="min,max,last")
    for metric in registered():
        if metric.group in _SUMMARIZED and metric.better != "neither":
            best = "min" if metric.better == "lower" else "max"
            run.define_metric(metric.name, step_metric="images", summary=f"{best},last")
    run.define_metric("*", step_metric="images")
    return run


def _answers(url: str, http_proxy: str | None, https_proxy: str | None) -> bool:
    """True if the server answers a request within the time limit, with any status.

    On a separate thread, because Python's time limits do not apply to the lookup of a host name.
    """
    answered = threading.Event()

    def ask() -> None:
        proxies = {"http": http_proxy, "https": https_proxy}
        given = {scheme: proxy for scheme, proxy in proxies.items() if proxy} or None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(given))
        try:
            opener.open(urllib.request.Request(url, method="HEAD"), timeout=_PROBE_TIMEOUT_S).close()
        except urllib.error.HTTPError as error:
            error.close()
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ssl.SSLError):
                return  # the certificate is for W&B to verify, whose settings may accept it
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_TIMEOUT_S)
    return answered.is_set()


def _media(exhibit: Exhibit) -> Any:
    """The exhibit as a W&B object."""
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


def _shown(data: bytes, extension: str, caption: str, folder: Path) -> Any:
    """A picture as a W&B image, a film as a video, a mesh as a 3-D object. folder: for files until they are logged."""
    import wandb

    if extension in _MESHES:
        path = folder / f"mesh.{extension}"
        path.write_bytes(data)
        return wandb.Object3D(str(path), caption=caption)
    if is_film(data):
        video, kind = as_video(data)
        return wandb.Video(io.BytesIO(video), caption=caption, format=cast(Any, kind))
    with Image.open(io.BytesIO(data)) as picture:
        return wandb.Image(picture, caption=caption)


def _cell(value: Cell) -> Any:
    import wandb

    if not isinstance(value, bytes):
        return value
    with Image.open(io.BytesIO(value)) as picture:
        return wandb.Image(picture)


def _release() -> None:
    """End W&B's own process, which would keep the run's id in use and refuse a restart in this process."""
    with suppress(Exception):
        import wandb

        wandb.teardown()
