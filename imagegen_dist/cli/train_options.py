"""The command line of a training job: a preset, where things are, and overrides by dotted path."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from imagegen_dist import config
from imagegen_dist.cli.flags import check_name, flag, flags_help, meant, parse_flags
from imagegen_dist.commands import name_of
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError
from imagegen_dist.experiment import Experiment
from imagegen_dist.presets import PRESETS, Preset, find_preset
from imagegen_dist.records import CONFIG
from imagegen_dist.resources import Demand, Workers
from imagegen_dist.storage import Store
from imagegen_dist.wording import reason

_KINDS = ("model", "objective", "optim")
"""Groups of settings of which there are several kinds: --model convvae."""

_EXAMPLES = {
    "train_gan": ("objective.gamma 0.1", "optim.generator.lr 2e-4"),
    "train_vae": ("objective.beta 4", "optim.autoencoder.lr 1e-3"),
}


@dataclass(frozen=True)
class Options:
    """Flags that every training job has."""

    preset: Annotated[str, tyro.conf.Positional, flag("PRESET")] = ""
    """A named experiment, see below. Default: the first of them."""
    data: Annotated[str, flag("URL")] = ""
    """Shards with an index.json, or a built-in dataset (digits, stackedmnist, dsprites:5000). Default: the preset's."""
    storage: Annotated[str, flag("URL")] = "runs"
    """Where runs are kept: a folder, s3://..., gs://... Default: runs."""
    run: Annotated[str, flag("NAME")] = ""
    """Name of the run; one that is there already is continued, without PRESET and --config with its own settings.
    Default: PRESET-DATE-TIME."""
    workers: Annotated[str, flag("N|MIN:MAX")] = ""
    """Training workers, elastic as MIN:MAX. Default: one a GPU; without GPUs two."""
    gpus: Annotated[int | None, flag("0|1")] = None
    """GPUs a worker. Default: 1 where the cluster has GPUs now; say 1 where it will only get them."""
    cpus: Annotated[int | None, flag("N")] = None
    """CPU cores a worker, which are its threads. Default: its share of a machine."""
    allow_remote_shards: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False
    """Read shards of an index that says they lie neither below nor beside it, e.g. in another bucket."""
    config: Annotated[str, flag("FILE.json")] = ""
    """Settings as JSON: an experiment, a run's config.json, or {"dotted.path": value}."""
    wandb: Annotated[Literal["auto", "online", "offline", "disabled"], flag("MODE")] = "auto"
    """W&B: auto (online where there is a key, else offline), online, offline or disabled."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False
    """Check everything, show the resolved experiment, train nothing."""


@dataclass(frozen=True)
class Command:
    """A parsed command line: the flags, and the experiment that they resolve to."""

    options: Options
    experiment: Experiment
    workers: Workers | None
    demand: Demand = Demand()


def parse(job: str, arguments: Sequence[str], summary: str) -> Command:
    """Read a training job's arguments. Raises UsageError; --help prints and raises SystemExit(0)."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(help_text(job, summary))
        raise SystemExit(0)
    flags, assignments = split(arguments, Options, next(iter(_presets_of(job).values())))
    options = parse_flags(Options, job, flags)
    try:
        preset, experiment = _begun_from(job, options)
        options = replace(options, preset=preset)
        assignments += [("data.allow_remote_shards", "true")] * options.allow_remote_shards
        experiment = resolve(experiment, options.config, options.data, assignments)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if options.gpus not in (None, 0, 1):
        raise UsageError(f"--gpus {options.gpus}: a worker uses one GPU, or none; give 1 or 0")
    if options.cpus is not None and options.cpus < 1:
        raise UsageError(f"--cpus {options.cpus}: a worker has one core or more")
    workers = Workers.parse(options.workers) if options.workers else None
    return Command(options, experiment, workers, Demand(options.gpus, options.cpus))


def _begun_from(job: str, options: Options) -> tuple[str, Experiment]:
    """(name, experiment) that data and overrides are applied to: the preset that is named, else of the run its own.

    Raises ValueError where the run is another job's, or does not say how it was configured.
    """
    if options.run and not options.preset and not options.config:
        check_name("run", options.run)
        folder = Store(options.storage) / options.run
        if folder.exists(CONFIG):
            return _own_configuration(job, folder)
    named = _read_file(options.config).get("preset") if options.config and not options.preset else ""
    preset = options.preset or str(named or next(iter(_presets_of(job))))
    return preset, _preset(job, preset).experiment


def _own_configuration(job: str, folder: Store) -> tuple[str, Experiment]:
    """(preset, experiment) of the run in a folder, from its config.json. Raises ValueError."""
    try:
        found = parse_json(folder.read(CONFIG))
        trained_by, preset = str(found["job"]), str(found["preset"])
        experiment = config.decode(Experiment, found["experiment"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder.url}/{CONFIG} cannot be read ({type(error).__name__}); restore it, or choose another --run"
        ) from error
    if trained_by != job:
        raise UsageError(f"{folder.url} is trained by {name_of(trained_by)}, and this is {name_of(job)}")
    return preset, experiment


def given_flags(options: Options) -> tuple[str, ...]:
    """The flags of a launch that a run's config.json does not hold, as words, where the user gave them."""
    words: list[str] = []
    for name in ("workers", "gpus", "cpus"):
        if (value := getattr(options, name)) not in ("", None):
            words += [f"--{name}", str(value)]
    return (*words, *(("--wandb", options.wandb) if options.wandb != "auto" else ()))


def resolve(experiment: Experiment, file: str, data: str, assignments: Sequence[tuple[str, str]]) -> Experiment:
    """A preset's experiment with a JSON file, a dataset and overrides by path, in this order. Raises ValueError."""
    if file:
        experiment = _apply_file(experiment, file)
    if data:
        experiment = config.override(experiment, "data.url", data)
    return config.overrides(experiment, assignments)


def help_text(job: str, summary: str) -> str:
    """What --help prints: flags, presets, and how to find every setting."""
    text = flags_help(Options, job, summary)
    listed = "\n".join(f"  {name:<24} {preset.summary}" for name, preset in _presets_of(job).items())
    some = ("training.total-images 400000", "training.batch-size 128")
    examples = "\n".join(f"  --{example}" for example in (*_EXAMPLES[job], *some))
    return (
        f"{text}\n\npresets\n{listed}\n\nany setting of the experiment, by dotted path\n{examples}\n"
        f"  all of them with their values: {name_of(job)} PRESET --dry-run"
    )


def _presets_of(job: str) -> dict[str, Preset]:
    return {name: preset for name, preset in PRESETS.items() if preset.job == job}


def _preset(job: str, name: str) -> Preset:
    """The preset of that name. Raises ValueError where there is none, or where it is another job's."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}; {config.nearest(name, _presets_of(job))}")
    preset = find_preset(name)
    if preset.job != job:
        has = ", ".join(_presets_of(job))
        raise UsageError(f"{name} is trained by {name_of(preset.job)}; {name_of(job)} has {has}")
    return preset


def split(words: Sequence[str], options: type, preset: Preset) -> tuple[list[str], list[tuple[str, str]]]:
    """The words for the flags of `options`, and the pairs of dotted path and text of the overrides. Raises UsageError.

    preset: one whose settings are named where a word is no flag.
    """
    known = [field.name.replace("_", "-") for field in fields(options)][1:]  # the first one is positional
    settings = [name.replace("_", "-") for name in config.paths(preset.experiment)]
    flags: list[str] = []
    assignments: list[tuple[str, str]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        path, given, value = word.removeprefix("--").partition("=")
        path = path.replace("_", "-")
        if not word.startswith("--") or path in known:
            flags.append(word)
        elif "." not in path and path not in _KINDS:
            raise UsageError(f"--{path}: no such flag; {meant(path, known, settings)}")
        elif given or (rest and not rest[0].startswith("--")):
            values = [value if given else rest.pop(0)]
            while not given and rest and path in _LISTS and not rest[0].startswith("--") and rest[0] not in PRESETS:
                values.append(rest.pop(0))
            if not given and rest and _NUMBER.fullmatch(rest[0]):
                raise UsageError(f"--{path} takes one value, and {rest[0]} follows {values[-1]}")
            assignments.append((path, _list(values)))
        else:
            raise UsageError(f"--{path} needs a value")
    return flags, assignments


def _list(values: Sequence[str]) -> str:
    """Items of a list that were given as words of their own, with or without commas, as one text."""
    if len(values) == 1:
        return values[0]
    return ",".join(value.strip(", ") for value in values if value.strip(", "))


_NUMBER = re.compile(r"-?[\d.,]+(e-?\d+)?")

_LISTS = frozenset(
    path.replace("_", "-")
    for preset in PRESETS.values()
    for path, value in config.paths(preset.experiment).items()
    if isinstance(value, tuple)
)
"""Paths of settings that hold several values, of which a command line may have each as a word of its own."""


def _apply_file(experiment: Experiment, name: str) -> Experiment:
    """The experiment with the settings of a JSON file: dotted paths, an experiment, or a run's config.json."""
    data = _read_file(name)
    data = data.get("experiment", data)
    if not isinstance(data, dict):
        raise UsageError(f"--config {name}: its experiment has to be one JSON object")
    try:
        return config.decode(Experiment, data) if "kind" in data else config.overrides(experiment, _flatten(data))
    except RecursionError as error:
        raise UsageError(f"--config {name}: {reason(error)}") from None


def _read_file(name: str) -> dict[str, Any]:
    """The JSON object in a file of settings. Raises UsageError."""
    try:
        data = parse_json(Path(name).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--config {name}: {reason(error)}") from error
    if not isinstance(data, dict):
        raise UsageError(f"--config {name}: it has to hold one JSON object")
    return data


def _flatten(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in data.items():
        if isinstance(value, dict) and "kind" not in value and not {"start", "end"} <= value.keys():
            found += _flatten(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def describe(experiment: Experiment) -> str:
    """Every setting with its value, one a line, as it would be written on the command line."""
    lines = []
    for path, value in config.paths(experiment).items():
        text = json.dumps(config.encode(value)) if isinstance(value, bool | tuple) else str(value)
        lines.append(f"--{path.replace('_', '-')} {text}" if text else f"--{path.replace('_', '-')} ''")
    return textwrap.indent("\n".join(lines), "  ")
