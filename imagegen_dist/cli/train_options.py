"""The command line of a training job: a preset, where things are, and overrides by dotted path."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from imagegen_dist import config, config_docs
from imagegen_dist.cli.catalogue import (
    catalogue,
    described_settings,
    job_of,
    list_settings,
    presets_of,
    settings_of,
)
from imagegen_dist.cli.command import Switch, check_name, flag, flags_help, listing, meant, parse_flags, wrapped
from imagegen_dist.commands import name_of
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError
from imagegen_dist.extensions import import_preset
from imagegen_dist.prediction.gpus import gpu_type
from imagegen_dist.resources import Demand, Workers
from imagegen_dist.run_folder import CONFIG, read_config, unreadable_config
from imagegen_dist.wording import reason

if TYPE_CHECKING:
    from imagegen_dist.experiment import Experiment
    from imagegen_dist.presets import Preset
    from imagegen_dist.storage import Store

_MEANING_AT = 42
"""Column in which a dry run says what a setting means."""
_KINDS = ("model", "objective", "optim")
"""Groups of settings of which there are several kinds: --model convvae."""

ANY = "train"
"""The job that trains every preset: the others train those of one kind."""

_SUMMARIES = {
    ANY: "Train a generative adversarial network (GAN) or a variational autoencoder (VAE).",
    "train_gan": "Train a generative adversarial network.",
    "train_vae": "Train a variational autoencoder.",
}
_KINDS_OF = {"train_gan": "GANs", "train_vae": "VAEs"}
_EXAMPLES = {
    "train_gan": ("objective.gamma 0.1", "optim.generator.lr 2e-4"),
    "train_vae": ("objective.beta 4", "optim.autoencoder.lr 1e-3"),
}


@dataclass(frozen=True)
class Options:
    """Flags that every training job has."""

    preset: Annotated[str, tyro.conf.Positional, flag("PRESET")] = ""
    """A named experiment, see below, or your own, package.module:name. Default: the first of them."""
    data: Annotated[str, flag("URL")] = ""
    """Shards with an index.json, or a built-in dataset (digits, stackedmnist, dsprites:5000). Default: the preset's."""
    storage: Annotated[str, flag("URL")] = "runs"
    """Where runs are kept: a folder, s3://..., gs://... Default: runs."""
    run: Annotated[str, flag("NAME")] = ""
    """Name of the run. An existing run continues; without PRESET and --config it keeps its own settings. Default:
    PRESET-DATE-TIME."""
    init_from: Annotated[str, flag("SOURCE")] = ""
    """Begin with the weights of a run, checkpoint, export or diffusers model; without PRESET, with its settings too."""
    freeze_d: Annotated[int | None, flag("N")] = None
    """The first N stages of the discriminator keep their weights."""
    fork_from: Annotated[str, flag("RUN")] = ""
    """Go on from a run's newest checkpoint under a new name, with its settings or others."""
    at: Annotated[int | None, flag("IMAGES")] = None
    """With --fork-from: from the checkpoint at so many images."""
    workers: Annotated[str, flag("N|MIN:MAX")] = ""
    """Training workers, or MIN:MAX for an elastic number. Default: one per GPU; two without GPUs."""
    gpus: Annotated[int | None, flag("0|1")] = None
    """GPUs per worker. Default: 1 if the cluster has GPUs now; give 1 if it will get them later."""
    cpus: Annotated[int | None, flag("N")] = None
    """CPU cores, and threads, per worker. Default: an equal share of the machine."""
    allow_remote_shards: Switch = False
    """Read shards of an index even if they are neither below nor beside it, e.g. in another bucket."""
    config: Annotated[str, flag("FILE.json")] = ""
    """Settings as JSON: an experiment, a run's config.json, or {"dotted.path": value}."""
    wandb: Annotated[Literal["auto", "online", "offline", "disabled"], flag("MODE")] = "auto"
    """W&B: auto (online with an API key, else offline), online, offline or disabled."""
    dry_run: Switch = False
    """Check everything, show the resolved experiment, and train nothing."""
    gpu_type: Annotated[str, flag("TYPE")] = ""
    """With --dry-run: predict speed, memory and cost on such GPUs (l4, l40s, h100, ...), on any machine and without
    the data."""


@dataclass(frozen=True)
class Command:
    """A parsed command line: the flags, and the experiment that they resolve to."""

    job: str
    options: Options
    experiment: Experiment
    workers: Workers | None
    demand: Demand = Demand()


def parse(job: str, words: Sequence[str], checked: Callable[[Options, Workers | None], None] | None = None) -> Command:
    """Read the words of a training job: train_gan, train_vae, or train for both. Raises ValueError.

    What can be checked without torch is checked before it is imported: a misspelt word is answered at once. checked:
    called in between, with the flags and the workers that they ask for.
    """
    preset = words[0] if words and (words[0] in presets_of(job) or ":" in words[0]) else next(iter(presets_of(job)))
    flags, assignments = split(words, Options, _settings_of(preset))
    options = parse_flags(Options, job, flags)
    if options.gpus not in (None, 0, 1):
        raise UsageError(f"--gpus {options.gpus}: a worker uses one GPU, or none; give 1 or 0")
    if options.cpus is not None and options.cpus < 1:
        raise UsageError(f"--cpus {options.cpus}: a worker has one core or more")
    _check_gpu_type(options)
    check_beginning(options)
    workers = Workers.parse(options.workers) if options.workers else None
    _check_preset(job, options.preset)
    is_default = not (options.preset or options.run or options.init_from or options.fork_from)
    named = next(iter(presets_of(job))) if is_default else options.preset
    if named and not options.config:
        check_assignments(named, assignments)
    if checked:
        checked(options, workers)
    try:
        job, preset, experiment = _begun_from(job, options)
        options = replace(options, preset=preset)
        assignments += [("data.allow_remote_shards", "true")] * options.allow_remote_shards
        if options.freeze_d is not None:
            assignments.append(("training.freeze_d", str(options.freeze_d)))
        experiment = resolve(experiment, options.config, options.data, assignments)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return Command(job, options, experiment, workers, Demand(options.gpus, options.cpus))


def check_beginning(options: Options) -> None:
    """Raise UsageError for flags of a run's beginning that exclude each other."""
    if options.init_from and options.fork_from:
        raise UsageError("--init-from begins with weights alone, --fork-from with the whole state of a run: give one")
    if options.at is not None and not options.fork_from:
        raise UsageError(f"--at {options.at} goes with --fork-from RUN")
    if options.fork_from and options.preset:
        raise UsageError(
            f"--fork-from {options.fork_from} has its run's own settings: leave {options.preset} out, and give the "
            "settings that change"
        )


def _check_gpu_type(options: Options) -> None:
    """Raise UsageError for an unknown GPU type, and for one without --dry-run."""
    if options.gpu_type:
        gpu_type(options.gpu_type)
        if not options.dry_run:
            raise UsageError(f"--gpu-type {options.gpu_type} predicts a training and starts none: add --dry-run")


def _check_preset(job: str, preset: str) -> None:
    """Raise UsageError for a preset that does not exist or that another job trains."""
    known = presets_of(job)
    if not preset or preset in known:
        return
    trained_by = _own_preset(preset).job if ":" in preset else job_of(preset)
    if not trained_by:
        raise UsageError(f"there is no preset {preset!r}; {config.nearest(preset, known)}")
    if job in (ANY, trained_by):
        return
    raise UsageError(f"{preset} is trained by {name_of(trained_by)}; {name_of(job)} has {', '.join(known)}")


def check_assignments(preset: str, assignments: Sequence[tuple[str, str]]) -> None:
    """Raise ConfigError for a setting that a preset does not have, and for a text that is no value of a built-in one's.

    It needs no torch, except for a user's own preset.
    """
    check_paths(preset, [path for path, _ in assignments])
    described = {} if ":" in preset else {each.path: each for each in described_settings(preset)}
    for path, text in assignments:
        if path in described:
            config_docs.check_text(described[path], text)


def check_paths(preset: str, paths: Sequence[str]) -> None:
    """Raise ConfigError for a setting that a preset does not have."""
    changes_kind = any(path in _KINDS for path in paths)
    if ":" in preset and changes_kind:
        return
    known = settings_of("") if changes_kind else _settings_of(preset)
    for path in paths:
        if path not in _KINDS and not any(f"{path}.".startswith(f"{each}.") for each in known):
            raise config.no_such_setting(path, _settings_of(preset))


def _own_preset(name: str) -> Preset:
    """The user's own preset `package.module:name`. Raises UsageError."""
    from imagegen_dist.presets import find_preset

    return find_preset(name)


def _settings_of(preset: str) -> list[str]:
    """The dotted paths of a preset's settings."""
    if ":" not in preset:
        return settings_of(preset)
    return [path.replace("_", "-") for path in config.paths(_own_preset(preset).experiment)]


def _begun_from(job: str, options: Options) -> tuple[str, str, Experiment]:
    """(job, preset, experiment) to which data and overrides are applied: the named preset's, else the run's own.

    Raises ValueError if the run is another job's, or does not say how it was configured.
    """
    from imagegen_dist.presets import find_preset
    from imagegen_dist.storage import Store

    if options.run and not options.preset and not options.config:
        check_name("run", options.run)
        folder = Store(options.storage) / options.run
        if folder.exists(CONFIG):
            return own_configuration(job, folder)
    if options.fork_from or (options.init_from and not options.preset and not options.config):
        return source_configuration(job, options)
    named = _read_file(options.config).get("preset") if options.config and not options.preset else ""
    name = options.preset or str(named or next(iter(presets_of(job))))
    _check_preset(job, name)
    preset = find_preset(name)
    return preset.job, name, preset.experiment


def own_configuration(job: str, folder: Store, trusted: bool = True) -> tuple[str, str, Experiment]:
    """(job, preset, experiment) of the run in a folder, from its config.json. Raises ValueError.

    trusted: whether modules that the run names may be imported.
    """
    from imagegen_dist.experiment import Experiment
    from imagegen_dist.lineage.source import without_modules

    found = read_config(folder)
    trained_by, preset = str(found["job"]), str(found["preset"])
    if trusted:
        import_preset(preset)
    try:
        experiment = config.decode(Experiment, found["experiment"])
    except config.ConfigError as error:
        raise unreadable_config(folder, error) from error
    experiment = experiment if trusted else without_modules(experiment)
    if job not in (ANY, trained_by):
        raise UsageError(f"{folder.url} is trained by {name_of(trained_by)}, and this is {name_of(job)}")
    return trained_by, preset, experiment


def source_configuration(job: str, options: Options) -> tuple[str, str, Experiment]:
    """(job, preset, experiment) of the run that another one begins from. Raises ValueError as `own_configuration`.

    Modules that a run outside of --storage names are not imported.
    """
    from imagegen_dist.lineage.source import configuration, run_at
    from imagegen_dist.presets.preset import job_of as job_that_trains
    from imagegen_dist.storage import Store

    if options.fork_from:
        folder = Store(run_at(options.fork_from, options.storage))
        return own_configuration(job, folder, trusted=folder.url.startswith(f"{Store(options.storage).url}/"))
    preset, experiment = configuration(run_at(options.init_from, options.storage))
    if options.data:  # the source's held-out samples are of other data
        experiment = config.override(experiment, "data.validation", "")
    trained_by = job_that_trains(experiment)
    if job not in (ANY, trained_by):
        raise UsageError(f"{options.init_from} is trained by {name_of(trained_by)}, and this is {name_of(job)}")
    return trained_by, preset, experiment


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


def help_text(job: str, words: Sequence[str]) -> str:
    """What --help prints: flags, presets, and how to find every setting; after PRESET --help GROUP its settings."""
    place = next(place for place, word in enumerate(words) if word in ("-h", "--help"))
    before, topics = words[:place], words[place + 1 :]
    if topics:
        return _settings_help(*_shown_settings(job, before), topics)
    preset = words[0] if words and words[0] in presets_of(job) else ""
    jobs = list(_KINDS_OF) if job == ANY else [job]
    listed = "\n\n".join(listing(f"presets of {_KINDS_OF[each]}", presets_of(each)) for each in jobs)
    examples = "\n".join(f"  --{example}" for each in jobs for example in _EXAMPLES[each])
    groups = " | ".join(dict.fromkeys(path.partition(".")[0] for path in settings_of()))
    return (
        f"{flags_help(Options, job, _SUMMARIES[job])}\n\n{listed}\n\n"
        f"settings of the experiment, by dotted path\n{examples}\n"
        f"  what each of them means: {name_of(job)} {preset or 'PRESET'} --help GROUP\n"
        f"  GROUP: {groups}"
    )


def _shown_settings(job: str, words: Sequence[str]) -> tuple[str, list[config_docs.Setting]]:
    """(preset, its settings) as the words of a command leave them.

    It needs no torch for a built-in preset, unless other flags or another kind of a group are given.
    """
    preset = words[0] if words else next(iter(presets_of(job)))
    if preset in presets_of(job):
        described = described_settings(preset)
        flags, assignments = split(words, Options, settings_of(preset))
        given = dict(assignments)
        if flags == list(words[:1]) and given.keys() <= {each.path for each in described} - set(_KINDS):
            check_assignments(preset, assignments)
            return preset, [replace(each, value=given.get(each.path, each.value)) for each in described]
    command = parse(job, words)
    return command.options.preset, list(config_docs.settings(command.experiment))


def _settings_help(preset: str, found: Sequence[config_docs.Setting], topics: Sequence[str]) -> str:
    """The settings of the groups or paths in `topics`, with their values, choices and meaning. Raises UsageError."""
    shown = []
    for topic in topics:
        path = topic.lstrip("-").replace("_", "-")
        chosen = [each for each in found if f"{each.path}.".startswith(f"{path}.")]
        if not chosen:
            groups = dict.fromkeys(each.group for each in found)
            raise UsageError(f"--help {topic}: {config.nearest(path, [*groups, *(each.path for each in found)])}")
        shown += [_setting_text(each) for each in chosen]
    return f"settings of {preset}\n\n" + "\n".join(shown)


def _setting_text(setting: config_docs.Setting) -> str:
    """A setting with its value, its meaning and what is allowed, as wide as the terminal at most."""
    paragraphs = "\n".join(wrapped(text, 6) for text in (setting.doc, setting.allowed) if text)
    return f"  --{setting.path} {setting.value}\n{paragraphs}"


def split(words: Sequence[str], options: type, settings: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The words for the flags of `options`, and the pairs of dotted path and text of the overrides. Raises UsageError.

    settings: dotted paths to suggest for a word that is no flag.
    """
    known = [field.name.replace("_", "-") for field in fields(options)][1:]  # the first one is positional
    lists, presets = list_settings(), catalogue()["presets"]
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
            while not given and rest and path in lists and not rest[0].startswith("--") and rest[0] not in presets:
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


def _apply_file(experiment: Experiment, name: str) -> Experiment:
    """The experiment with the settings of a JSON file: dotted paths, an experiment, or a run's config.json."""
    from imagegen_dist.experiment import Experiment

    data = _read_file(name)
    data = data.get("experiment", data)
    if not isinstance(data, dict):
        raise UsageError(f"--config {name}: its experiment has to be one JSON object")
    try:
        if "kind" in data:
            return config.decode(Experiment, data)
        return config.overrides(experiment, list(config.flatten(data, whole_kinds=True)))
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


def describe(experiment: Experiment) -> str:
    """Every setting as it would be written on the command line, beside the first sentence of what it means."""
    lines = []
    for setting in config_docs.settings(experiment):
        written = f"  --{setting.path} {setting.value}"
        meaning, *more = wrapped(setting.doc.partition(". ")[0].rstrip("."), _MEANING_AT).splitlines() or [""]
        fits = len(written) < _MEANING_AT - 1
        lines += [f"{written:<{_MEANING_AT}}{meaning.strip()}"] if fits else [written, meaning]
        lines += more
    return "\n".join(line.rstrip() for line in lines)
