"""`imagegen runs`: list the runs of a storage, show one, compare several, open a report, remove what is not needed."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagegen_dist.cli.command import Switch, flag, flags_help, parse_flags, run_command
from imagegen_dist.cli.run_summary import Run, read_run, typed_settings
from imagegen_dist.errors import TaskError, UsageError
from imagegen_dist.metric_table import describe, place_of
from imagegen_dist.metrics.formatting import count, duration, figure_lines, value_text
from imagegen_dist.run_folder import CONFIG, MANIFEST, REPORT
from imagegen_dist.storage import Store
from imagegen_dist.storage.lease import FILE as LEASE
from imagegen_dist.wording import counted

_SWEEP = "sweep.json"
_LISTED = 2  # headline figures of a run in a list, the ELBO first
_ELBO = "eval/elbo"
_READERS = 8  # runs that are read at once


@dataclass(frozen=True)
class ListOptions:
    """Flags of `imagegen runs list`."""

    storage: Annotated[str, tyro.conf.Positional, flag("STORAGE")] = "runs"
    """Where runs are stored: a folder, s3://..., gs://... Default: runs."""


@dataclass(frozen=True)
class RunsOptions:
    """Flags of the commands that take runs."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, flag("RUN")] = ()
    """A run's directory, a path or URL; or its name in --storage."""
    storage: Annotated[str, flag("URL")] = "runs"
    """Where runs are stored. Default: runs."""


@dataclass(frozen=True)
class CleanOptions(RunsOptions):
    """Flags of `imagegen runs clean`."""

    checkpoints: Switch = False
    """Only checkpoints other than the newest and the best of each run. Default: the whole run."""
    remove: Switch = False
    """Remove what is listed. Default: list only."""


def _list(options: ListOptions) -> None:
    storage = Store(options.storage)
    folders = [name for name, is_folder in storage.entries().items() if is_folder and not name.startswith(".")]
    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(lambda name: _row(storage / name), folders))
    rows = [row for row in found if row]
    if not rows:
        raise TaskError(f"there are no runs in {storage}")
    table = _table("run", "state", "images", "figures", "started")
    for row in sorted(rows, key=lambda row: row[-1]):
        table.add_row(*row)
    _console().print(table)


def _row(store: Store) -> tuple[str, ...]:
    """A run in a list, or a sweep; () for a folder that is neither."""
    name = store.url.rpartition("/")[2]
    if store.exists(_SWEEP):
        trials = len((store / "trials").names())
        return name, "sweep", "", f"{counted(trials, 'trial')}: {store.url}/trials", ""
    try:
        run = read_run(store)
    except UsageError as error:
        return (name, "damaged", "", str(error), "") if store.exists(CONFIG) else ()
    figures = run.figures()
    shown = sorted((each for each in figures if describe(each).headline), key=lambda each: each != _ELBO)
    text = ", ".join(f"{describe(each).label} {value_text(each, figures[each])}" for each in shown[:_LISTED])
    return name, run.state, f"{count(run.images)} of {count(run.total)}", text, run.started


def _show(options: RunsOptions) -> None:
    [run] = _runs(options, 1, 1)
    from imagegen_dist import config  # this and the following import torch
    from imagegen_dist.presets import PRESETS
    from imagegen_dist.records import RunSettings, commands, resume_command

    console, facts = _console(), run.config
    console.print(Text(run.name, "bold").append(f"  {run.state}, {run.images:,} of {run.total:,} images", "not bold"))
    _section("run", _facts(run))
    preset = PRESETS.get(str(facts.get("preset")))
    if preset is not None:
        own, theirs = run.settings, typed_settings(config.encode(preset.experiment))
        changed = [(path, own[path], theirs.get(path, "none")) for path in own if own[path] != theirs.get(path)]
        rows = [(f"--{path}", f"{value}  (preset: {default})") for path, value, default in changed]
        _section(f"settings that differ from {facts['preset']}", rows or [("none", "")])
    _section("figures", [(line.label, line.full_value) for line in figure_lines(run.figures())])
    _section(
        "checkpoints",
        [
            (f"{each.images:,} images", f"{count(each.size)}B{', best' if each is run.best else ''}  {each.store}")
            for each in run.checkpoints
        ],
    )
    settings = RunSettings(
        run.name, run.store.url.rpartition("/")[0], str(facts["preset"]), str(facts["job"]), str(facts["data"]["url"])
    )
    console.print(Text("\ncontinue with", "dim"))
    resume = [("resume", resume_command(settings))] if run.state != "finished" else []
    for purpose, line in [*resume, *commands(settings)]:
        console.print(f"  {purpose}\n    {line}", soft_wrap=True)


def _facts(run: Run) -> list[tuple[str, str]]:
    """Where a run is, what it was trained on, by whom and for how long."""
    data, result = run.config["data"], run.result
    facts = [
        ("place", run.store.url),
        ("data", f"{data['url']}, {counted(int(data['samples']), 'sample')}"),
        ("started", run.started),
    ]
    if result:
        facts.append(("took", f"{duration(result['seconds'])}, {result.get('images_per_s') or 0:,.0f} images/s"))
    if lineage := run.config.get("lineage"):
        seen = f" at {lineage['images']:,} images" if lineage["images"] else ""
        facts.append((lineage["how"].replace("-", " "), f"{lineage['given']}{seen}"))
        facts += [("changed", change) for change in lineage["changed"]]
    if run.holder is not None:
        facts.append(("trained by", run.holder.name))
    if commit := run.config.get("git_commit"):
        facts.append(("commit", str(commit)[:12]))
    if run.store.exists(REPORT):
        facts.append(("report", f"{run.store}/{REPORT}"))
    return [(name, value) for name, value in facts if value]


def _compare(options: RunsOptions) -> None:
    runs = _runs(options, 2, None)
    settings = [run.settings for run in runs]
    shared = [
        path for path in settings[0] if all(path in each for each in settings)
    ]  # kinds have settings of their own
    differing = [path for path in shared if len({each[path] for each in settings}) > 1]
    table = _table("", *(run.name for run in runs))
    _rows(table, "run", [(name, [values(run) for run in runs]) for name, values in _COMPARED.items()])
    _rows(table, "settings", [(path, [each[path] for each in settings]) for path in differing])
    figures = [run.figures() for run in runs]
    names = sorted({name for each in figures for name in each}, key=place_of)
    references = {describe(name).reference for name in names}
    _rows(
        table,
        "figures",
        [
            (describe(name).label, [value_text(name, each[name]) if name in each else "–" for each in figures])
            for name in names
            if name not in references
        ],
    )
    _console().print(table)


_COMPARED: Mapping[str, Callable[[Run], str]] = {
    "preset": lambda run: str(run.config.get("preset", "–")),
    "data": lambda run: str(run.config["data"].get("fingerprint", "–"))[:12],
    "state": lambda run: run.state,
    "images": lambda run: count(run.images),
    "images/s": lambda run: f"{run.result['images_per_s']:,.0f}" if run.result.get("images_per_s") else "–",
}


def _rows(table: Table, title: str, rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """A titled part of a table of comparisons."""
    table.add_row(Text(title, "dim"))
    for name, values in rows or [("none differ", [])]:
        table.add_row(f"  {name}", *values)


def _open(options: RunsOptions) -> None:
    [run] = _runs(options, 1, 1)
    if not run.store.exists(REPORT):
        raise UsageError(f"{run.store} has no {REPORT} yet")
    path = run.store.local_path(REPORT)
    if path is None:
        path = Path(mkdtemp(prefix="imagegen-report-")) / REPORT
        path.write_bytes(run.store.read(REPORT))
    print(path)
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        with suppress(webbrowser.Error):
            webbrowser.open(path.as_uri())


def _clean(options: CleanOptions) -> None:
    runs = _runs(options, 1, None)
    if held := [run for run in runs if run.holder is not None and not run.holder.has_ended]:
        raise UsageError(
            f"{held[0].store} is being trained by {held[0].holder and held[0].holder.name}: stop it first; if nothing "
            f"trains it any more, remove {held[0].store}/{LEASE}"
        )
    total = 0
    for run in runs:
        for store, size in _unwanted(run) if options.checkpoints else [(run.store, _size(run.store))]:
            total += size
            print(f"{f'{count(size)}B':>8}  {store}")
            if options.remove:
                store.remove(MANIFEST if options.checkpoints else CONFIG)  # what makes it count comes first
                store.remove()
    if not total:
        print("there is nothing to remove")
    else:
        print(f"{count(total)}B {'removed' if options.remove else 'in all: --remove removes it'}")


def _unwanted(run: Run) -> Iterator[tuple[Store, int]]:
    """Checkpoints that are neither the newest nor the best, with their bytes."""
    for each in run.checkpoints[1:]:
        if each is not run.best:
            yield each.store, each.size


def _size(store: Store) -> int:
    """Bytes of all files in a folder."""
    entries = store.entries()
    return sum(_size(store / name) if is_folder else store.size(name) for name, is_folder in entries.items())


def _runs(options: RunsOptions, least: int, most: int | None) -> list[Run]:
    """The runs that are named. Raises UsageError."""
    if not least <= len(options.runs) <= (most or len(options.runs)):
        raise UsageError("give one RUN" if most == 1 else f"give {'two or more RUNs' if least > 1 else 'a RUN'}")
    return [read_run(_place(options.storage, name)) for name in options.runs]


def _place(storage: str, name: str) -> Store:
    """The directory of a run that is given by its path, its URL or its name in a storage."""
    if "/" in name or (Path(name) / CONFIG).is_file():
        return Store(name.rstrip("/"))
    return Store(storage) / name


def _section(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """A titled table of names and values."""
    if not rows:
        return
    console, width = _console(), max(len(name) for name, _ in rows)
    console.print(Text(f"\n{title}", "dim"))
    for name, value in rows:
        console.print(f"  {name:<{width}}  {value}", soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    return table


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False)


def _command(
    name: str, options: type, summary: str, do: Callable[[Any], None], words: Sequence[str] | None = None
) -> int:
    """Run a sub-command; the exit code."""
    job = f"runs {name}"
    return run_command(
        job, words, lambda _: flags_help(options, job, summary), lambda given: do(parse_flags(options, job, given))
    )


main_list = partial(_command, "list", ListOptions, "List the runs in a storage, with their state and figures.", _list)
main_show = partial(
    _command,
    "show",
    RunsOptions,
    "Show a run: the settings that differ from its preset, figures, checkpoints, and how to continue.",
    _show,
)
main_compare = partial(
    _command,
    "compare",
    RunsOptions,
    "Compare runs: the settings that differ between them, and their figures side by side.",
    _compare,
)
main_open = partial(
    _command,
    "open",
    RunsOptions,
    "Open a run's report in the browser; where there is none, print the report's path.",
    _open,
)
main_clean = partial(
    _command,
    "clean",
    CleanOptions,
    "Show the size of runs, or of their old checkpoints, and remove them with --remove.",
    _clean,
)
