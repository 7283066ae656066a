"""The page about a sweep: where trials are drawn, what is left out, and that nothing in it is cut or trusted."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen_dist.metrics.sweep_report import (
    Strip,
    TradeOff,
    TrialView,
    importances,
    lineage,
    parallel,
    place,
    rate_distortion,
    relative_ranks,
    render_sweep_report,
)

LABELS = {"optim.*.lr": "lr", "objective.gamma": "gamma"}


def trial(number: int, lr: float | str, gamma: float, loss: float, **changes) -> TrialView:
    view = TrialView(
        f"{number:04d}",
        {"optim.*.lr": lr, "objective.gamma": gamma},
        {"frechet": loss},
        loss,
        "complete",
        images=100,
        member=number,
        curve=[(50, loss + 1), (100, loss)],
    )
    return replace(view, **changes)


def page(trials: list[TrialView], **changes) -> str:
    arguments = {"title": "s", "facts": [], "figures": [], "labels": LABELS, "best": trials[0].name, "front": []}
    return render_sweep_report(trials=trials, **arguments | {"trade_off": None, "commands": []} | changes)


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


def test_lines_go_through_values_and_figures_and_leave_out_who_has_none() -> None:
    trials = [trial(0, 1e-4, 1.0, 5.0), trial(1, 1e-2, 2.0, 3.0), trial(2, 1e-3, 1.0, 4.0, figures={})]
    ranks = {each.name: rank for each, rank in zip(trials, relative_ranks([5.0, 3.0, 4.0]), strict=True)}
    axes, threads = parallel(trials, LABELS, ["frechet"], ranks)
    assert [axis.label for axis in axes] == ["lr", "gamma", "frechet"]
    assert [(thread.name, thread.rank) for thread in threads] == [("0000", 1.0), ("0001", 0.0)]
    assert threads[0].path == "M0.0 1000.0L500.0 1000.0L1000.0 0.0"


def test_a_line_over_rate_and_distortion_goes_by_rate() -> None:
    strips = [Strip("β 4", 10, 50), Strip("β 1", 30, 20), Strip("β 2", 20, 30)]
    scatter = rate_distortion(TradeOff(strips, [("0007", 40, 60)]))
    xs = [float(x) for x in re.findall(r"[ML]([\d.]+) ", scatter.path)]
    assert xs == sorted(xs)
    assert [label for _, _, label in scatter.points] == ["β 4", "β 1", "β 2"]
    assert scatter.others == [(1000.0, 0.0, "0007")]
    assert rate_distortion(TradeOff(strips, joined=False)).path == ""


def test_a_population_has_a_row_a_member_and_a_link_from_each_parent() -> None:
    first = [trial(0, 1e-4, 1.0, 5.0, state="replaced", images=50), trial(1, 1e-3, 1.0, 3.0)]
    heir = trial(0, 1e-3, 1.0, 2.0, name="0000-g1", parent="0001", start=50)
    trials = [*first, heir]
    found = lineage(trials, {"0000": 1.0, "0001": 0.5, "0000-g1": 0.0})
    assert [tick.text for tick in found.members] == ["0000", "0001"]
    assert found.links == ["M500.0 750.0L500.0 250.0"]
    shown = page(trials)
    assert "Lineage" in shown
    assert "Importance" not in shown
    assert importances(trials, LABELS) == []


def test_what_the_page_is_given_is_shown_and_not_trusted() -> None:
    shown = page([trial(0, "<script>x</script>", 1.0, 5.0), trial(1, 1e-3, 2.0, 3.0, note="a & b")], title="<b>s")
    assert "<script>x" not in shown
    assert "<b>s" not in shown
    assert "a &amp; b" in shown


def test_nothing_is_drawn_of_a_sweep_without_figures() -> None:
    bare = [trial(i, 1e-3, 1.0, float("inf"), figures={}, curve=(), state="failed") for i in range(2)]
    shown = page(bare, best="")
    headings = ("Values and figures", "Rate and distortion", "Course", "Importance", "Lineage", "Samples of the best")
    for heading in headings:
        assert f"<h2>{heading}" not in shown
    assert shown.count("failed") == 2
