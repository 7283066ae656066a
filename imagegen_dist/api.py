"""Training from Python: `imagegen_dist.train` in a notebook or script, and the run that it returns."""

from __future__ import annotations

import html
import io
import sys
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext, redirect_stderr
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from imagegen_dist import config, records
from imagegen_dist.cli import train_options
from imagegen_dist.cli.device import best_device
from imagegen_dist.cli.existing_run import show_finished
from imagegen_dist.cli.prepare import build_driver, prepare
from imagegen_dist.commands import PYTHON
from imagegen_dist.cpu_threads import torch_threads
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import DONE, TaskError, UsageError
from imagegen_dist.experiment import Experiment
from imagegen_dist.metric_table import EVALUATION
from imagegen_dist.metrics.console import Console
from imagegen_dist.metrics.formatting import FigureLine, figure_lines
from imagegen_dist.metrics.report import data_url, headlines
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.presets import find_preset
from imagegen_dist.presets.preset import job_of
from imagegen_dist.ray.signals import Interruption
from imagegen_dist.resources import Demand, Workers, local_threads, local_workers
from imagegen_dist.run import Outcome, SilentEvents
from imagegen_dist.run_folder import CONFIG, REPORT, RESULT, read_config
from imagegen_dist.storage import Store
from imagegen_dist.storage.lease import Lease

if TYPE_CHECKING:
    from PIL.Image import Image

    from imagegen_dist.cli.prepare import Prepared
    from imagegen_dist.inference import AutoencoderModel, GeneratorModel

_PICTURES = (".png", ".webp")

Settings = Mapping[str, Any]
"""Settings of one group by name, e.g. {"gamma": 0.5}; nested groups as nested mappings, the kind as "kind"."""


class TrainingError(RuntimeError):
    """A training that failed: one line that says why."""


class Curve(NamedTuple):
    """A metric over the course of a run: arrays of equal length."""

    images: NDArray[np.int64]
    values: NDArray[np.float64]


def train(
    preset: str | Experiment | None = None,
    *,
    data: str | Path | None = None,
    storage: str | Path | None = None,
    run: str | None = None,
    workers: int | tuple[int, int] | None = None,
    gpus: int | None = None,
    cpus: int | None = None,
    init_from: str | Path | None = None,
    freeze_d: int | None = None,
    fork_from: str | Path | None = None,
    at: int | None = None,
    wandb: Literal["auto", "online", "offline", "disabled"] = "disabled",
    model: Settings | None = None,
    objective: Settings | None = None,
    optim: Settings | None = None,
    training: Settings | None = None,
    evaluation: Settings | None = None,
    data_settings: Settings | None = None,
) -> Run:
    """Train an experiment, or continue a run, and return the run.

    preset: a named experiment, `package.module:name` of your own, or an `Experiment`; without one, `run` names a run
    that is continued with its own settings. data: URL of shards with an index, or a built-in dataset; by default the
    preset's. storage, run: the run's directory is STORAGE/RUN; by default runs/ and a name by preset and time.
    workers: Ray workers, fixed or (fewest, most); None for one a GPU, or two without GPUs; 0 trains in this process,
    without Ray. gpus, cpus: of each worker, by default an equal share of the machine; PyTorch uses as many threads as
    it has cpus, also in this process, where its own setting is restored afterwards. init_from: a run, a checkpoint, an
    exported folder or another library's weights that the run begins with; freeze_d: first stages of the discriminator
    that keep them. fork_from: a run that this one goes on from, under a new name and with other settings; at: images of
    the checkpoint, None for the newest.
    model ... data_settings: settings that replace the preset's, e.g.
    `objective={"gamma": 0.5}, training={"total_images": 20_000}`.

    The first Ctrl-C ends the training with a checkpoint, after which the same call continues it.
    Raises ValueError in one line for a setting, a dataset or a place that does not fit, before anything is trained;
    TrainingError where the training fails.
    """
    groups = {
        "model": model,
        "objective": objective,
        "optim": optim,
        "training": training,
        "evaluation": evaluation,
        "data": data_settings,
    }
    options = train_options.Options(
        data=_text(data),
        storage=_text(storage) or "runs",
        run=_text(run),
        wandb=wandb,
        init_from=_text(init_from),
        freeze_d=freeze_d,
        fork_from=_text(fork_from),
        at=at,
    )
    number = None if workers is None or workers == 0 else _workers(workers)
    name, job, experiment = _resolved(preset or "", options, groups)
    command = train_options.Command(job, replace(options, preset=name), experiment, number, Demand(gpus, cpus))
    return _train(command, here=workers == 0)


def _text(given: str | Path | None) -> str:
    """An argument as a flag has it: "" for None, which stands for an argument that is left out."""
    return "" if given is None else str(given)


def _train(command: train_options.Command, here: bool) -> Run:
    """Check and train. here: in this process, without Ray."""
    prepared = prepare(command)
    prepared = replace(prepared, settings=replace(prepared.settings, programs=PYTHON))
    screen = _screen()
    for note in prepared.notes:
        print(f"note: {note}", file=screen or sys.stderr)
    print(prepared.opening, file=screen or sys.stdout, flush=True)
    if prepared.standing.finished:
        show_finished(prepared.settings, screen)
    elif here:
        _train_here(prepared, screen or sys.stdout)
    else:
        _train_on_ray(prepared, screen)
    return Run(prepared.settings.folder)


class Run:
    """A run in its directory, while it trains and afterwards: metrics, pictures and the model.

    Everything is read from the directory when it is accessed, so that a training in another process can be followed.
    """

    def __init__(self, url: str | Path | Store) -> None:
        """url: the run's directory, a path or any URL that fsspec opens. Raises ValueError where there is no run."""
        self.folder = url if isinstance(url, Store) else Store(url)
        """The run's directory."""
        self.config: Mapping[str, Any] = read_config(self.folder)
        """What config.json holds: the resolved experiment, its data, versions, the commit."""

    @property
    def url(self) -> str:
        """The run's directory."""
        return self.folder.url

    @property
    def name(self) -> str:
        """The run's name."""
        return PurePosixPath(self.url).name

    @property
    def result(self) -> dict[str, Any]:
        """What result.json holds: figures by plain names, images, seconds, paths. Empty until the run has ended."""
        found: dict[str, Any] = parse_json(self.folder.read(RESULT)) if self.folder.exists(RESULT) else {}
        return found

    @property
    def rows(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl in the order in which they were written."""
        return read_rows(self.folder)

    @property
    def metrics(self) -> dict[str, Curve]:
        """Every metric by its name, with the images seen at each value: `run.metrics["eval/frechet"].values`."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.rows:
            for name, value in row.items():
                if name != "images" and value is not None:
                    found.setdefault(name, []).append((int(row["images"]), value))
        return {
            name: Curve(np.array([at for at, _ in points], np.int64), np.array([value for _, value in points]))
            for name, points in found.items()
        }

    @property
    def pictures(self) -> dict[str, Image]:
        """The newest picture or film of each kind (grid, reconstructions, traversals, ...), which a notebook shows."""
        from PIL import Image

        return {name: Image.open(io.BytesIO(data)) for name, (data, _) in self._pictures().items()}

    @property
    def report(self) -> str:
        """URL of the report, an HTML page."""
        return f"{self.url}/{REPORT}"

    @cached_property
    def model(self) -> GeneratorModel | AutoencoderModel:
        """The model of the newest checkpoint, on the CPU: `run.model.sample(16)`."""
        from imagegen_dist.inference import load

        return load(self.url)

    def __repr__(self) -> str:
        figures = ", ".join(f"{line.label} {line.value}" for line in headlines(self._figures()))
        images = max((row["images"] for row in self.rows), default=0)
        return f"<Run {self.url}: {images:,.0f} images{', ' if figures else ''}{figures}>"

    def _repr_html_(self) -> str:
        """The run as a notebook shows it: figures, the newest grid, the way to the report."""
        cells = "".join(
            f"<tr><td>{html.escape(line.label)}</td><td>{html.escape(line.full_value)}</td></tr>"
            for line in self._figures()
        )
        pictures = self._pictures()
        shown = next((pictures[name] for name in ("grid", "prior", *pictures) if name in pictures), None)
        image = ""
        if shown is not None:
            style = "max-width: 100%; min-width: min(480px, 100%)"
            image = f'<img alt="samples" style="{style}" src="{data_url(*shown)}">'
        place = html.escape(self.url)
        return f"<div><p><b>{html.escape(self.name)}</b> · <code>{place}</code></p><table>{cells}</table>{image}</div>"

    def _pictures(self) -> dict[str, tuple[bytes, str]]:
        """(data, extension) of the newest picture of each kind."""
        folder = self.folder / "samples"
        newest: dict[str, str] = {}
        for entry in sorted(folder.names()):
            path = PurePosixPath(entry)
            if path.suffix in _PICTURES:
                newest[path.name.rpartition("-")[0]] = entry
        return {name: (folder.read(entry), PurePosixPath(entry).suffix[1:]) for name, entry in newest.items()}

    def _figures(self) -> list[FigureLine]:
        """The last evaluation's figures, in the order of the metric table."""
        values = records.last_values(self.rows, EVALUATION)
        return figure_lines({EVALUATION + name: value for name, value in values.items()})


def _assignments(groups: Mapping[str, Settings | None]) -> list[tuple[str, Any]]:
    """(dotted path, value) of the settings of groups; kinds first, since they decide what other settings there are."""
    pairs = config.flatten({name: settings for name, settings in groups.items() if settings})
    kinds_first = sorted(pairs, key=lambda pair: (not pair[0].endswith(".kind"), pair[0].count(".")))
    return [(path.removesuffix(".kind"), value) for path, value in kinds_first]


def _resolved(
    preset: str | Experiment, options: train_options.Options, groups: Mapping[str, Settings | None]
) -> tuple[str, str, Experiment]:
    """(name, job, experiment) of the arguments of `train`. Raises ValueError."""
    train_options.check_beginning(replace(options, preset="" if preset == "" else "the preset"))
    name, job, experiment = _begun_from(preset, options)
    assignments = [("data.url", options.data)] * bool(options.data) + _assignments(groups)
    if options.freeze_d is not None:
        assignments.append(("training.freeze_d", options.freeze_d))
    return name, job, config.overrides(experiment, assignments)


def _begun_from(preset: str | Experiment, begun: train_options.Options) -> tuple[str, str, Experiment]:
    """(name, job, experiment) that settings are applied to. begun: where the run is, and where it begins."""
    if isinstance(preset, Experiment):
        kind = config.kind(type(preset.objective))
        return kind, job_of(preset), preset
    elsewhere = bool(begun.init_from or begun.fork_from)
    if not preset and not begun.run and not elsewhere:
        raise UsageError('give a preset, e.g. train("digits"), or run="NAME" to continue a run')
    if not preset:
        folder = Store(begun.storage) / begun.run
        if elsewhere and not (begun.run and folder.exists(CONFIG)):
            job, name, experiment = train_options.source_configuration(train_options.ANY, begun)
        else:
            job, name, experiment = train_options.own_configuration(train_options.ANY, folder)
        return name, job, experiment
    named = find_preset(preset)
    return preset, named.job, named.experiment


def _workers(asked: int | tuple[int, int]) -> Workers:
    return Workers.parse(str(asked) if isinstance(asked, int) else ":".join(map(str, asked)))


def _screen() -> TextIO | None:
    """Where a notebook shows text; None where the process's standard output is the screen."""
    return sys.stdout if "ipykernel" in sys.modules else None


def _train_on_ray(prepared: Prepared, screen: TextIO | None) -> None:
    interruption = Interruption()
    with redirect_stderr(io.StringIO()) if screen else nullcontext():  # Ray, when imported, wants more for notebooks
        driver = build_driver(prepared, interruption)
    try:
        code = driver.run(screen)
    except TaskError as error:
        raise TrainingError(str(error)) from error
    if interruption.asked:
        raise KeyboardInterrupt
    if code != DONE:
        raise TrainingError(driver.failure.cause if driver.failure else driver.missing or "the training failed")


def _train_here(prepared: Prepared, screen: TextIO) -> None:
    """Train in this process."""
    from imagegen_dist.distributed import World
    from imagegen_dist.run import execute

    experiment, settings = prepared.experiment, replace(prepared.settings, attempt=records.new_attempt())
    device = best_device()
    interruption, lease = Interruption(), Lease(settings.folder)
    title = f"{settings.preset} · {settings.name}"
    console = Console(experiment.training.total_images, title, screen)
    with ExitStack() as stack:
        lease.acquire(lambda text: print(text, file=screen, flush=True))
        stack.enter_context(console)
        stack.enter_context(lease)
        stack.enter_context(interruption.watched())
        threads = _threads_here(prepared)
        launch = {"workers": [1, 1], "gpu": device.type == "cuda", "threads": threads}
        records.write_config(settings, experiment, prepared.index, launch)
        stack.enter_context(torch_threads(threads))
        outcome = execute(experiment, settings, World(), device, _Events(console, interruption, lease))
    if interruption.asked:
        raise KeyboardInterrupt
    if not outcome.complete:
        raise TrainingError("another process trains this run now: this one has ended")
    _close(console, prepared, outcome)


def _threads_here(prepared: Prepared) -> int:
    """CPU threads of a training in this process: `cpus`, else those of a worker, or fewer if PyTorch has fewer now."""
    import torch

    cpus, microbatches = prepared.command.demand.cpus, prepared.experiment.training.batching.microbatches
    share = local_threads(cpus, local_workers(None, torch.cuda.device_count(), microbatches))
    return share if cpus else min(share, torch.get_num_threads())


def _close(console: Console, prepared: Prepared, outcome: Outcome) -> None:
    settings = prepared.settings
    console.summary(records.closing_table(settings, ""), partial(records.last_picture, settings))
    if outcome.missing:
        raise TrainingError(f"the model is trained and saved; {outcome.missing}; the same call takes them again")


class _Events(SilentEvents):
    """What a training in this process tells its console, and what stops it."""

    def __init__(self, console: Console, interruption: Interruption, lease: Lease) -> None:
        self._console = console
        self._interruption = interruption
        self._lease = lease

    def row(self, row: dict[str, float]) -> None:
        self._console.row(row)

    def message(self, text: str) -> None:
        self._console.message(text)

    def stop_requested(self) -> bool:
        return self.interrupted()

    def interrupted(self) -> bool:
        return self._interruption.asked or self._lease.lost.is_set()
