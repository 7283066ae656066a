"""The sweep's report.html, from its trials and their runs."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from imagegen_dist import config
from imagegen_dist.commands import command
from imagegen_dist.evaluation.encoding import COLUMNS, RECONSTRUCTED
from imagegen_dist.extras import install_hint
from imagegen_dist.metric_table import describe
from imagegen_dist.metrics.formatting import count, duration, figure_lines, value_text
from imagegen_dist.metrics.report import Point, chart, data_url, template
from imagegen_dist.metrics.sinks import read_pictures, read_rows
from imagegen_dist.records import git_commit, last_values
from imagegen_dist.storage import Store
from imagegen_dist.sweep.optuna_study import average_ranks, importances
from imagegen_dist.sweep.plan import TRIALS, SweepPlan
from imagegen_dist.sweep.plots import Strip, TradeOff, lineage, parallel, rate_distortion
from imagegen_dist.sweep.trial_store import COMPLETE, CUT, DIVERGED, RUNNING, WAITING, Trial

_PICTURED = 6
"""Number of the best trials whose samples are shown."""

_MAX_STRIPS = 12
_STRIP_PIXELS = 1200  # most columns of a strip
_READABLE = 8  # curves that the pointer reads
_ROWS = 60  # trials of the table


@dataclass(frozen=True)
class Findings:
    """What a sweep's directory says of its trials.

    ranks: 0 for the best run to 1. curves: (images seen, first metric) by run. pictures: the newest samples of the best
    trials by run, encoded, with their extension. importances: share of each setting, by its short name; without_optuna:
    why there are none. trade_off: of trials with rate and distortion; None without.
    """

    trials: Sequence[Trial]
    ranks: Mapping[str, float]
    curves: Mapping[str, Sequence[Point]]
    pictures: Mapping[str, tuple[bytes, str]]
    importances: Mapping[str, float]
    without_optuna: str
    trade_off: TradeOff | None


def find(plan: SweepPlan, trials: Sequence[Trial], losses: Mapping[str, float]) -> Findings:
    """Read curves and pictures of the trials' runs. losses: by which trials are ranked, by run."""
    folder, metric = plan.folder / TRIALS, plan.goals[0].metric
    order = sorted(trials, key=lambda trial: losses[trial.run])
    rows = {trial.run: read_rows(folder / trial.run) for trial in trials}
    ranks = average_ranks([losses[trial.run] for trial in trials])
    worst = max(ranks, default=0.0) or 1.0
    samples = {t.run: _samples(folder / t.run) for t in order[:_PICTURED] if math.isfinite(losses[t.run])}
    shares, without_optuna = _importances(plan, trials, losses)
    return Findings(
        trials,
        {trial.run: rank / worst for trial, rank in zip(trials, ranks, strict=True)},
        {run: [(row["images"], _finite(row[metric])) for row in rows[run] if metric in row] for run in rows},
        {run: picture for run, picture in samples.items() if picture},
        shares,
        without_optuna,
        _trade_off(plan, trials, rows, losses),
    )


def report_page(plan: SweepPlan, found: Findings, chosen: Trial | None, front: Sequence[Trial]) -> str:
    """The page as HTML. chosen: the best trial; front: the trials that no other one beats in every metric."""
    labels, ranks, goals = short_names(plan.paths), found.ranks, plan.goals
    order = sorted(found.trials, key=lambda trial: (ranks[trial.run], trial.run))
    captions = {trial.run: _caption(trial, plan) for trial in order}
    compared = [trial for trial in order if all(goal.metric in trial.figures for goal in goals)]
    columns = {label: [trial.values[path] for trial in compared] for path, label in labels.items()}
    columns |= {describe(g.metric).words: [trial.figures[g.metric] for trial in compared] for g in goals}
    axes, threads = parallel(columns, [ranks[t.run] for t in compared], [captions[t.run] for t in compared])
    drawn = {t.run: found.curves[t.run] for t in order if any(y is not None for _, y in found.curves[t.run])}
    curves = None
    if any(len(points) > 1 for points in drawn.values()):
        curves = chart(describe(goals[0].metric).label, drawn, max(x for points in drawn.values() for x, _ in points))
    trade_off = found.trade_off or TradeOff([])
    best_experiment = config.encode(plan.space.apply(plan.experiment, chosen.values)) if chosen else None
    marks = {trial.run: "front" for trial in front if len(goals) > 1} | ({chosen.run: "best"} if chosen else {})
    return template("sweep.html.j2").render(
        title=plan.settings.name,
        state=_state(plan, found.trials),
        facts=_facts(plan, found.trials),
        headlines=figure_lines({goal.metric: chosen.figures[goal.metric] for goal in plan.goals}) if chosen else [],
        values=[(name, value_of(chosen.values[path])) for path, name in short_names(plan.paths).items()]
        if chosen
        else [],
        rows=[(trial, _cells(trial, plan), marks.get(trial.run, ""), ranks[trial.run]) for trial in order[:_ROWS]],
        more=max(0, len(order) - _ROWS),
        heads=[*labels.values(), "images", *(describe(goal.metric).words for goal in goals)],
        axes=axes,
        threads=threads[::-1],
        curves=curves,
        curve_ranks=[ranks[run] for run in drawn],
        read=_READABLE,
        importances=list(found.importances.items()),
        without_optuna=found.without_optuna,
        scatter=rate_distortion(trade_off) if len(trade_off.strips) > 1 else None,
        is_curve=trade_off.joined,
        strips=[(strip, data_url(strip.picture, "png")) for strip in trade_off.strips if strip.picture],
        pictures=[(captions[t.run], data_url(*found.pictures[t.run])) for t in order if t.run in found.pictures],
        lineage=lineage(found.trials, ranks) if any(trial.parent for trial in found.trials) else None,
        commands=commands(plan, chosen),
        config=json.dumps(best_experiment, indent=1) if best_experiment else "",
    )


def commands(plan: SweepPlan, chosen: Trial | None) -> list[tuple[str, str]]:
    """What a user may do next, and the command for it."""
    storage = () if plan.settings.storage == Store("runs").url else ("--storage", plan.settings.storage)
    following = [("continue the sweep", command("sweep", "--resume", plan.settings.name, *storage))]
    if chosen is None:
        return following
    run = (plan.folder / TRIALS / chosen.run).url
    train = "--config", f"{plan.folder.url}/best.json", "--training.total-images", "IMAGES"
    return [
        ("train the best in full", command(plan.settings.job, *train)),
        ("sample from it", command("sample", run, "--grid", "samples.png")),
        *following,
    ]


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, with the one before it where that is ambiguous."""
    last = [path.split(".")[-1] for path in paths]
    parts = [path.split(".")[-1 if last.count(name) == 1 else -2 :] for path, name in zip(paths, last, strict=True)]
    return {path: ".".join(part) for path, part in zip(paths, parts, strict=True)}


def best_figures(plan: SweepPlan, chosen: Trial) -> list[tuple[str, str]]:
    """(name, value) of each metric of the best trial."""
    return [(describe(goal.metric).words, value_text(goal.metric, chosen.figures[goal.metric])) for goal in plan.goals]


def spent(trials: Sequence[Trial]) -> tuple[str, str]:
    """How many trials there are in each state, and what they took, in words."""
    states = [trial.state for trial in trials]
    images = sum(trial.images - trial.born for trial in trials)
    seconds = sum(trial.seconds for trial in trials)
    return (
        ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none",
        f"{count(images)} images, {duration(seconds)} of trial time",
    )


def value_of(value: Any) -> str:
    """A setting's value as tables show it."""
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _facts(plan: SweepPlan, trials: Sequence[Trial]) -> list[tuple[str, str]]:
    (states, cost), commit = spent(trials), git_commit()
    return [
        ("search", plan.search),
        ("preset", plan.settings.preset),
        ("space", str(plan.space)),
        ("compared by", " and ".join(map(str, plan.goals))),
        ("searcher", plan.searcher),
        ("scheduler", plan.scheduler),
        ("trials", states),
        ("spent", cost),
        ("date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        *([("commit", commit[:10])] if commit else []),
    ]


def _state(plan: SweepPlan, trials: Sequence[Trial]) -> str:
    """Whether the sweep has done what it was asked for."""
    unfinished = len(trials) < plan.trials or any(trial.state in (WAITING, RUNNING, CUT) for trial in trials)
    return "stopped; --resume continues it" if unfinished else "complete"


def _cells(trial: Trial, plan: SweepPlan) -> list[str]:
    return [*(value_of(trial.values[path]) for path in plan.paths), count(trial.images), *_metric_texts(trial, plan)]


def _metric_texts(trial: Trial, plan: SweepPlan) -> list[str]:
    names = [goal.metric for goal in plan.goals]
    return [value_text(name, trial.figures[name]) if name in trial.figures else "–" for name in names]


def _caption(trial: Trial, plan: SweepPlan) -> str:
    values = ", ".join(f"{label} {value_of(trial.values[path])}" for path, label in short_names(plan.paths).items())
    named = zip(plan.goals, _metric_texts(trial, plan), strict=True)
    return f"{trial.run}: {values}; " + ", ".join(f"{describe(goal.metric).words} {text}" for goal, text in named)


def _importances(plan: SweepPlan, trials: Sequence[Trial], losses: Mapping[str, float]) -> tuple[dict[str, float], str]:
    """The importance of each setting by its short name, and what to install if Optuna is missing.

    Trials that were stopped early are left out: their metrics are those of fewer images. A population has none: its
    members had other values before.
    """
    judged = [(trial.values, losses[trial.run]) for trial in trials if trial.state in (COMPLETE, DIVERGED)]
    if any(trial.parent for trial in trials):
        return {}, ""
    labels = short_names(plan.paths)
    try:
        return {labels[path]: share for path, share in importances(plan.space, judged).items()}, ""
    except ImportError:
        return {}, f"The importance of each setting needs Optuna and scikit-learn: {install_hint('sweep')}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _samples(run: Store) -> tuple[bytes, str] | None:
    """The newest samples of a run: a GAN's grid, or what a VAE drew from its prior."""
    found = (read_pictures(run, "grid") or read_pictures(run, "samples"))[-1:]
    return (found[0][1], found[0][2]) if found else None


def _trade_off(
    plan: SweepPlan, trials: Sequence[Trial], rows: Mapping[str, list[dict[str, float]]], losses: Mapping[str, float]
) -> TradeOff | None:
    """Rate and distortion of the complete trials: a strip for each β, of the trial with the lowest loss at that β.

    If β is not searched, strips of the best trials; None if no trial has both metrics.
    """
    found = {}
    for trial in trials:
        last = last_values(rows[trial.run], "eval/")
        if trial.state == COMPLETE and {"rate", "distortion"} <= last.keys():
            found[trial.run] = (trial, last["rate"], last["distortion"])
    if not found:
        return None
    beta = next((path for path in plan.paths if path.endswith(".beta")), "")
    if not beta or any(not isinstance(trial.values[beta], int | float) for trial, *_ in found.values()):
        beta, shown = "", sorted(found.values(), key=lambda entry: losses[entry[0].run])[:_PICTURED]
    else:
        at: dict[float, tuple[Trial, float, float]] = {}
        for trial, rate, distortion in found.values():
            value = float(trial.values[beta])
            if value not in at or distortion + value * rate < at[value][2] + value * at[value][1]:
                at[value] = (trial, rate, distortion)
        shown = [at[value] for value in sorted(at)]
        if len(shown) > _MAX_STRIPS:
            shown = [shown[round(i * (len(shown) - 1) / (_MAX_STRIPS - 1))] for i in range(_MAX_STRIPS)]
    labels, strips = short_names(plan.paths), []
    for trial, rate, distortion in shown:
        label = f"β {value_of(trial.values[beta])}" if beta else trial.run
        note = ", ".join(f"{labels[path]} {value_of(value)}" for path, value in trial.values.items() if path != beta)
        pictures = read_pictures(plan.folder / TRIALS / trial.run, "reconstructions")[-1:]
        strips.append(Strip(label, rate, distortion, _first_rows(pictures[0][1]) if pictures else b"", note))
    named = {trial.run for trial, *_ in shown}
    others = [(run, rate, distortion) for run, (_, rate, distortion) in found.items() if run not in named]
    return TradeOff(strips, others, joined=bool(beta))


def _first_rows(picture: bytes) -> bytes:
    """The first row of originals and the row of their reconstructions, from a picture of all rows."""
    with Image.open(io.BytesIO(picture)) as whole:
        rows = 2 * -(-RECONSTRUCTED // COLUMNS)
        strip = whole.crop((0, 0, whole.width, whole.height * 2 // rows))
        if strip.width > _STRIP_PIXELS:
            strip = strip.resize((_STRIP_PIXELS, strip.height * _STRIP_PIXELS // strip.width))
        kept = io.BytesIO()
        strip.save(kept, "PNG")
    return kept.getvalue()
