"""The sweep's own run in W&B, in the group of its trials: the final table and plots."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagegen_dist import config
from imagegen_dist.metrics.sweep_report import TrialView, importances
from imagegen_dist.metrics.wandb import Bars, Exhibit, Lines, Page, Points, Table, WandbSink
from imagegen_dist.sweep.plan import SweepPlan
from imagegen_dist.sweep.report import Findings, labels
from imagegen_dist.sweep.trial_store import Trial

_GROUP = "sweep/"


def write_summary(
    plan: SweepPlan,
    rows: Sequence[Mapping[str, Any]],
    chosen: Trial | None,
    found: Findings,
    page: str,
    say: Callable[[str], None],
) -> None:
    """Log the run, whose id follows from the sweep's place, so that a sweep gone on with goes on in it.

    rows: the table, a row a trial. chosen: the best trial. page: report.html. say: told what failed, once.
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
        warn=say,
    )
    images = sum(trial.images - trial.start for trial in found.trials)
    sink.show({_GROUP + name: exhibit for name, exhibit in exhibits(plan, rows, found, page).items()}, images)
    sink.summarize({"trials": len(rows), "images": images, **best_values(chosen)})
    sink.close()


def summary_id(plan: SweepPlan) -> str:
    """The id in W&B of the sweep's own run."""
    return config.fingerprint([plan.folder.url, "sweep"])[:16]


def best_values(chosen: Trial | None) -> dict[str, float | str]:
    """The best trial, its figures and values, by names below best/; empty for none."""
    if chosen is None:
        return {}
    figures = {name.removeprefix("eval/"): value for name, value in chosen.figures.items()}
    return {f"best/{name}": value for name, value in {"trial": chosen.run, **figures, **chosen.values}.items()}


def exhibits(plan: SweepPlan, rows: Sequence[Mapping[str, Any]], found: Findings, page: str) -> dict[str, Exhibit]:
    """The table of all trials, plots of the first figure, for VAEs rate and distortion, and the report, by names."""
    paths = [dimension.path for dimension in plan.space.dimensions]
    short = dict(zip(paths, labels(paths), strict=True))
    name = plan.goals[0].metric.removeprefix("eval/")
    curves = {trial.name: _finite(trial.curve) for trial in found.trials}
    shown: dict[str, Exhibit] = {
        "trials": _table(rows, found.trials),
        "course": Lines(
            f"{name} over images seen", "images", {run: points for run, points in curves.items() if points}
        ),
        "report": Page(page),
    }
    for path, label in short.items():
        points = {
            trial.name: (value, trial.figures[name])
            for trial in found.trials
            if isinstance(value := trial.values[path], int | float) and math.isfinite(trial.figures.get(name, math.nan))
        }
        if points:
            shown[f"{name} by {label}"] = Points(f"{name} by {label}", label, name, points)
    shares = importances(found.trials, short)
    if shares:
        shown["importance"] = Bars("Importance of each value", "share", dict(shares))
    if found.trade_off:
        points = {strip.label: (strip.rate, strip.distortion) for strip in found.trade_off.strips}
        points |= {run: (rate, distortion) for run, rate, distortion in found.trade_off.others}
        shown["rate and distortion"] = Points("Distortion over rate, nats", "rate", "distortion", points)
    return shown


def _table(rows: Sequence[Mapping[str, Any]], trials: Sequence[TrialView]) -> Table:
    """The rows, with samples of the best."""
    pictures = {trial.name: trial.picture[0] for trial in trials if trial.picture}
    columns = list(rows[0]) if rows else ["trial"]
    return Table([*columns, "samples"], [[*row.values(), pictures.get(row["trial"])] for row in rows])


def _finite(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None]
