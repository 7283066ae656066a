"""The documents in the directory of a run: config.json, result.json, report.html."""

from __future__ import annotations

import json
import secrets
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from imagegen_dist import config
from imagegen_dist.commands import PYTHON, command
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.documents import parse_json
from imagegen_dist.experiment import Experiment
from imagegen_dist.lineage.record import Lineage, described
from imagegen_dist.metric_table import EVALUATION
from imagegen_dist.metrics.chance import chance_warnings
from imagegen_dist.metrics.copying import reading
from imagegen_dist.metrics.formatting import duration, figure_lines
from imagegen_dist.metrics.modes import perfect_kl
from imagegen_dist.metrics.report import Picture, render_report
from imagegen_dist.metrics.sinks import read_pictures, read_rows
from imagegen_dist.run_folder import CONFIG, METRICS, REPORT, RESULT, identity_of, read_config, unreadable_config
from imagegen_dist.settings import changeable
from imagegen_dist.storage import PATIENCE_S, Store
from imagegen_dist.versions import versions
from imagegen_dist.wording import counted

_OF_THE_RUN = ("images", "seconds", "images_per_s", "evaluation", "paths", "lineage")
"""What result.json says beside the figures of the evaluation."""


class ConfigMismatch(ValueError):
    """The directory holds a run with another configuration: one line that names the difference."""


@dataclass(frozen=True)
class RunSettings:
    """The name and the place of a run, and how it was started. It is sent to the workers as JSON."""

    # Name of the run: its directory under the storage URL.
    name: str
    # URL of the directory that holds runs.
    storage: str
    # Name of the preset that it started from.
    preset: str
    # The job that trains it, e.g. "train_gan".
    job: str
    # URL of the training shards.
    data: str
    # URL of held-out shards; empty for none.
    validation: str = ""
    # Distinguishes the attempts of one run; sorts by time.
    attempt: str = "0"
    # W&B project.
    wandb_project: str = "imagegen_dist"
    # "online", "offline", "disabled", or empty: online where there is a key.
    wandb_mode: str = ""
    # Where W&B keeps its files.
    wandb_directory: str = "wandb"
    # Whether a W&B key is available.
    wandb_key: bool = False
    # W&B group, e.g. the sweep that the run is a trial of; empty for none.
    wandb_group: str = ""
    # The values that a sweep gave to the run, by path, which W&B shows separately.
    wandb_values: dict[str, Any] = field(default_factory=dict)
    # URL of the folder for results that runs share, such as statistics of a dataset; empty: a folder beside the runs.
    cache: str = ""
    # URL of a checkpoint of another run, from which this one starts; empty: from new weights.
    start: str = ""
    # The beginning of a run that begins with other weights, or goes on from another run's checkpoint.
    lineage: Lineage | None = None
    # Identity of the run, which its checkpoints carry; empty: they are not told from those of other runs.
    id: str = ""
    # How jobs are called on the user's machine (commands.programs); empty: as they are installed here.
    programs: str = ""
    # Flags that the user gave and config.json does not hold, as words.
    flags: tuple[str, ...] = ()
    # Number of newest checkpoints to keep besides the best, at least two.
    keep: int = 2

    @property
    def folder(self) -> Store:
        """The directory of the run."""
        return Store(self.storage, PATIENCE_S) / self.name

    @property
    def wandb_id(self) -> str:
        """The id of the run in W&B, which depends only on its place, so that a restart finds it."""
        return config.fingerprint([self.storage, self.name])[:16]

    @property
    def shared(self) -> Store:
        """The folder for results that runs share."""
        return Store(self.cache, PATIENCE_S) if self.cache else Store(self.storage, PATIENCE_S) / ".cache"


def identified(settings: RunSettings) -> RunSettings:
    """The settings with the run's identity and beginning: those in its config.json, if it exists.

    A new identity depends only on the run's place; a run that is moved keeps the one that it has.
    """
    folder = settings.folder
    if not folder.exists(CONFIG):
        return replace(settings, id=settings.wandb_id)
    lineage = read_config(folder).get("lineage")
    try:
        known = config.decode(Lineage | None, lineage)
    except ValueError as error:
        raise unreadable_config(folder, error) from error
    return replace(settings, id=identity_of(folder) or settings.wandb_id, lineage=known)


def describe_data(index: DatasetIndex, rows: bool = False) -> dict[str, Any]:
    """The description of a dataset. rows: with the conditions of some samples, as a checkpoint has it."""
    known = index.known_conditions
    conditions = {} if known is None else known.payload()
    if not rows:
        conditions.pop("condition_rows", None)
    return {
        "fingerprint": index.fingerprint,
        "modality": index.modality,
        "shape": config.encode(index.shape),
        "classes": index.classes,
        "class_names": None if index.class_names is None else list(index.class_names),
        "samples": index.samples,
        **({} if index.space is None else {"space": index.space.payload()}),
        **conditions,
    }


def _fixed_part(experiment: Any) -> Any:
    """The JSON form of an experiment without the settings that a resumed run may change."""
    fixed = json.loads(json.dumps(experiment))
    for path in changeable(fixed["objective"].get("kind", "")):
        group, name = path.split(".")
        fixed.get(group, {}).pop(name, None)
    return fixed


def config_hash(experiment: Experiment) -> str:
    """Hash of everything that a resumed run may not change."""
    return config.fingerprint(_fixed_part(config.encode(experiment)))


def document(
    settings: RunSettings, experiment: Experiment, index: DatasetIndex, launch: dict[str, Any]
) -> dict[str, Any]:
    """The content of config.json: the resolved experiment, its data, the launch settings and the versions."""
    return {
        "run": settings.name,
        **({"id": settings.id} if settings.id else {}),
        "preset": settings.preset,
        "job": settings.job,
        **described(settings.lineage),
        "experiment": config.encode(experiment),
        "data": {"url": settings.data, "validation": settings.validation, **describe_data(index)},
        "launch": launch,
        "versions": versions(),
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of the checkout of this package, or None."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def write_config(settings: RunSettings, experiment: Experiment, index: DatasetIndex, launch: dict[str, Any]) -> None:
    """Write config.json, after comparing it with that of an existing run. Raises ConfigMismatch."""
    now = document(settings, experiment, index, launch)
    if settings.folder.exists(CONFIG):
        check_config(settings.folder, now)
    settings.folder.write(CONFIG, json.dumps(now, indent=1).encode())


def check_config(folder: Store, now: dict[str, Any]) -> None:
    """Raise ConfigMismatch if the run in `folder` differs from the document `now` in settings that may not change."""
    before = read_config(folder)
    try:
        # A run of an earlier version lacks the settings that were added since: they have their defaults, as it had.
        experiment = config.encode(config.decode(Experiment, before["experiment"]))
        found = config.differences(_fixed_part(now["experiment"]), _fixed_part(experiment))
        found += config.differences(
            {"fingerprint": now["data"]["fingerprint"]}, {"fingerprint": before["data"]["fingerprint"]}, "data"
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable_config(folder, error) from error
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ConfigMismatch(
            f"{folder.url} holds a run of another configuration: now {found[0]}{more}; choose another --run, "
            "or give --run with neither a preset nor these settings to continue with the run's own; --fork-from RUN "
            "goes on with other settings under a new name"
        )


def last_values(rows: Sequence[dict[str, float]], prefix: str) -> dict[str, float]:
    """The last value of every name that begins with the prefix, by the rest of its name."""
    found: dict[str, float] = {}
    for row in rows:
        found |= {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
    return found


def by_group(values: Mapping[str, float]) -> dict[str, Any]:
    """Figures by plain names; those of one group, "group/name", as a dictionary under the group's name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        group, _, member = name.partition("/")
        if member:
            found.setdefault(group, {})[member] = value
        else:
            found[name] = value
    return found


def ungrouped(figures: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that `by_group` has grouped, by "name" or "group/name"; anything else is left out."""
    found: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{member}": number for member, number in ungrouped(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def latest_picture(folder: Store, *names: str) -> str | None:
    """URL of the newest picture with that name; of several names, of the last that there is."""
    prefixes = tuple(f"{name}-" for name in names)
    found = sorted(entry for entry in (folder / "samples").names() if PurePosixPath(entry).name.startswith(prefixes))
    return f"{folder.url}/samples/{found[-1]}" if found else None


@dataclass(frozen=True)
class RunStatus:
    """How far a run is, and on what it runs."""

    images: int
    """Images seen."""
    seconds: float
    """Seconds since its beginning, earlier attempts included."""
    state: str
    """What it does, in a word or two."""
    device: str
    """What it trains on, in words."""


@dataclass(frozen=True)
class Shown:
    """What the report of a kind of model shows.

    figure: plain name of the main figure. picture: name of the picture that is shown through time; note: what it is of.
    more: pictures that are shown once, with their captions by name. columns: of pictures by name, what each column is.
    """

    figure: str
    picture: str
    note: str
    more: Mapping[str, str]
    columns: Mapping[str, Sequence[str]]


def write_report(
    settings: RunSettings, experiment: Experiment, index: DatasetIndex, status: RunStatus, shown: Shown
) -> None:
    """Write report.html from the files in the run's directory."""
    folder = settings.folder
    rows = read_rows(folder, METRICS)
    speeds = [row["system/images_per_s"] for row in rows if "system/images_per_s" in row]
    total, commit = experiment.training.total_images, git_commit()
    facts = [
        ("images seen", f"{status.images:,} of {total:,}"),
        ("duration", duration(status.seconds)),
        ("images/s", f"{statistics.median(speeds):,.0f}" if speeds else "–"),
        ("trained on", status.device),
        ("date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("preset", settings.preset),
        ("data", f"{PurePosixPath(experiment.data.url).name}: {counted(index.samples, 'sample')} of {index.shape}"),
        *([(settings.lineage.how.replace("-", " "), settings.lineage.summary)] if settings.lineage else []),
        *([("commit", commit[:10])] if commit else []),
        ("configuration", config_hash(experiment)[:10]),
    ]
    pictures = [
        Picture(f"{seen:,} images", data, extension, shown.columns.get(shown.picture, ()))
        for seen, data, extension in read_pictures(folder, shown.picture)
    ]
    last = {name: read_pictures(folder, name)[-1:] for name in shown.more}
    figures = last_values(rows, EVALUATION)
    page = render_report(
        title=settings.name,
        state=status.state,
        facts=facts,
        figures={EVALUATION + name: value for name, value in figures.items()},
        warnings=chance_warnings(figures),
        main_figure=EVALUATION + shown.figure,
        rows=rows,
        pictures=pictures,
        more_pictures=[
            Picture(shown.more[name], data, extension, shown.columns.get(name, ()))
            for name in shown.more
            for _, data, extension in last[name]
        ],
        picture_note=shown.note,
        commands=commands(settings),
        config=json.dumps(config.encode(experiment), indent=1),
    )
    folder.write(REPORT, page.encode())


def is_finished(settings: RunSettings, experiment: Experiment, newest: int) -> bool:
    """True if the run was trained and measured to its end with these very settings, so that nothing is left to do.

    newest: images of its newest checkpoint.
    """
    folder = settings.folder
    try:
        had, result = read_config(folder)["experiment"], parse_json(folder.read(RESULT))
        same = config.encode(config.decode(Experiment, had)) == config.encode(experiment)
        images = int(result["images"])
        missing = bool(result.get("figures_missing"))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return False
    batching = experiment.training.batching
    return same and not missing and images == newest >= experiment.training.steps * batching.batch_size


def log_path(settings: RunSettings) -> Path:
    """The local file for what Ray and other libraries print while the run trains."""
    local = settings.folder.local_path()
    folder = local if local else Path.home() / ".cache" / "imagegen_dist" / "logs" / settings.name
    return folder / "driver.log"


def new_attempt() -> str:
    """The name of an attempt that begins now, as `RunSettings.attempt`."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def resume_command(settings: RunSettings) -> str:
    """The command that continues a run with its own configuration."""
    return _resume(settings)


def _resume(settings: RunSettings, *more: str) -> str:
    if settings.programs == PYTHON:
        return _call(settings)
    storage = () if settings.storage == Store("runs").url else ("--storage", settings.storage)
    words = *storage, "--run", settings.name, *settings.flags, *more
    return command(settings.job, *words, called=settings.programs)


def _call(settings: RunSettings, *more: str) -> str:
    """The call in Python that continues a run."""
    storage = [] if settings.storage == Store("runs").url else [f"storage={settings.storage!r}"]
    return f"imagegen_dist.train({', '.join([f'run={settings.name!r}', *storage, *more])})"


def commands(settings: RunSettings) -> list[tuple[str, str]]:
    """What a user may do next: what for, and the command."""
    module, own, _ = settings.preset.partition(":")
    package = ("--package", module) if own else ()
    last = latest_picture(settings.folder, "grid", "reconstructions")
    suffix = PurePosixPath(last or "").suffix or ".png"  # of clips, a film's
    url, called = settings.folder.url, settings.programs
    if called == PYTHON:
        return [
            ("train longer", _call(settings, "training={'total_images': IMAGES}")),
            ("sample", f"imagegen_dist.load({url!r}).grid('samples{suffix}')"),
            ("export", command("export", url, "exported", "--to", "hf", *package, called="imagegen {}")),
        ]
    return [
        ("train longer", _resume(settings, "--training.total-images", "IMAGES")),
        ("sample", command("sample", url, "--grid", f"samples{suffix}", *package, called=called)),
        ("open", command("serve", url, *package, called=called)),
        ("export", command("export", url, "exported", "--to", "hf", *package, called=called)),
    ]


def closing_table(settings: RunSettings, log: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The last table of a finished run: figures, files, commands to go on with."""
    result = parse_json(settings.folder.read(RESULT))
    paths = {**result["paths"], "log": log}
    figures = [
        ("images", f"{result['images']:,} in {result['seconds']:,.0f} s, {result['images_per_s'] or 0:,.0f} images/s"),
        *_figure_lines(result),
    ]
    files = [(name, path) for name, path in paths.items() if path]
    following = commands(settings)
    if result.get("wandb_sync"):
        following.append(("send to W&B", result["wandb_sync"]))
    return [("Figures", figures), ("Files", files), ("Next steps", following)]


def last_picture(settings: RunSettings) -> bytes | None:
    """The file of a finished run's last picture; None if it has none. Raises StorageError."""
    url = parse_json(settings.folder.read(RESULT))["paths"]["picture"]
    if not url:
        return None
    folder, _, name = url.rpartition("/")
    return Store(folder).read(name)


def _figure_lines(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Evaluation figures with their units, each beside its reference, and what they were measured on."""
    lines = [(line.label, line.full_value) for line in figure_lines(_evaluated(result))]
    if verdict := reading(result):
        lines.append(("verdict", verdict))
    if lines and "evaluation" in result:
        settings = result["evaluation"]
        lines.append(
            ("measured on", counted(settings["samples"], "sample") + _features_of(settings["features"], result))
        )
    return lines


def _features_of(network: str, result: Mapping[str, Any]) -> str:
    """Of what network the features are; "" where data without labels have no classifier."""
    if network != "classifier":
        return f", features of {network}"
    has_classifier = any(name.startswith(("frechet", "classifier", "label_agreement", "modes")) for name in result)
    return ", features of the dataset's own classifier" if has_classifier else ""


def _evaluated(result: Mapping[str, Any]) -> dict[str, float]:
    """The evaluation's figures in result.json by their full names, with the references that its settings give."""
    figures = {name: value for name, value in result.items() if name not in _OF_THE_RUN}
    values = {EVALUATION + name: value for name, value in ungrouped(figures).items()}
    settings = result.get("evaluation", {})
    if "eval/modes" in values and settings.get("classes"):
        values["eval/modes_of_data"] = settings["classes"]
        values["eval/modes_kl_perfect"] = perfect_kl(settings["classes"], settings["samples"])
    return values
