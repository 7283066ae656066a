"""The page about a sweep: where trials are drawn, what is left out, and that nothing in it is cut or trusted."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen_dist.metrics.sinks import JSONLSink
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.sweep.plan import TRIALS, SweepPlan, TrialDemand
from imagegen_dist.sweep.plots import Strip, TradeOff, lineage, parallel, place, rate_distortion
from imagegen_dist.sweep.report import Findings, find, report_page, short_names
from imagegen_dist.sweep.searches import Goal
from imagegen_dist.sweep.space import parse_space
from imagegen_dist.sweep.trial_store import COMPLETE, FAILED, REPLACED, Trial

METRIC = "eval/frechet"


def planned(folder: Path, name: str = "s") -> SweepPlan:
    return SweepPlan(
        search="gan-lr",
        experiment=find_preset("digits").experiment,
        settings=RunSettings(name, str(folder), "digits", "train_gan", "data"),
        space=parse_space(["optim.*.lr=loguniform:1e-5:1e-1", "objective.gamma=loguniform:0.01:10"]),
        goals=(Goal(METRIC),),
        searcher="random",
        scheduler="none",
        trials=8,
        seed=0,
        demand=TrialDemand(),
    )


def trial(number: int, lr: float | str, gamma: float, loss: float, **changes: Any) -> Trial:
    values = {"optim.*.lr": lr, "objective.gamma": gamma}
    return replace(Trial(number, values, COMPLETE, images=100, figures={METRIC: loss}), **changes)


def found_in(plan: SweepPlan, trials: list[Trial]) -> Findings:
    return find(plan, trials, {each.run: each.score(plan.goals)[0] for each in trials})


def page(folder: Path, trials: list[Trial], name: str = "s") -> str:
    plan = planned(folder, name)
    return report_page(plan, found_in(plan, trials), None, [])


@given(st.lists(st.integers(-(10**6), 10**6).map(lambda n: n / 1000), min_size=1, max_size=30))
def test_every_number_and_tick_lies_on_its_axis(column: list[float]) -> None:
    ticks, heights = place(column)
    assert all(-1e-9 <= height <= 100 + 1e-9 for height in heights)
    assert all(-1e-9 <= tick.position <= 100 + 1e-9 for tick in ticks)
    assert 1 <= len(ticks) <= 15
    order = sorted(range(len(column)), key=lambda i: column[i])
    assert [heights[i] for i in order] == sorted(heights)


def test_numbers_of_a_grid_are_the_ticks() -> None:
    ticks, heights = place([0.25, 8, 0.5, 1, 2, 4])
    assert [tick.text for tick in ticks] == ["0.25", "0.5", "1", "2", "4", "8"]
    assert sorted(heights) == pytest.approx([tick.position for tick in ticks])
    assert heights == pytest.approx([0, 100, 20, 40, 60, 80])


def test_values_that_are_no_numbers_have_a_shelf_each() -> None:
    ticks, heights = place(["1e-3:1e-4:10", 1e-4, "1e-3:1e-4:10"])
    assert [tick.text for tick in ticks] == ["1e-3:1e-4:10", "0.0001"]
    assert heights == [25.0, 75.0, 25.0]


def test_lines_go_through_values_and_metrics() -> None:
    axes, threads = parallel({"lr": [1e-4, 1e-2], "gamma": [1.0, 2.0], "frechet": [5.0, 3.0]}, [1.0, 0.0], ["a", "b"])
    assert [axis.label for axis in axes] == ["lr", "gamma", "frechet"]
    assert [(thread.caption, thread.rank) for thread in threads] == [("a", 1.0), ("b", 0.0)]
    assert threads[0].path == "M0.0 1000.0L500.0 1000.0L1000.0 0.0"


def test_trials_without_metrics_have_no_line(tmp_path: Path) -> None:
    trials = [trial(0, 1e-4, 1.0, 5.0), trial(1, 1e-2, 2.0, 3.0), trial(2, 1e-3, 1.0, 4.0, figures={})]
    shown = page(tmp_path, trials)
    assert shown.count('<path class="ranked') == 2


def test_a_line_over_rate_and_distortion_goes_by_rate() -> None:
    strips = [Strip("β 4", 10, 50), Strip("β 1", 30, 20), Strip("β 2", 20, 30)]
    scatter = rate_distortion(TradeOff(strips, [("0007", 40, 60)]))
    xs = [float(x) for x in re.findall(r"[ML]([\d.]+) ", scatter.path)]
    assert xs == sorted(xs)
    assert [label for _, _, label in scatter.points] == ["β 4", "β 1", "β 2"]
    assert scatter.others == [(1000.0, 0.0, "0007")]
    assert rate_distortion(TradeOff(strips, joined=False)).path == ""


def test_a_population_has_a_row_a_member_and_a_link_from_each_parent(tmp_path: Path) -> None:
    first = [trial(0, 1e-4, 1.0, 5.0, state=REPLACED, images=50), trial(1, 1e-3, 1.0, 3.0)]
    heir = trial(0, 1e-3, 1.0, 2.0, generation=1, parent="0001", born=50)
    trials = [*first, heir]
    found = lineage(trials, {"0000": 1.0, "0001": 0.5, "0000-g1": 0.0})
    assert [tick.text for tick in found.members] == ["0000", "0001"]
    assert found.links == ["M500.0 750.0L500.0 250.0"]
    shown = page(tmp_path, [*trials, *(trial(i, 1e-3 * i, i, i) for i in range(2, 9))])
    assert "Lineage" in shown
    assert "Importance" not in shown  # its members had other values before


def test_curves_ranks_and_importance_are_found_in_the_runs(tmp_path: Path) -> None:
    trials = [trial(i, 1e-4 * 2**i, 1.0 + i % 2, 10.0 - i) for i in range(8)]
    plan = planned(tmp_path)
    sink = JSONLSink(plan.folder / TRIALS / "0003")
    for images, value in ((50.0, 9.0), (100.0, float("nan"))):
        sink.log({"images": images, METRIC: value})
    sink.close()
    found = found_in(plan, trials)
    assert found.curves["0003"] == [(50.0, 9.0), (100.0, None)]
    assert (found.ranks["0007"], found.ranks["0000"]) == (0.0, 1.0)
    assert list(found.importances) == ["lr", "gamma"]
    stopped = [replace(each, state="stopped early") for each in trials[:4]]
    assert found_in(plan, [*stopped, *trials[4:]]).importances == {}  # too few came to the end
    assert "Importance of each setting" in report_page(plan, found, trials[7], [])


def test_without_optuna_the_report_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    shown = page(tmp_path, [trial(i, 1e-4 * 2**i, 1.0 + i % 2, 10.0 - i) for i in range(8)])
    assert "The importance of each setting needs Optuna and scikit-learn: pip install" in shown


def test_what_the_page_is_given_is_shown_and_not_trusted(tmp_path: Path) -> None:
    trials = [trial(0, "<script>x</script>", 1.0, 5.0), trial(1, 1e-3, 2.0, 3.0, note="a & b")]
    shown = page(tmp_path, trials, "<b>s")
    assert "<script>x" not in shown
    assert "<b>s" not in shown
    assert "a &amp; b" in shown


def test_nothing_is_drawn_of_a_sweep_without_metrics(tmp_path: Path) -> None:
    shown = page(tmp_path, [trial(i, 1e-3, 1.0, 0.0, figures={}, state=FAILED) for i in range(2)])
    for heading in ("Values and metrics", "Rate and distortion", "Training curves", "Importance", "Lineage", "Samples"):
        assert f"<h2>{heading}" not in shown
    assert shown.count("<td>failed") == 2


def test_short_names_are_as_long_as_they_have_to_be() -> None:
    paths = ["optim.generator.lr", "optim.discriminator.lr", "objective.gamma"]
    assert list(short_names(paths).values()) == ["generator.lr", "discriminator.lr", "gamma"]
