"""A sweep in W&B, offline: a run a trial with its values, the same after a restart, and the sweep's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from imagegen_dist import config
from imagegen_dist.cli.sweep_options import Command, parse
from imagegen_dist.cli.sweep_run import build_plan
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.records import git_commit
from imagegen_dist.storage import Store
from imagegen_dist.sweep.results import closing_table, write_results
from imagegen_dist.sweep.trial import run_trial
from imagegen_dist.sweep.trial_store import Trial, TrialStore
from tests.sweep.test_sweep import SMALL
from tests.wandb_files import offline_run


def test_trials_are_runs_of_one_group_and_the_sweep_is_one_more(tmp_path: Path) -> None:
    words = ["digits", "--space", "optim.*.lr=grid:1e-4,1e-3", "--name", "s", "--storage", str(tmp_path)]
    command = parse([*words, *SMALL, "--wandb", "offline", "--evaluation.samples", "0", "--metric", "loss/generator"])
    assert isinstance(command, Command)
    plan = build_plan(command)
    trial_store = TrialStore(plan.folder)

    def train_trial(number: int, images: int) -> None:
        shorter = replace(plan, experiment=config.override(plan.experiment, "training.total_images", images))
        run_trial(Trial(number, plan.point(number)), shorter, trial_store.put)

    train_trial(0, 240)
    train_trial(0, 480)  # as after a restart: from its checkpoint
    train_trial(1, 480)
    messages: list[str] = []
    write_results(plan, messages.append)
    assert messages == []
    assert dict(closing_table(plan, "driver.log")[-1][1])["send to W&B"] == f"wandb sync {tmp_path}/.wandb/wandb"

    runs = [offline_run(run) for run in sorted((tmp_path / ".wandb").rglob("offline-run-*")) if run.is_dir()]
    assert {run["group"] for run in runs} == {"s"}
    assert all(run["ended"] for run in runs)
    trials = [run for run in runs if run["job_type"] != "sweep"]
    trials.sort(key=lambda run: (run["name"], run["rows"][0]["images"]))  # folders of one second have no order
    assert [run["name"] for run in trials] == ["s/0000", "s/0000", "s/0001"]
    assert trials[0]["id"] == trials[1]["id"] != trials[2]["id"]
    assert [run["config"]["values"] for run in trials] == [{"optim.*.lr": 1e-4}] * 2 + [{"optim.*.lr": 1e-3}]
    assert trials[1]["rows"][0]["images"] == 288
    assert [row["images"] for row in trials[2]["rows"] if "loss/generator" in row] == [96, 192, 288, 384, 480]

    index = DatasetIndex.load(Store(plan.settings.data))
    for run in trials:
        assert run["job_type"] == "train"
        assert {"digits", "gan", "r3gan"} <= set(run["tags"])
        assert run["config"]["dataset"]["fingerprint"] == index.fingerprint
        assert run["config"]["git_commit"] == git_commit()
        assert run["config"]["device"].startswith("CPU")

    [summary] = [run for run in runs if run["job_type"] == "sweep"]
    best = min(trial_store.trials, key=lambda trial: trial.figures["loss/generator"])
    assert summary["name"] == "s"
    assert summary["id"] not in {run["id"] for run in trials}
    assert summary["summary"]["best/trial"] == best.run
    assert summary["summary"]["best/optim.*.lr"] == best.values["optim.*.lr"]
    assert {"sweep/trials/nrows", "sweep/course_table/nrows", "sweep/report/path"} < set(summary["rows"][0])
