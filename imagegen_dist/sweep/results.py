"""The results of a sweep: the best trial, a table of all trials, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from imagegen_dist import config
from imagegen_dist.metrics.wandb import FOLDERS, sync_command
from imagegen_dist.run_folder import REPORT
from imagegen_dist.sweep.plan import TRIALS, SweepPlan
from imagegen_dist.sweep.report import best_figures, commands, find, report_page, spent
from imagegen_dist.sweep.searches import Goal
from imagegen_dist.sweep.summary import summary_id, write_summary
from imagegen_dist.sweep.trial_store import COMPLETE, DIVERGED, FAILED, REPLACED, Trial, TrialStore

BEST, TABLE, ROWS = "best.json", "results.csv", "results.jsonl"


def _candidates(trials: Sequence[Trial], goals: Sequence[Goal]) -> list[Trial]:
    """The trials that may be the best: complete ones with all metrics, or if there are none, any with metrics."""
    scored = [t for t in trials if all(map(math.isfinite, t.score(goals))) and t.state not in (DIVERGED, FAILED)]
    complete = [trial for trial in scored if trial.state == COMPLETE]
    return complete or [trial for trial in scored if trial.state != REPLACED]


def front(trials: Sequence[Trial], goals: Sequence[Goal]) -> list[Trial]:
    """The candidates that no other one dominates: as good in every metric and better in one."""
    found = _candidates(trials, goals)
    scores = {trial.run: trial.score(goals) for trial in found}
    return [trial for trial in found if not any(_dominates(other, scores[trial.run]) for other in scores.values())]


def best(trials: Sequence[Trial], goals: Sequence[Goal]) -> Trial | None:
    """The trial with the best metric; of several metrics, the one on the front that is nearest to the best of each."""
    found = front(trials, goals)
    far = _distances(found, found, goals)
    return min(found, key=lambda trial: (far[trial.run], trial.number), default=None)


def _distances(trials: Sequence[Trial], front: Sequence[Trial], goals: Sequence[Goal]) -> dict[str, float]:
    """The distance of each trial, by run, from the best of each metric on the front; infinite without metrics.

    For one metric it is the loss itself; for several the Euclidean distance, each scaled by its range over the front.
    """
    if len(goals) == 1:
        return {trial.run: trial.score(goals)[0] for trial in trials}
    columns = list(zip(*(trial.score(goals) for trial in front), strict=True)) or [(0.0,)] * len(goals)
    scales = [(min(column), (max(column) - min(column)) or 1.0) for column in columns]

    def distance(score: Sequence[float]) -> float:
        return math.hypot(*((value - least) / span for value, (least, span) in zip(score, scales, strict=True)))

    return {trial.run: distance(trial.score(goals)) for trial in trials}


def table(plan: SweepPlan, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A row per trial: its state, its metrics by plain name, its values by path, and the URL of its run."""
    return [
        {
            "trial": trial.run,
            "state": trial.state,
            "images": trial.images,
            "seconds": round(trial.seconds, 1),
            **{goal.metric.removeprefix("eval/"): trial.figures.get(goal.metric) for goal in plan.goals},
            **trial.values,
            "parent": trial.parent,
            "note": trial.note,
            "url": (plan.folder / TRIALS / trial.run).url,
        }
        for trial in trials
    ]


def write_results(plan: SweepPlan, warn: Callable[[str], None]) -> None:
    """Write best.json, results.csv, results.jsonl, report.html and the summary in W&B, from the sweep's directory."""
    trials, folder = TrialStore.read(plan.folder).trials, plan.folder
    rows = table(plan, trials)
    folder.write(ROWS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["trial"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    folder.write(TABLE, text.getvalue().encode())
    chosen, unbeaten = best(trials, plan.goals), front(trials, plan.goals)
    if chosen is not None:
        folder.write(BEST, json.dumps(_best_document(plan, chosen), indent=1).encode())
    else:
        folder.remove(BEST)
    found = find(plan, trials, _distances(trials, unbeaten, plan.goals))
    page = report_page(plan, found, chosen, unbeaten)
    folder.write(REPORT, page.encode())
    write_summary(plan, rows, chosen, found, page, warn)


def _best_document(plan: SweepPlan, trial: Trial) -> dict[str, Any]:
    """The content of best.json: the whole experiment, as --config takes it, and the trial that it comes from."""
    return {
        "preset": plan.settings.preset,
        "job": plan.settings.job,
        "sweep": plan.settings.name,
        "trial": trial.run,
        "values": trial.values,
        "figures": {goal.metric: trial.figures[goal.metric] for goal in plan.goals},
        "run": (plan.folder / TRIALS / trial.run).url,
        "experiment": config.encode(plan.space.apply(plan.experiment, trial.values)),
    }


def closing_table(plan: SweepPlan, log: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The last table of a sweep: the best trial, files, and commands to continue with."""
    trials = TrialStore.read(plan.folder).trials
    chosen, where = best(trials, plan.goals), plan.folder.url
    said = list(zip(("trials", "spent"), spent(trials), strict=True))
    if chosen is not None:
        values = "  ".join(f"{path} {value}" for path, value in chosen.values.items())
        figures = ", ".join(f"{name} {value}" for name, value in best_figures(plan, chosen))
        said.append(("best", f"{chosen.run}: {figures}\n{values}"))
    files = [(name.split(".")[0], f"{where}/{name}") for name in (REPORT, BEST, TABLE) if plan.folder.exists(name)]
    following = commands(plan, chosen)
    runs = [*(plan.trial_settings(trial.run).wandb_id for trial in trials), summary_id(plan)]
    if unsent := sync_command(Path(plan.settings.wandb_directory) / FOLDERS, runs):
        following.append(("send to W&B", unsent))
    return [("Sweep", said), ("Files", [*files, ("log", log)]), ("Next steps", following)]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))
