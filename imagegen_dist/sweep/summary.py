"""The sweep's own run in W&B, in the group of its trials: the final table and plots."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagegen_dist import config
from imagegen_dist.metrics.wandb import Bars, Exhibit, Lines, Page, Points, Table, WandbSink
from imagegen_dist.sweep.plan import SweepPlan
from imagegen_dist.sweep.report import Findings, short_names
from imagegen_dist.sweep.trial_store import Trial


def write_summary(
    plan: SweepPlan,
    rows: Sequence[Mapping[str, Any]],
    chosen: Trial | None,
    found: Findings,
    page: str,
    warn: Callable[[str], None],
) -> None:
    """Log the run. Its id follows from the sweep's URL, so that a resumed sweep continues it.

    rows: the table, one row per trial. chosen: the best trial. page: report.html. warn: called once with what failed.
    """
    settings = plan.settings
    if settings.wandb_mode == "disabled":
        return
    decided = {name: value for name, value in config.encode(plan).items() if name not in ("kind", "settings")}
    sink = WandbSink(
        settings.wandb_project,
        summary_id(plan),
        settings.name,
        {"preset": settings.preset, **decided},
        Path(settings.wandb_directory),
        group=settings.name,
        mode=settings.wandb_mode or None,
        job_type="sweep",
        tags=[settings.preset, plan.search],
        api_key_present=settings.wandb_key,
        warn=warn,
    )
    images = sum(trial.images - trial.born for trial in found.trials)
    sink.show({f"sweep/{name}": exhibit for name, exhibit in _exhibits(plan, rows, found, page).items()}, images)
    best: dict[str, Any] = {}
    if chosen is not None:
        figures = {name.removeprefix("eval/"): value for name, value in chosen.figures.items()}
        best = {f"best/{name}": value for name, value in {"trial": chosen.run, **figures, **chosen.values}.items()}
    sink.summarize({"trials": len(rows), "images": images, **best})
    sink.close()


def summary_id(plan: SweepPlan) -> str:
    """The id in W&B of the sweep's own run."""
    return config.fingerprint([plan.folder.url, "sweep"])[:16]


def _exhibits(plan: SweepPlan, rows: Sequence[Mapping[str, Any]], found: Findings, page: str) -> dict[str, Exhibit]:
    """The table of all trials with samples of the best, plots of the first metric and of rate and distortion, and the
    report, by names."""
    metric = plan.goals[0].metric
    name = metric.removeprefix("eval/")
    curves = {run: [(x, y) for x, y in points if y is not None] for run, points in found.curves.items()}
    columns = [*(list(rows[0]) if rows else ["trial"]), "samples"]
    pictures = {run: picture for run, (picture, _) in found.pictures.items()}
    shown: dict[str, Exhibit] = {
        "trials": Table(columns, [[*row.values(), pictures.get(row["trial"])] for row in rows]),
        "course": Lines(f"{name} over images seen", "images", {run: line for run, line in curves.items() if line}),
        "report": Page(page),
    }
    for path, label in short_names(plan.paths).items():
        points = {
            trial.run: (value, trial.figures[metric])
            for trial in found.trials
            if isinstance(value := trial.values[path], int | float)
            and math.isfinite(trial.figures.get(metric, math.nan))
        }
        if points:
            shown[f"{name} by {label}"] = Points(f"{name} by {label}", label, name, points)
    if found.importances:
        shown["importance"] = Bars("Importance of each value", "share", dict(found.importances))
    if found.trade_off:
        points = {strip.label: (strip.rate, strip.distortion) for strip in found.trade_off.strips}
        points |= {run: (rate, distortion) for run, rate, distortion in found.trade_off.others}
        shown["rate and distortion"] = Points("Distortion over rate, nats", "rate", "distortion", points)
    return shown
