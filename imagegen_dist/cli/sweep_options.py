"""The command line of a sweep: a search, its data and storage, limits, and overrides by dotted path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from imagegen_dist import config
from imagegen_dist.cli.catalogue import catalogue, job_of, settings_of
from imagegen_dist.cli.command import Switch, check_name, flag, flags_help, listing, parse_flags, wrapped
from imagegen_dist.cli.train_options import check_assignments, check_paths, resolve, split
from imagegen_dist.config import ConfigError
from imagegen_dist.errors import UsageError
from imagegen_dist.resources import Workers

if TYPE_CHECKING:
    from imagegen_dist.experiment import Experiment
    from imagegen_dist.sweep.plan import TrialDemand
    from imagegen_dist.sweep.searches import Goal, Scheduler, Search, Searcher
    from imagegen_dist.sweep.space import Space

JOB = "sweep"
_SUMMARY = (
    "Search for good settings: every trial is a run of its own, and a logged metric compares them. "
    "--resume NAME continues a sweep."
)


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    search: Annotated[str, tyro.conf.Positional, flag("SEARCH")] = ""
    """A named search, see below, or a preset with --space."""
    space: Annotated[tuple[str, ...], flag("PATH=KIND:VALUES")] = ()
    """Settings to search, in place of the search's own. KIND: uniform, loguniform, int, logint, choice, grid."""
    metric: Annotated[str, flag("NAME[,NAME]")] = ""
    """Metric that compares trials: frechet, elbo, or any logged one (vae/rate); several for a trade-off."""
    mode: Annotated[str, flag("min|max")] = ""
    """Whether lower or higher is better. Default: that of the metric."""
    trials: Annotated[int | None, flag("N")] = None
    """Number of trials. Default: the search's; all combinations of a grid."""
    searcher: Annotated[Literal["", "random", "grid", "tpe"], flag("random|grid|tpe")] = ""
    """How values are chosen. Default: the search's."""
    scheduler: Annotated[Literal["", "none", "asha", "median", "pbt"], flag("none|asha|median|pbt")] = ""
    """What stops trials early (asha, median) or changes them during training (pbt). Default: the search's."""
    preset: Annotated[str, flag("PRESET")] = ""
    """The preset that trials train, in place of the search's own."""
    name: Annotated[str, flag("NAME")] = ""
    """Name of the sweep. Default: SEARCH-DATE-TIME."""
    storage: Annotated[str, flag("URL")] = "runs"
    """Where sweeps are stored: a folder, s3://..., gs://... Default: runs."""
    data: Annotated[str, flag("URL")] = ""
    """Shards with an index.json, or a built-in dataset. Default: the preset's."""
    allow_remote_shards: Switch = False
    """Read shards of an index that says they lie neither below nor beside it, e.g. in another bucket."""
    config: Annotated[str, flag("FILE.json")] = ""
    """Settings as JSON, as the training jobs take them."""
    resume: Annotated[str, flag("NAME")] = ""
    """Continue the sweep of that name: finished trials are not run again."""
    max_concurrent: Annotated[int | None, flag("N")] = None
    """Trials at once. Default: as many as fit."""
    time_budget: Annotated[float | None, flag("SECONDS")] = None
    """End the sweep after this time."""
    gpu_hours: Annotated[float | None, flag("HOURS")] = None
    """End the sweep once its trials have taken this many GPU hours."""
    workers: Annotated[str, flag("N|MIN:MAX")] = ""
    """Training workers of a trial, or MIN:MAX of them. Default: 1."""
    cpus: Annotated[int | None, flag("N")] = None
    """CPU cores of a worker. Default: a GPU's share; without GPUs 1."""
    gpus: Annotated[float | None, flag("N")] = None
    """GPUs of a worker: 0, 1, or a share, e.g. 0.25. Default: 1, if any."""
    seed: Annotated[int, flag("N")] = 0
    """Seed of the search. Default: 0."""
    wandb: Annotated[Literal["auto", "online", "offline", "disabled"], flag("MODE")] = "auto"
    """W&B: auto (online if there is a key, else offline), online, offline or disabled."""
    address: Annotated[str, flag("http://HEAD:8265")] = ""
    """Submit the command to the cluster whose dashboard that is, and follow it there; Ctrl-C leaves it running."""
    attach: Annotated[str, flag("ID")] = ""
    """With --address: follow a job that was submitted before."""
    status: Annotated[str, flag("ID")] = ""
    """With --address: print a job's state and table."""
    stop: Annotated[str, flag("ID")] = ""
    """With --address: end a job; --resume continues its sweep."""
    fetch: Annotated[tuple[str, ...], flag("ID DIR")] = ()
    """With --address: copy best config, best checkpoint, tables and plots of a job's sweep into a folder here."""
    dry_run: Switch = False
    """Check everything, show the first trials and what the sweep will cost, train nothing."""

    @property
    def asks(self) -> str:
        """What it asks of a submitted job: "attach", "status", "stop" or "fetch"; "" for nothing."""
        return next((name for name in ("attach", "status", "stop", "fetch") if getattr(self, name)), "")


@dataclass(frozen=True)
class Command:
    """A parsed command line: the flags, and what they resolve to."""

    options: Options
    preset: str
    experiment: Experiment
    space: Space
    goals: tuple[Goal, ...]
    searcher: Searcher
    scheduler: Scheduler
    trials: int
    demand: TrialDemand


def check_words(words: Sequence[str]) -> tuple[Options, list[tuple[str, str]]]:
    """The flags, and the pairs of path and value of the settings. Raises UsageError. It needs no torch."""
    first = words[0] if words else ""
    rest, lists = _take_lists(words)
    flags, assignments = split(rest, Options, settings_of(first if job_of(first) else ""))
    options = replace(parse_flags(Options, JOB, flags), space=lists["space"], fetch=lists["fetch"])
    _check_limits(options)
    if options.asks:
        _check_asked(options)
    elif options.resume:
        _check_resumed(options, assignments)
    else:
        _check_search(options.search)
        _check_settings(options, assignments)
    return options, assignments


def _take_lists(words: Sequence[str]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The words outside lists, and the words of each flag that takes several. Raises UsageError for an empty list."""
    rest: list[str] = []
    lists: dict[str, list[str]] = {}
    taken = rest
    for word in words:
        name, given, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in _LISTS:
            taken = lists.setdefault(name, [])
            taken += [value] if given else []
        else:
            taken = rest if word.startswith("--") else taken
            taken.append(word)
    for name, values in lists.items():
        if not values:
            raise UsageError(f"--{name} needs {_LISTS[name]}")
    return rest, {name: tuple(lists.get(name, ())) for name in _LISTS}


_LISTS = {
    "space": "PATH=KIND:VALUES, e.g. objective.gamma=loguniform:0.01:10",
    "fetch": "the id of a job and a folder",
}


def _check_search(name: str) -> None:
    """Raise ConfigError for a name that is neither a search nor a preset; names with a colon are a user's own."""
    searches, presets = catalogue()["searches"], catalogue()["presets"]
    if not name:
        raise ConfigError(f"give a SEARCH: {', '.join(searches)}; or a preset with --space")
    if name not in searches and name not in presets and ":" not in name:
        raise ConfigError(f"there is no search {name!r}; {config.nearest(name, [*searches, *presets])}")


def _check_settings(options: Options, assignments: Sequence[tuple[str, str]]) -> None:
    """Raise ConfigError for settings, or paths of --space, that the built-in preset of a search does not have."""
    search = catalogue()["searches"].get(options.search, {})
    preset = options.preset or search.get("preset", options.search)
    if not job_of(preset) or options.config:
        return
    check_assignments(preset, assignments)
    for word in options.space:
        pattern = word.partition("=")[0].replace("_", "-")
        try:
            check_paths(preset, [] if "*" in pattern else [pattern])
        except ConfigError as error:
            raise ConfigError(f"--space {word}: {error}") from error


def parse(words: Sequence[str]) -> Command | Options:
    """Read the job's words; the flags alone where a sweep or a job is named. Raises ValueError."""
    options, assignments = check_words(words)
    if options.asks or options.resume:
        return options
    from imagegen_dist.presets import find_preset
    from imagegen_dist.sweep.plan import TrialDemand
    from imagegen_dist.sweep.searches import find_search, parse_goals
    from imagegen_dist.sweep.space import as_grid, parse_space

    search = find_search(options.search)
    if options.preset:
        search = _on_preset(search, options)
    experiment = config.overrides(find_preset(search.preset).experiment, search.changes.items())
    assignments += [("data.allow_remote_shards", "true")] * options.allow_remote_shards
    experiment = resolve(experiment, options.config, options.data, assignments)
    space = parse_space(options.space) if options.space else search.space
    searcher = options.searcher or search.searcher
    if searcher == "grid":
        space = as_grid(space)
    space.check(experiment)
    trials = options.trials or (0 if options.space else search.trials) or (len(space.grid) if space.is_grid else 16)
    return Command(
        options,
        search.preset,
        experiment,
        space,
        parse_goals(options.metric, options.mode, search.goals),
        "grid" if space.is_grid and searcher == "random" else searcher,
        options.scheduler or search.scheduler,
        min(trials, len(space.grid)) if space.is_grid else trials,
        demand_of(options, TrialDemand()),
    )


def demand_of(options: Options, otherwise: TrialDemand) -> TrialDemand:
    """What a trial requests by the flags, and `otherwise` for flags that are not given. Raises UsageError."""
    from imagegen_dist.sweep.plan import TrialDemand

    return TrialDemand(
        Workers.parse(options.workers) if options.workers else otherwise.workers,
        options.cpus or otherwise.cpus,
        otherwise.gpus if options.gpus is None else options.gpus,
    )


def help_text(words: Sequence[str] = ()) -> str:
    """What --help prints."""
    searches = {name: f"{each['summary']}: {each['space']}" for name, each in catalogue()["searches"].items()}
    star = "any settings, by dotted path; a star gives all that match the same value"
    return (
        f"{flags_help(Options, JOB, _SUMMARY)}\n\n{listing('searches', searches)}\n\n"
        f"spaces\n{wrapped(star, 2)}\n"
        "  --space objective.gamma=loguniform:0.01:10 'optim.*.lr=choice:1e-4,2e-4' \\\n"
        "          'model.widths=grid:64,32|96,48'\n\n"
        "settings that all trials share, by dotted path\n  --training.total-images 400000"
    )


def _check_asked(options: Options) -> None:
    """Raise UsageError if --attach, --status, --stop or --fetch are incomplete."""
    if not options.address:
        raise UsageError(f"--{options.asks} needs --address http://HEAD:8265, of the cluster that the job is on")
    if options.fetch and len(options.fetch) != 2:
        raise UsageError(f"--fetch {' '.join(options.fetch)}: give the id of a job and a folder")


def _check_limits(options: Options) -> None:
    """Raise UsageError for a limit that makes no sense."""
    for name in ("trials", "max_concurrent", "time_budget", "gpu_hours", "cpus"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UsageError(f"--{name.replace('_', '-')} {value:g}: give more than 0")
    if options.gpus is not None and not 0 <= options.gpus <= 1:
        raise UsageError(f"--gpus {options.gpus:g}: a worker uses one GPU at most; give 0 to 1, and --workers for more")
    if options.gpu_hours is not None and options.gpus == 0:
        raise UsageError(f"--gpu-hours {options.gpu_hours:g} would never be reached with --gpus 0; use --time-budget")
    for name in ("name", "resume"):
        check_name(name, getattr(options, name))


def _check_resumed(options: Options, assignments: Sequence[tuple[str, str]]) -> None:
    """Raise UsageError for flags that would change the sweep that is resumed."""
    limits = {"max_concurrent", "time_budget", "gpu_hours"}
    may = {"address", "resume", "storage", "workers", "cpus", "gpus", *limits}
    fresh = Options()
    changed = [name for name in vars(fresh) if name not in may and getattr(options, name) != getattr(fresh, name)]
    changed += [path for path, _ in assignments]
    if changed:
        raise UsageError(
            f"--resume {options.resume} continues that sweep as it is: leave out "
            + (options.search if changed[0] == "search" else f"--{changed[0].replace('_', '-')}")
        )


def _on_preset(search: Search, options: Options) -> Search:
    """The search on another preset. Raises ConfigError if that has another kind of objective."""
    from imagegen_dist.presets import find_preset
    from imagegen_dist.sweep.searches import default_goal

    preset, own = find_preset(options.preset), find_preset(search.preset)
    if preset.job != own.job and not (options.space and options.metric):
        raise ConfigError(f"--preset {options.preset} is trained by {preset.job}, which {options.search} is not for")
    goals = search.goals if preset.job == own.job else (default_goal(preset),)
    return replace(search, preset=options.preset, changes={}, goals=goals)
