"""The one table of metrics: entries, families, and what a user's own file adds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imagegen_dist import metric_table
from imagegen_dist.metric_table import Metric, describe, register, registered
from imagegen_dist.metrics.formatting import figure_lines
from imagegen_dist.sweep.searches import Goal, parse_goals


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The table, in which nothing stays that a test adds."""
    monkeypatch.setattr(metric_table, "_TABLE", dict(metric_table._TABLE))
    return None


def test_every_reference_is_registered_and_has_no_reference_of_its_own() -> None:
    for metric in registered():
        if metric.reference:
            assert not describe(metric.reference).reference
            assert metric.reference in {each.name for each in registered()}


def test_names_are_in_full_and_large_figures_have_a_direction() -> None:
    for metric in registered():
        assert metric.group
        assert metric.plain
        assert metric.group in metric_table.GROUPS
        assert not metric.headline or metric.better != "neither"


def test_a_member_of_a_family_has_its_own_name_and_label() -> None:
    level = describe("eval/rate_level_2")
    assert (level.name, level.label, level.unit) == ("eval/rate_level_2", "rate of level 2", "nats per sample")
    assert describe("loss/discriminator").label == "discriminator loss"


def test_a_member_of_a_family_is_compared_with_the_member_of_another_and_named_without_its_group() -> None:
    assert describe("eval/r2/slant").reference == "eval/r2_real/slant"
    [line] = figure_lines({"eval/agreement/digit": 0.979, "eval/agreement_real/digit": 0.975})
    assert (line.label, line.full_value) == ("agreement of digit", "97.9% (held-out real samples: 97.5%)")
    assert parse_goals("r2/slant", "", ()) == (Goal("eval/r2/slant", "max"),)
    assert parse_goals("vae/rate", "", ()) == (Goal("vae/rate", "min"),)


def test_what_is_not_registered_is_a_plain_number_under_its_own_name() -> None:
    unknown = describe("system/steps_per_s")
    assert (unknown.label, unknown.better, unknown.form) == ("steps, s", "neither", "number")
    assert (unknown.words, unknown.section) == ("steps/s", "infrastructure")
    assert describe("images").words == "images"


@pytest.mark.usefixtures("table")
def test_one_entry_of_a_users_file_is_all_that_tables_and_sweeps_need() -> None:
    register(
        Metric("eval/sharpness", "sharpness", "higher", "lines", reference="eval/sharpness_real"),
        Metric("eval/sharpness_real", "sharpness of held-out samples"),
    )
    [line] = figure_lines({"eval/sharpness": 0.25, "eval/sharpness_real": 0.5})
    assert line.full_value == "0.2500 lines (held-out real samples: 0.5000)"
    assert line.direction == "higher is better"
    assert parse_goals("sharpness", "", ()) == (Goal("eval/sharpness", "max"),)


@pytest.mark.usefixtures("table")
def test_a_metric_may_be_registered_again_but_not_as_another() -> None:
    metric = Metric("eval/sharpness", better="higher")
    register(metric)
    register(metric)
    with pytest.raises(ValueError, match="another metric 'eval/sharpness' is registered"):
        register(Metric("eval/sharpness", better="lower"))
    for name in ("sharpness", "/sharpness", "eval/"):
        with pytest.raises(ValueError, match="has no group"):
            register(Metric(name))
