"""The sweep's report.html, from its trial store and the runs of its trials."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from imagegen_dist import config
from imagegen_dist.commands import command
from imagegen_dist.evaluation.vae import COLUMNS, RECONSTRUCTED
from imagegen_dist.metric_table import describe
from imagegen_dist.metrics.formatting import count, duration, value_text
from imagegen_dist.metrics.report import Point
from imagegen_dist.metrics.sinks import read_pictures, read_rows
from imagegen_dist.metrics.sweep_report import Strip, TradeOff, TrialView, render_sweep_report
from imagegen_dist.records import last_values
from imagegen_dist.storage import Store
from imagegen_dist.sweep.plan import TRIALS, SweepPlan
from imagegen_dist.sweep.trial_store import COMPLETE, Trial

PICTURED = 6
"""Best trials whose samples are shown."""

_STRIPS = 12
_STRIP_PIXELS = 1200  # most columns of a strip


@dataclass(frozen=True)
class Findings:
    """What a sweep's directory shows of its trials. trade_off: of those with rate and distortion, if there are any."""

    trials: list[TrialView]
    trade_off: TradeOff | None


def findings(plan: SweepPlan, trials: Sequence[Trial], losses: Mapping[str, float]) -> Findings:
    """Read curves and pictures of the trials' runs. losses: to rank trials by, of each run."""
    folder = plan.folder / TRIALS
    order = sorted(trials, key=lambda trial: losses[trial.run])
    pictured = {trial.run for trial in order[:PICTURED] if math.isfinite(losses[trial.run])}
    rows = {trial.run: read_rows(folder / trial.run) for trial in trials}
    views = [
        TrialView(
            trial.run,
            trial.values,
            {goal.metric.removeprefix("eval/"): trial.figures[goal.metric] for goal in plan.goals if trial.figures},
            losses[trial.run],
            trial.state,
            trial.note,
            trial.images,
            trial.born,
            trial.parent,
            trial.number,
            _curve(rows[trial.run], plan.goals[0].metric),
            _samples(folder / trial.run) if trial.run in pictured else None,
        )
        for trial in trials
    ]
    return Findings(views, _trade_off(plan, trials, rows, losses))


def report_page(
    plan: SweepPlan, trials: Sequence[Trial], chosen: Trial | None, front: Sequence[Trial], found: Findings
) -> str:
    """The page. chosen: the best trial; front: those that no other beats in every figure."""
    paths = [dimension.path for dimension in plan.space.dimensions]
    best_experiment = plan.space.apply(plan.experiment, chosen.values) if chosen else None
    return render_sweep_report(
        title=plan.settings.name,
        facts=_facts(plan, trials),
        figures=_figures(plan, trials, chosen),
        trials=found.trials,
        labels=dict(zip(paths, labels(paths), strict=True)),
        best=chosen.run if chosen else "",
        front=[trial.run for trial in front],
        trade_off=found.trade_off,
        commands=commands(plan, chosen),
        config=json.dumps(config.encode(best_experiment), indent=1) if best_experiment else "",
    )


def commands(plan: SweepPlan, chosen: Trial | None) -> list[tuple[str, str]]:
    """What a user may do next: what for, and the command."""
    storage = () if plan.settings.storage == Store("runs").url else ("--storage", plan.settings.storage)
    following = [("go on with the sweep", command("sweep", "--resume", plan.settings.name, *storage))]
    if chosen is None:
        return following
    run = (plan.folder / TRIALS / chosen.run).url
    train = "--config", f"{plan.folder.url}/best.json", "--training.total-images", "IMAGES"
    return [
        ("train the best in full", command(plan.settings.job, *train)),
        ("sample from it", command("sample", run, "--grid", "samples.png")),
        *following,
    ]


def labels(paths: Sequence[str]) -> list[str]:
    """Short names of settings: the last part of each path, with the one before it where that is not enough."""
    last = [path.split(".")[-1] for path in paths]
    more = [".".join(path.split(".")[-2:]) for path in paths]
    return [name if last.count(name) == 1 else more[i] for i, name in enumerate(last)]


def best_figures(plan: SweepPlan, chosen: Trial) -> list[tuple[str, str]]:
    """(name, value) of each of the best trial's figures."""
    return [(describe(goal.metric).words, value_text(goal.metric, chosen.figures[goal.metric])) for goal in plan.goals]


def _facts(plan: SweepPlan, trials: Sequence[Trial]) -> list[tuple[str, str]]:
    states = [trial.state for trial in trials]
    images = sum(trial.images - trial.born for trial in trials)
    return [
        ("search", plan.search),
        ("preset", plan.settings.preset),
        ("space", str(plan.space)),
        ("compared by", " and ".join(map(str, plan.goals))),
        ("searcher", plan.searcher),
        ("scheduler", plan.scheduler),
        ("trials", ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))),
        ("spent", f"{count(images)} images, {duration(sum(trial.seconds for trial in trials))} of trials' time"),
    ]


def _figures(plan: SweepPlan, trials: Sequence[Trial], chosen: Trial | None) -> list[tuple[str, str]]:
    if chosen is None:
        return []
    values = zip(labels(list(chosen.values)), chosen.values.values(), strict=True)
    shown = [(name, f"{value:.4g}" if isinstance(value, int | float) else str(value)) for name, value in values]
    best = "best " if len(plan.goals) == 1 else ""
    return [(f"{best}{name}", value) for name, value in best_figures(plan, chosen)] + shown


def _curve(rows: Sequence[dict[str, float]], metric: str) -> list[Point]:
    points = [(row["images"], row[metric]) for row in rows if metric in row]
    return [(images, value if math.isfinite(value) else None) for images, value in points]


def _samples(run: Store) -> tuple[bytes, str] | None:
    """The newest picture of a run's samples: a GAN's grid, or what a VAE drew from its prior."""
    found = (read_pictures(run, "grid") or read_pictures(run, "samples"))[-1:]
    return (found[0][1], found[0][2]) if found else None


def _trade_off(
    plan: SweepPlan, trials: Sequence[Trial], rows: Mapping[str, list[dict[str, float]]], losses: Mapping[str, float]
) -> TradeOff | None:
    """Rate and distortion of the complete trials: a strip for each β, of the trial of the least loss at it.

    Where β is not searched, strips of the best trials; None where no trial has both figures.
    """
    found = {}
    for trial in trials:
        last = last_values(rows[trial.run], "eval/")
        if trial.state == COMPLETE and {"rate", "distortion"} <= last.keys():
            found[trial.run] = (trial, last["rate"], last["distortion"])
    beta = next((dimension.path for dimension in plan.space.dimensions if dimension.path.endswith(".beta")), "")
    if not found:
        return None
    if not beta or any(not isinstance(trial.values[beta], int | float) for trial, *_ in found.values()):
        shown = sorted(found.values(), key=lambda entry: losses[entry[0].run])[:PICTURED]
    else:
        at: dict[float, tuple[Trial, float, float]] = {}
        for trial, rate, distortion in found.values():
            value = float(trial.values[beta])
            if value not in at or distortion + value * rate < at[value][2] + value * at[value][1]:
                at[value] = (trial, rate, distortion)
        shown = [at[value] for value in sorted(at)]
        if len(shown) > _STRIPS:
            shown = [shown[round(i * (len(shown) - 1) / (_STRIPS - 1))] for i in range(_STRIPS)]
    strips = []
    for trial, rate, distortion in shown:
        texts = dict(zip(labels(list(trial.values)), map(_text, trial.values.values()), strict=True))
        label = f"β {texts.pop('beta')}" if beta else trial.run
        note = ", ".join(f"{name} {text}" for name, text in texts.items())
        pictures = read_pictures(plan.folder / TRIALS / trial.run, "reconstructions")[-1:]
        strips.append(Strip(label, rate, distortion, first_rows(pictures[0][1]) if pictures else b"", note=note))
    named = {trial.run for trial, *_ in shown}
    others = [(run, rate, distortion) for run, (_, rate, distortion) in found.items() if run not in named]
    return TradeOff(strips, others, joined=bool(beta))


def first_rows(picture: bytes) -> bytes:
    """The first row of originals and the row of their reconstructions, out of a picture of all of them."""
    with Image.open(io.BytesIO(picture)) as whole:
        rows = 2 * -(-RECONSTRUCTED // COLUMNS)
        strip = whole.crop((0, 0, whole.width, whole.height * 2 // rows))
        if strip.width > _STRIP_PIXELS:
            strip = strip.resize((_STRIP_PIXELS, strip.height * _STRIP_PIXELS // strip.width))
        kept = io.BytesIO()
        strip.save(kept, "PNG")
    return kept.getvalue()


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
