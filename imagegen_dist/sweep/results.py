"""What a sweep came to: the best trial, tables of all, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from imagegen_dist import config
from imagegen_dist.metrics.formatting import duration
from imagegen_dist.metrics.wandb import FOLDERS, sync_command
from imagegen_dist.presets.searches import Goal
from imagegen_dist.sweep.plan import TRIALS, SweepPlan
from imagegen_dist.sweep.report import best_figures, commands, findings, report_page
from imagegen_dist.sweep.summary import summary_id, write_summary
from imagegen_dist.sweep.trial_store import COMPLETE, DIVERGED, FAILED, REPLACED, Trial, TrialStore

BEST, TABLE, ROWS, REPORT = "best.json", "results.csv", "results.jsonl", "report.html"


def candidates(trials: Sequence[Trial], goals: Sequence[Goal]) -> list[Trial]:
    """The trials that may be the best: complete ones with all figures, or where there are none, any with figures."""
    scored = [t for t in trials if all(map(math.isfinite, t.score(goals))) and t.state not in (DIVERGED, FAILED)]
    complete = [trial for trial in scored if trial.state == COMPLETE]
    return complete or [trial for trial in scored if trial.state != REPLACED]


def front(trials: Sequence[Trial], goals: Sequence[Goal]) -> list[Trial]:
    """Those of the candidates that no other one is at least as good as in every figure and better in one."""
    found = candidates(trials, goals)
    scores = {trial.run: trial.score(goals) for trial in found}
    return [trial for trial in found if not any(_dominates(other, scores[trial.run]) for other in scores.values())]


def best(trials: Sequence[Trial], goals: Sequence[Goal]) -> Trial | None:
    """The trial of the best figure; of several figures, the one on the front that is nearest to the best of each."""
    found = front(trials, goals)
    far = distances(found, found, goals)
    return min(found, key=lambda trial: (far[trial.run], trial.number), default=None)


def distances(trials: Sequence[Trial], front: Sequence[Trial], goals: Sequence[Goal]) -> dict[str, float]:
    """How far each trial is, by its run, from the best of each figure on the front; infinite without figures.

    Of one figure it is the loss itself; of several the Euclidean distance, each scaled by its span over the front.
    """
    if len(goals) == 1:
        return {trial.run: trial.score(goals)[0] for trial in trials}
    columns = list(zip(*(trial.score(goals) for trial in front), strict=True)) or [(0.0,)] * len(goals)
    scales = [(min(column), (max(column) - min(column)) or 1.0) for column in columns]

    def distance(score: Sequence[float]) -> float:
        return math.hypot(*((value - least) / span for value, (least, span) in zip(score, scales, strict=True)))

    return {trial.run: distance(trial.score(goals)) for trial in trials}


def table(plan: SweepPlan, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A row a trial: what it is, its figures by plain names, its values by path, where it is."""
    goals = plan.goals
    return [
        {
            "trial": trial.run,
            "state": trial.state,
            "images": trial.images,
            "seconds": round(trial.seconds, 1),
            **{goal.metric.removeprefix("eval/"): trial.figures.get(goal.metric) for goal in goals},
            **trial.values,
            "parent": trial.parent,
            "note": trial.note,
            "url": (plan.folder / TRIALS / trial.run).url,
        }
        for trial in trials
    ]


def write_results(plan: SweepPlan, say: Callable[[str], None]) -> None:
    """best.json, results.csv, results.jsonl, report.html and the summary in W&B, from what the directory holds."""
    trials = TrialStore.read(plan.folder).trials
    rows = table(plan, trials)
    plan.folder.write(ROWS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    plan.folder.write(TABLE, as_csv(rows).encode())
    chosen = best(trials, plan.goals)
    if chosen is not None:
        plan.folder.write(BEST, json.dumps(best_document(plan, chosen), indent=1).encode())
    else:
        plan.folder.remove(BEST)
    unbeaten = front(trials, plan.goals)
    found = findings(plan, trials, distances(trials, unbeaten, plan.goals))
    page = report_page(plan, trials, chosen, unbeaten, found)
    plan.folder.write(REPORT, page.encode())
    write_summary(plan, rows, chosen, found, page, say)


def best_document(plan: SweepPlan, trial: Trial) -> dict[str, Any]:
    """What best.json holds: the whole experiment, as --config takes it, and where it comes from."""
    experiment = plan.space.apply(plan.experiment, trial.values)
    return {
        "preset": plan.settings.preset,
        "job": plan.settings.job,
        "sweep": plan.settings.name,
        "trial": trial.run,
        "values": trial.values,
        "figures": {goal.metric: trial.figures[goal.metric] for goal in plan.goals},
        "run": (plan.folder / TRIALS / trial.run).url,
        "experiment": config.encode(experiment),
    }


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as comma-separated values under their names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["trial"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def closing_table(plan: SweepPlan, log: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The last table of a sweep: the best trial, files, commands to go on with."""
    trials = TrialStore.read(plan.folder).trials
    states = [trial.state for trial in trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    spent = sum(trial.seconds for trial in trials)
    images = sum(trial.images - trial.born for trial in trials)
    said = [("trials", counted or "none"), ("spent", f"{images:,} images, {duration(spent)} of trials' time")]
    chosen, where = best(trials, plan.goals), plan.folder.url
    if chosen is not None:
        values = "  ".join(f"{path} {value}" for path, value in chosen.values.items())
        figures = ", ".join(f"{name} {value}" for name, value in best_figures(plan, chosen))
        said.append(("best", f"{chosen.run}: {figures}\n{values}"))
    files = [(name.split(".")[0], f"{where}/{name}") for name in (REPORT, BEST, TABLE) if plan.folder.exists(name)]
    following = commands(plan, chosen)
    if sending := sync_command_of(plan, trials):
        following.append(("send to W&B", sending))
    return [("Sweep", said), ("Files", [*files, ("log", log)]), ("Go on with", following)]


def sync_command_of(plan: SweepPlan, trials: Sequence[Trial]) -> str:
    """The command that uploads what W&B's server lacks of the trials and of the sweep's own run; empty for nothing.

    Only of the runs that this machine keeps.
    """
    ids = [plan.trial_settings(trial.run, "").wandb_id for trial in trials]
    return sync_command(Path(plan.settings.wandb_directory) / FOLDERS, [*ids, summary_id(plan)])


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))
