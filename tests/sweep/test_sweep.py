"""What a sweep decides without a cluster: plan, trial store, reports, the best trial, continuation."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console as Terminal

from imagegen_dist import config, load
from imagegen_dist.cli import estimate
from imagegen_dist.cli.sweep import main
from imagegen_dist.cli.sweep_options import Command, help_text, parse
from imagegen_dist.cli.sweep_run import build_plan
from imagegen_dist.cli.train_options import parse as parse_training
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.ray.tune.remote import JobView, received
from imagegen_dist.ray.tune.schedulers import select_replacements
from imagegen_dist.ray.tune.searchers import Points, TreeParzen
from imagegen_dist.ray.tune.trial import tune_result
from imagegen_dist.ray.tune.tune_callback import TrialRecorder
from imagegen_dist.resources import Workers
from imagegen_dist.run import Outcome, RunError
from imagegen_dist.storage import Store
from imagegen_dist.sweep.export import send
from imagegen_dist.sweep.json_events import JsonEvents
from imagegen_dist.sweep.live_table import LiveTable
from imagegen_dist.sweep.plan import SweepPlan, TrialDemand, most_images, read_plan, write_plan
from imagegen_dist.sweep.results import best, front, table, write_results
from imagegen_dist.sweep.searches import SEARCHES, Goal
from imagegen_dist.sweep.trial import DivergedError, MetricError, TrialEvents, failed, replayed, run_trial
from imagegen_dist.sweep.trial_store import (
    COMPLETE,
    CUT,
    DIVERGED,
    FAILED,
    REPLACED,
    RUNNING,
    STOPPED,
    WAITING,
    Trial,
    TrialStore,
    decode_trial,
    encode_trial,
)
from tests.runs import TINY

FRECHET = (Goal("eval/frechet"),)
SMALL = [
    word
    for path, value in (TINY | {"evaluation.samples": 50, "evaluation.classifier_images": 500}).items()
    for word in (f"--{path.replace('_', '-')}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value))
]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shared by the module's tests, so that the digits are packed once."""
    return str(tmp_path_factory.getbasetemp() / "storage")


def planned(storage: str, *words: str) -> SweepPlan:
    """The plan of a small sweep over the learning rate of the digits."""
    space = () if "--space" in words else ("--space", "optim.*.lr=loguniform:1e-4:1e-2")
    command = parse(["digits", *space, "--storage", storage, "--wandb", "disabled", *SMALL, *words])
    assert isinstance(command, Command)
    return build_plan(command)


def test_a_plan_can_be_written_and_read_back(storage: str) -> None:
    plan = planned(storage, "--name", "kept", "--scheduler", "asha", "--evaluation.every", "96", "--gpus", "0.5")
    write_plan(plan)
    assert read_plan(plan.folder, "kept") == plan
    assert plan.experiment.training.checkpoint_every == 96


def test_options_of_a_named_search_can_be_changed_one_by_one() -> None:
    command = parse(["gan-lr", "--trials", "5", "--scheduler", "none", "--metric", "label_agreement"])
    assert isinstance(command, Command)
    assert (command.trials, command.scheduler, command.goals) == (5, "none", (Goal("eval/label_agreement", "max"),))
    assert command.space == SEARCHES["gan-lr"].space
    grid = parse(["digits", "--space", "objective.gamma=choice:1,2", "optim.*.lr=choice:1,2,3", "--searcher", "grid"])
    assert isinstance(grid, Command)
    assert grid.trials == 6


def test_help_lists_every_search() -> None:
    text = help_text()
    assert all(f"  {name} " in text for name in SEARCHES)
    assert len(text.splitlines()) < 100  # of at most 80 columns


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a SEARCH: vae-beta"),
        (["gan-lrr"], "did you mean gan-lr?"),
        (["digits"], "the space is empty"),
        (["digits", "--space"], "--space needs PATH=KIND:VALUES"),
        (["digits", "--space", "objective.gama=uniform:0:1"], "did you mean --objective.gamma?"),
        (["digits", "--space", "objective.gamma=uniform:1:1"], "LOW must be below HIGH"),
        (["gan-lr", "--spce", "x"], "did you mean --space?"),
        (["gan-lr", "--trials", "0"], "--trials 0: give more than 0"),
        (["gan-lr", "--time-budget", "-1"], "--time-budget -1"),
        (["gan-lr", "--gpus", "2"], "a worker uses one GPU at most"),
        (["gan-lr", "--workers", "0"], "--workers 0: give N or MIN:MAX"),
        (["gan-lr", "--workers", "2", "--gpus", "0.5"], "cannot share a GPU"),
        (["gan-lr", "--workers", "64"], "set --workers to at most"),
        (["gan-lr", "--preset", "digts"], "did you mean digits?"),
        (["gan-lr", "--metric", "frechet,loss/generator", "--scheduler", "none"], "metrics of one kind"),
        (["gan-lr", "--gpus", "0", "--gpu-hours", "1"], "would never be reached"),
        (["gan-lr", "--name", "../up"], "--name '../up'"),
        (["gan-lr", "--mode", "less"], "--mode less"),
        (["gan-lr", "--scheduler", "hyperband"], "hyperband"),
        (["gan-lr", "--metric", "frechet,label_agreement"], "compares trials by one metric"),
        (["gan-lr", "--evaluation.every", "0"], "needs metrics during a trial"),
        (["gan-lr", "--evaluation.samples", "0"], "is never reported"),
        (["gan-lr", "--metric", "elbo"], "eval/elbo is never reported: it is of autoencoders, and digits trains none"),
        (["gan-pbt", "--space", "model.widths=grid:8,16"], "which model.widths=grid:8,16 does not allow"),
        (["gan-pbt", "--searcher", "tpe"], "chooses values itself"),
        (["gan-pbt", "--trials", "2"], "a population needs 3"),
        (["vae-beta", "--searcher", "tpe"], "has nothing to choose"),
        (["gan-lr", "--searcher", "grid"], "cannot try all of optim.*.lr"),
        (["gan-lr", "--preset", "digits-vae"], "is trained by train_vae"),
        (["--resume", "nothing"], "there is no sweep in"),
        (["--resume", "kept", "--trials", "3"], "leave out --trials"),
        (["gan-lr", "--resume", "kept"], "leave out gan-lr"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    assert main([*words, "--storage", storage]) == MISUSED == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sweep.py: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_a_name_that_is_taken_is_answered_with_how_to_go_on(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(planned(storage, "--name", "taken"))
    assert main(["gan-lr", "--name", "taken", "--storage", storage]) == MISUSED
    assert "continue it with --resume taken" in capsys.readouterr().err


def test_a_dry_run_says_what_it_will_cost(
    storage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "_MEASURED_S", 0.1)
    words = ["digits", "--space", "objective.gamma=grid:0.1,1", *SMALL, "--dry-run", "--storage", storage]
    assert main(words) == DONE
    shown = capsys.readouterr().out
    for word in ("objective.gamma=grid:0.1,1", "at most 480 images per trial", "960 in all", "images/s", "Nothing was"):
        assert word in shown


def test_asha_is_expected_to_cost_less_than_all_trials_in_full(storage: str) -> None:
    plan = planned(storage, "--trials", "9", "--scheduler", "asha", "--evaluation.every", "48")
    # 9 trials to 48 images, 3 of them to 144, 1 to 432, and that one to the end at 480
    assert most_images(plan) == 9 * 48 + 3 * 96 + 288 + 48
    assert most_images(replace(plan, scheduler="none")) == 9 * 480


def test_a_scheduler_that_compares_trials_meets_a_grid_in_an_order_of_the_seed(storage: str) -> None:
    """Values that get better one after another would all go on: each beats those before it."""
    words = ("--space", "objective.gamma=grid:1,2,3,4,5,6", "--evaluation.every", "96")
    plan = planned(storage, *words)

    def order(plan: SweepPlan) -> list[float]:
        return [plan.point(number)["objective.gamma"] for number in range(6)]

    assert order(plan) == [1, 2, 3, 4, 5, 6]
    drawn = [order(replace(plan, scheduler="asha", seed=seed)) for seed in range(4)]
    assert all(sorted(values) == [1, 2, 3, 4, 5, 6] for values in drawn)
    assert len({tuple(values) for values in drawn}) == 4
    assert drawn[0] == order(replace(plan, scheduler="median"))


def test_a_demand_gets_its_share_of_a_machine() -> None:
    assert TrialDemand().of(2, 0) == TrialDemand(cpus=1, gpus=0.0)
    assert TrialDemand().of(16, 4) == TrialDemand(cpus=4, gpus=1.0)
    assert TrialDemand(gpus=0.25).of(16, 4) == TrialDemand(cpus=1, gpus=0.25)
    assert TrialDemand(cpus=3, gpus=0).of(16, 4) == TrialDemand(cpus=3, gpus=0.0)
    assert TrialDemand(Workers(2, 4)).of(16, 4) == TrialDemand(Workers(2, 4), 4, 1.0)


# The trial store


def test_the_trial_store_is_what_it_was_when_it_is_read_back(tmp_path: Path) -> None:
    trial_store = TrialStore(Store(tmp_path))
    trial_store.put(Trial(1, {"a": 1.5}, figures={"eval/frechet": 2.5}, state=COMPLETE))
    trial_store.put(Trial(0, {"a": "1e-3:1e-4:10"}, state=RUNNING))
    trial_store.put(Trial(0, {"a": 2}, generation=1, parent="0001", start="s3://x", born=10))
    again = TrialStore.read(Store(tmp_path))
    assert again.trials == trial_store.trials
    assert [trial.run for trial in again.trials] == ["0000", "0000-g1", "0001"]
    assert again.latest(0) == again["0000-g1"]
    assert again.latest(2) is None


def test_a_trial_survives_strict_json_with_a_figure_that_is_not_finite() -> None:
    trial = Trial(3, {"a": 1}, figures={"x": math.nan, "y": 1.0})
    again = decode_trial(json.loads(json.dumps(encode_trial(trial), allow_nan=False)))
    assert math.isnan(again.figures["x"])
    assert replace(again, figures={}) == replace(trial, figures={})


BEGUN = Trial(0, {"a": 1}, RUNNING)


def recorded(tmp_path: Path) -> tuple[TrialRecorder, TrialStore]:
    trial_store = TrialStore(Store(tmp_path))
    trial_store.put(replace(BEGUN, state=WAITING))
    seconds: Iterator[float] = iter(range(0, 1000, 10))
    return TrialRecorder(trial_store, clock=lambda: float(next(seconds))), trial_store


def test_a_trial_that_a_scheduler_ends_was_stopped_early_and_one_that_a_limit_ends_is_cut_short(tmp_path: Path) -> None:
    recorder, trial_store = recorded(tmp_path)
    recorder.started("0000")
    recorder.reported(replace(BEGUN, images=100, figures={"eval/frechet": 5.0}))
    recorder.progressed("0000", 90)
    assert (trial_store["0000"].state, trial_store["0000"].images, trial_store["0000"].seconds) == (RUNNING, 100, 30.0)
    recorder.ended("0000")
    assert trial_store["0000"].state == STOPPED
    assert trial_store["0000"].is_over
    trial_store.change("0000", state=RUNNING)
    recorder.ending = True
    recorder.ended("0000")
    assert trial_store["0000"].state == CUT
    assert not trial_store["0000"].is_over


def test_a_trial_that_has_diverged_stays_so_when_its_process_ends(tmp_path: Path) -> None:
    recorder, trial_store = recorded(tmp_path)
    recorder.started("0000")
    recorder.reported(failed(BEGUN, RunError("10 steps in a row had a non-finite loss")))
    recorder.ended("0000")
    assert trial_store["0000"].state == DIVERGED
    assert "10 steps" in trial_store["0000"].note
    assert not recorder.misused


def test_a_metric_that_is_never_reported_is_a_mistake_of_the_command(tmp_path: Path) -> None:
    recorder, trial_store = recorded(tmp_path)
    recorder.started("0000")
    recorder.reported(failed(BEGUN, MetricError("eval/frechte", ["eval/frechet", "eval/label_agreement"])))
    assert "did you mean eval/frechet?" in recorder.misused
    assert trial_store["0000"].state == FAILED


def test_ray_tune_sees_metrics_of_trials_that_run_or_are_complete_alone() -> None:
    """The last figures of one that diverged would be compared as if it had come to them."""
    seen = replace(BEGUN, images=100, figures={"eval/frechet": 5.0})
    assert tune_result(seen) == {"images": 100, "eval/frechet": 5.0, "trial": encode_trial(seen), "done": False}
    for state, known in ((COMPLETE, True), (DIVERGED, False), (FAILED, False), (CUT, False)):
        result = tune_result(replace(seen, state=state))
        assert result["done"]
        assert ("eval/frechet" in result) == known


# What a trial reports


class Reports:
    """Collects what is reported, with a clock that stands still unless it is moved."""

    def __init__(self, goals: tuple[Goal, ...] = FRECHET, total: int = 300) -> None:
        self.trials: list[Trial] = []
        self.seen: list[int] = []
        self.now = 0.0
        taken = self.trials.append, self.seen.append, lambda: False, lambda: self.now
        self.events = TrialEvents(BEGUN, goals, total, *taken)


FIRST = replace(BEGUN, images=100, figures={"eval/frechet": 3.0})


def test_a_figure_is_reported_once_its_checkpoint_is_published() -> None:
    reports = Reports()
    order: list[str] = []
    reports.events.row({"images": 100.0, "eval/frechet": 3.0, "eval/other": 1.0})
    assert not reports.trials
    reports.events.checkpoint(lambda: order.append("published"))  # type: ignore[func-returns-value,arg-type]
    assert order == ["published"]
    assert reports.trials == [FIRST]


def test_a_figure_without_a_checkpoint_is_reported_with_the_next_row() -> None:
    reports = Reports()
    reports.events.row({"images": 100.0, "eval/frechet": 3.0})
    reports.events.row({"images": 110.0, "loss/generator": 1.0})
    assert reports.trials == [FIRST]


def test_how_far_a_trial_is_comes_every_two_seconds_without_figures() -> None:
    reports = Reports()
    for images in range(10, 110, 10):
        reports.now += 0.5
        reports.events.row({"images": float(images), "loss/generator": 1.0})
    assert reports.seen == [10, 50, 90]
    assert not reports.trials


def test_the_last_figures_wait_for_the_result_to_be_written() -> None:
    reports = Reports()
    reports.events.row({"images": 300.0, "eval/frechet": 3.0})
    reports.events.checkpoint(lambda: None)
    assert not reports.trials
    reports.events.end(Outcome(300, complete=True))
    assert reports.trials == [replace(FIRST, images=300, state=COMPLETE)]


def test_a_trial_whose_last_figures_are_missing_has_failed() -> None:
    reports = Reports()
    reports.events.end(Outcome(300, complete=True, missing="no figures at 300 images: it broke"))
    assert reports.trials == [replace(BEGUN, state=FAILED, note="no figures at 300 images: it broke")]


def test_a_figure_that_is_not_finite_ends_the_trial() -> None:
    with pytest.raises(DivergedError, match="eval/frechet is nan at 100 images"):
        Reports().events.row({"images": 100.0, "eval/frechet": math.nan})


def test_a_figure_that_does_not_come_is_named_with_those_that_do() -> None:
    with pytest.raises(MetricError, match="did you mean eval/frechet_real"):
        Reports().events.row({"images": 100.0, "eval/frechet_real": 1.0})
    with pytest.raises(MetricError, match="--metric loss/critic is never reported"):
        Reports((Goal("loss/critic"),)).events.row({"images": 100.0, "loss/generator": 1.0})


def test_a_trial_is_a_run_like_any_other(storage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(storage, "--name", "alone", "--evaluation.every", "240")
    write_plan(plan)
    trial = Trial(0, plan.space.point(0, plan.seed))
    settings = plan.trial_settings("0000")
    reported: list[Trial] = []
    run_trial(trial, plan, reported.append)
    assert [(each.images, each.state) for each in reported] == [(240, RUNNING), (480, COMPLETE)]
    metric = "eval/frechet"
    kept = [(row["images"], row[metric]) for row in replayed(settings.folder, plan.goals)]
    assert kept == [(each.images, each.figures[metric]) for each in reported]
    assert load(settings.folder.url).images == 480
    assert json.loads(settings.folder.read("result.json"))["frechet"] == reported[-1].figures[metric]

    # One that is over says again what it had, where a scheduler compares others with it, and trains nothing.
    again: list[Trial] = []
    run_trial(reported[-1], plan, again.append, replay=True)
    assert again == [replace(each, state=RUNNING) for each in reported]

    # One that begins from its checkpoint has another learning rate, and only what it does itself in its records.
    trial_store = TrialStore(plan.folder)
    trial_store.put(reported[-1])
    first = settings.folder / "checkpoints" / "step-000000000360"
    start = (first / first.names()[0]).url
    successor = Trial(0, {"optim.*.lr": 1e-5}, generation=1, parent="0000", start=start, born=360, images=360)
    run_trial(successor, plan, reported.append)
    folder = plan.trial_settings("0000-g1").folder
    assert read_rows(folder)[0]["images"] > 360
    assert load(folder.url).images == 480

    write_results(plan, print)
    document = json.loads(plan.folder.read("best.json"))
    assert document["run"] == settings.folder.url
    local = plan.folder.local_path("best.json")
    trained = parse_training("train_gan", ["--config", str(local)])
    assert trained.experiment == plan.space.apply(plan.experiment, trial.values)
    assert trained.options.preset == "digits"
    rows = list(csv.DictReader(plan.folder.read("results.csv").decode().splitlines()))
    assert [row["trial"] for row in rows] == ["0000"]
    assert float(rows[0]["optim.*.lr"]) == trial.values["optim.*.lr"]
    assert "Samples of the best" in plan.folder.read("report.html").decode()

    capsys.readouterr()
    send(plan.folder)
    lines = capsys.readouterr().out.splitlines()
    assert set(received(lines, Store(tmp_path))) >= {"best.json", "results.csv", "report.html"}
    assert load(tmp_path / "trials" / "0000").images == 480
    damaged = [line.replace('"data": "', '"data": "AAAA', 1) for line in lines]
    with pytest.raises(ValueError, match="did not arrive complete"):
        list(received(damaged, Store(tmp_path)))


# What is shown


def shown_trials(shown_table: LiveTable | JsonEvents) -> None:
    shown_table.phase("starting trials")
    shown_table.trial(Trial(0, {"optim.*.lr": 0.00123456}, RUNNING, 100))
    shown_table.trial(Trial(0, {"optim.*.lr": 0.00123456}, RUNNING, 200))
    shown_table.trial(Trial(0, {"optim.*.lr": 0.00123456}, COMPLETE, 480, {"eval/frechet": 2.5}))
    shown_table.trial(Trial(1, {"optim.*.lr": 0.1}, DIVERGED, 50, note="10 steps in a row"))


def test_off_a_terminal_a_sweep_is_a_line_a_change() -> None:
    out = io.StringIO()
    with LiveTable("gan-lr · s", ["optim.*.lr"], FRECHET, 2, out) as shown_table:
        shown_trials(shown_table)
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines[:2] == ["gan-lr · s", "· starting trials"]
    assert lines[2] == "0000       lr 0.001235       100 images   running"
    assert lines[3].endswith("frechet 2.500   complete")
    assert lines[4].endswith("diverged: 10 steps in a row")
    assert len(lines) == 5


def test_on_a_terminal_it_is_a_shown_tablewith_the_best_marked() -> None:
    shown_table = LiveTable("gan-lr · s", ["optim.*.lr"], FRECHET, 2, io.StringIO(), terminal=True, width=100)
    shown_trials(shown_table)
    shown_table.phase("")
    screen = Terminal(file=io.StringIO(), width=100)
    screen.print(shown_table.view())
    said = screen.file.getvalue()
    assert "2 of 2 done, 0 running" in said
    assert "complete  best" in said
    assert "diverged: 10 steps in a row" in said


def test_a_long_note_leaves_the_other_columns_of_the_shown_tableas_they_are() -> None:
    shown_table = LiveTable("gan-lr · s", ["optim.*.lr"], FRECHET, 2, io.StringIO(), terminal=True, width=80)
    shown_trials(shown_table)
    shown_table.trial(
        Trial(2, {"optim.*.lr": 0.25}, FAILED, 480, {"eval/frechet": 7.5}, note="s3://bucket/" + "x" * 300)
    )
    screen = Terminal(file=io.StringIO(), width=80)
    screen.print(shown_table.view())
    [line] = [line for line in screen.file.getvalue().splitlines() if line.startswith("0002")]
    assert line.split()[:5] == ["0002", "0.25", "480", "7.500", "failed:"]
    assert line.rstrip().endswith("…")


def test_the_head_of_the_table_counts_trials_once_they_run() -> None:
    """Here, and on a machine that the events are sent to."""
    sent = io.StringIO()
    with JsonEvents({"title": "s", "paths": [], "goals": [], "total": 2, "folder": "s"}, sent) as events:
        for text in ("starting trials", "starting trials", "", ""):
            events.phase(text)
    phases = [json.loads(line) for line in sent.getvalue().splitlines()[1:]]
    assert [each["text"] for each in phases] == ["starting trials", ""]
    shown_table = LiveTable("s", ["a"], FRECHET, 2, io.StringIO(), terminal=True, width=80)
    shown_table.trial(Trial(0, {"a": 1}, RUNNING))
    heads = []
    for phase in phases:
        shown_table.phase(phase["text"])
        screen = Terminal(file=io.StringIO(), width=80)
        screen.print(shown_table.view())
        heads.append(screen.file.getvalue().splitlines()[0])
    assert "starting trials" in heads[0]
    assert "0 of 2 done, 1 running" in heads[1]


def test_a_sweep_elsewhere_is_shown_as_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    sent, here = io.StringIO(), io.StringIO()
    facts = {"title": "gan-lr · s", "paths": ["optim.*.lr"], "goals": [config.encode(goal) for goal in FRECHET]}
    with JsonEvents({**facts, "total": 2, "folder": "s3://bucket/s"}, sent) as events:
        shown_trials(events)
        events.summary([("Sweep", [("best", "0000")])])
    with LiveTable("gan-lr · s", ["optim.*.lr"], FRECHET, 2, here) as shown_table:
        shown_trials(shown_table)
    shown_table.summary([("Sweep", [("best", "0000")])])
    shown = JobView()
    for line in ["(raylet) noise", *sent.getvalue().splitlines()]:
        shown.line(line)
    assert capsys.readouterr().out == here.getvalue()
    assert shown.code("SUCCEEDED") == DONE
    shown.line("sweep.py: --metric x is never reported")
    assert shown.code("FAILED") == MISUSED


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gan-lr", "--address", "HEAD:8265", "--storage", "s3://b"], "http://HEAD:8265"),
        (["gan-lr", "--address", "http://h", "--storage", "runs"], "that all machines reach"),
        (["gan-lr", "--address", "http://h", "--storage", "/s", "--data", "shards"], "--data shards"),
        (["--attach", "sweep-x"], "--attach needs --address"),
        (["--address", "http://h", "--fetch", "sweep-x"], "give the id of a job and a folder"),
    ],
)
def test_a_mistake_about_a_cluster_is_answered_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == MISUSED
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert said in captured.err


# Who is best


def scored(*scores: tuple[float, ...], state: str = COMPLETE) -> list[Trial]:
    names = [goal.metric for goal in TRADE]
    return [Trial(i, {"b": i}, state, figures=dict(zip(names, s, strict=False))) for i, s in enumerate(scores)]


TRADE = (Goal("eval/rate"), Goal("eval/distortion"))


def test_the_front_has_those_that_no_other_beats() -> None:
    trials = scored((1, 9), (2, 5), (3, 5), (9, 1), (9, 2))
    assert [trial.number for trial in front(trials, TRADE)] == [0, 1, 3]
    assert best(trials, TRADE) == trials[1]


def test_the_best_is_complete_where_any_is_and_finite() -> None:
    goals = TRADE[:1]
    trials = scored((5,), (4,), (3,), (2,))
    states = [COMPLETE, COMPLETE, STOPPED, DIVERGED]
    trials = [replace(trial, state=state) for trial, state in zip(trials, states, strict=True)]
    assert best(trials, goals) == trials[1]
    assert best(trials[2:], goals) == trials[2]
    assert best([replace(trial, state=FAILED) for trial in trials], goals) is None
    assert best([replace(trials[0], state=REPLACED)], goals) is None
    assert best(trials, (Goal("eval/rate", "max"),)) == trials[0]


# Searchers and schedulers


def suggested(searcher: Points) -> list[Trial]:
    return [decode_trial(suggestion["trial"]) for suggestion in suggestions(searcher)]


def suggestions(searcher: Points) -> list[dict[str, Any]]:
    found = []
    while isinstance(suggestion := searcher.suggest(f"id{len(found)}"), dict):
        found.append(suggestion)
    return found


def test_trials_that_are_over_are_left_out_and_others_keep_their_values(storage: str) -> None:
    plan = planned(storage, "--trials", "4", "--evaluation.every", "96")
    trial_store = TrialStore(Store("memory://sweep-points"))
    first = suggested(Points(plan, trial_store))
    assert [trial.run for trial in first] == ["0000", "0001", "0002", "0003"]
    trial_store.change("0001", state=COMPLETE)
    trial_store.change("0002", state=CUT, images=96)
    assert suggested(Points(plan, trial_store)) == [first[0], replace(first[2], state=CUT, images=96), first[3]]
    assert [each["replay"] for each in suggestions(Points(plan, trial_store))] == [False, True, False]
    compared = suggested(Points(replace(plan, scheduler="median"), trial_store))
    assert compared[1] == replace(first[1], state=COMPLETE)


def test_tpe_learns_from_what_it_is_told_and_from_the_trial_store(storage: str) -> None:
    """The figure is the distance of lr from 1.5e-4 in decades: 0.9 in the middle for lr drawn from the whole range."""
    plan = planned(storage, "--trials", "60", "--searcher", "tpe")
    trial_store = TrialStore(Store("memory://sweep-tpe"))

    def loss(trial: Trial) -> float:
        return abs(math.log10(trial.values["optim.*.lr"] / 1.5e-4))

    losses = []
    searcher = TreeParzen(plan, trial_store)
    for number in range(40):
        trial = decode_trial(searcher.suggest(f"id{number}")["trial"])
        losses.append(loss(trial))
        searcher.on_trial_complete(f"id{number}", {"eval/frechet": losses[-1]})
        trial_store.change(trial.run, state=COMPLETE, figures={"eval/frechet": losses[-1]})
    later = [loss(trial) for trial in suggested(TreeParzen(plan, trial_store))]
    assert len(later) == 20
    assert sorted(losses[20:40])[10] < 0.45
    assert sorted(later)[10] < 0.45


@pytest.mark.parametrize("cut", [3, 8, 14])
def test_a_resumed_tree_parzen_search_suggests_what_an_undisturbed_one_does(
    storage: str, tmp_path: Path, cut: int
) -> None:
    """Cut in its random phase or in its modelled one, with trials that run and that diverged among the rest."""
    plan = planned(storage, "--space", "optim.*.lr=loguniform:1e-6:1e-1", "--searcher", "tpe", "--trials", "18")

    def searched(trial_store: TrialStore, count: int) -> None:
        searcher, running = TreeParzen(plan, trial_store), []
        for at in range(count):
            running.append((f"id{at}", decode_trial(searcher.suggest(f"id{at}")["trial"])))
            if len(running) == 3:  # two others run while a trial is chosen
                trial_id, trial = running.pop(0)
                loss = abs(math.log10(trial.values["optim.*.lr"]) + 4)
                result = {} if trial.number % 5 == 2 else {"eval/frechet": loss}
                searcher.on_trial_complete(trial_id, result)
                trial_store.change(trial.run, state=COMPLETE if result else DIVERGED, figures=result)

    undisturbed, killed = TrialStore(Store(tmp_path / "whole")), TrialStore(Store(tmp_path / "killed"))
    searched(undisturbed, 18)
    searched(killed, cut)
    killed.write()
    resumed = TrialStore.read(Store(tmp_path / "killed"))
    searched(resumed, 18 - sum(trial.is_over for trial in resumed.trials))
    values = [trial.values["optim.*.lr"] for trial in undisturbed.trials]
    assert len(set(values)) == 18
    assert [trial.values["optim.*.lr"] for trial in resumed.trials] == values


def test_the_worst_quarter_goes_on_from_the_best() -> None:
    losses = {f"{i:04d}": float(i) for i in range(8)}
    pairs = select_replacements(losses, Random(0))
    assert [member for member, _ in pairs] == ["0006", "0007"]
    assert {donor for _, donor in pairs} <= {"0000", "0001"}
    donors = Counter(donor for seed in range(50) for _, donor in select_replacements(losses, Random(seed)))
    assert set(donors) == {"0000", "0001"}
    assert select_replacements({"0000": 1.0, "0001": 2.0}, Random(0)) == []


def test_the_shown_tablehas_a_row_a_trial(storage: str) -> None:
    plan = planned(storage)
    row = table(plan, [Trial(0, {"optim.*.lr": 0.1}, COMPLETE, 480, {"eval/frechet": 2.0}, 12.34)])[0]
    assert row["trial"] == "0000"
    assert (row["frechet"], row["optim.*.lr"], row["seconds"]) == (2.0, 0.1, 12.3)
