"""Whole runs in this process, one thread each, and their figures over seeds: what several benchmarks share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from statistics import fmean
from typing import Any

import torch

from imagegen_dist.distributed import World
from imagegen_dist.experiment import Experiment
from imagegen_dist.records import RunSettings
from imagegen_dist.run import SilentEvents, execute
from imagegen_dist.run_folder import RESULT

CPU = torch.device("cpu")

Columns = Mapping[str, tuple[str, str]]
"""Titles of a table's columns, and how their numbers are written, by the names of figures."""


def in_processes(
    train: Callable[..., Any], asked: Iterable[tuple[Any, ...]], at_once: int
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(arguments, result) of each run as it ends, each in a process of its own, so many at once."""
    with ProcessPoolExecutor(at_once, get_context("spawn"), max_tasks_per_child=1) as pool:
        runs = {pool.submit(train, *each): each for each in asked}
        for run in as_completed(runs):
            yield runs[run], run.result()


def run_to_end(
    experiment: Experiment, settings: RunSettings, events: SilentEvents, device: torch.device = CPU
) -> dict[str, Any]:
    """Train, or what is left of it; the run's figures. RunError: it cannot go on."""
    images = experiment.training.total_images
    if not settings.folder.exists(RESULT) or read_result(settings)["images"] < images:
        execute(experiment, settings, World(), device, events)
    return read_result(settings)


def read_result(settings: RunSettings) -> dict[str, Any]:
    """A run's figures."""
    return json.loads(settings.folder.read(RESULT))


def over_seeds(values: Sequence[float], form: str) -> str:
    """The mean of a figure over seeds and, where they differ, the least and the largest: "0.16 (0.12–0.21)".

    form: of a number, as str.format takes it; "" for no values.
    """
    if not values:
        return ""
    low, high = form.format(min(values)), form.format(max(values))
    return form.format(fmean(values)) + (f" ({low}–{high})" if low != high else "")


def cells(results: Sequence[Mapping[str, Any]], columns: Columns) -> list[str]:
    """Each column's figure over the seeds that have it."""
    return [
        over_seeds([found[name] for found in results if name in found], form) for name, (_, form) in columns.items()
    ]


def titles(columns: Columns) -> list[str]:
    """Of the columns, in their order."""
    return [title for title, _ in columns.values()]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its head."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))
