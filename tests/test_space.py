"""Search spaces: what is drawn, what is written and read back, and the one line that answers an impossible one."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen_dist.config import ConfigError
from imagegen_dist.presets import find_preset
from imagegen_dist.schedule import constant
from imagegen_dist.sweep.searches import SEARCHES, Goal, find_search, parse_goals
from imagegen_dist.sweep.space import Choice, Range, as_grid, log_uniform, parse_space, space

DIGITS = find_preset("digits").experiment
BETWEEN = st.floats(0.0, 1.0)


@given(BETWEEN, st.booleans(), st.booleans())
def test_drawn_numbers_stay_in_their_range(share: float, log: bool, whole: bool) -> None:
    domain = Range(2, 300, log=log, whole=whole)
    value = domain.at(share)
    assert 2 <= value <= 300
    assert isinstance(value, int) == whole


def test_a_logarithmic_range_has_as_much_in_every_decade() -> None:
    values = [log_uniform(1e-4, 1.0).at((i + 0.5) / 4000) for i in range(4000)]
    decades = [sum(10.0**k <= value < 10.0 ** (k + 1) for value in values) for k in range(-4, 0)]
    assert all(abs(count - 1000) <= 2 for count in decades)


def test_every_whole_number_is_as_likely() -> None:
    values = [Range(1, 4, whole=True).at((i + 0.5) / 400) for i in range(400)]
    assert [values.count(number) for number in range(1, 5)] == [100] * 4


@given(BETWEEN, st.integers(0, 100))
def test_perturbed_numbers_are_near_and_in_range(share: float, seed: int) -> None:
    domain = log_uniform(1e-3, 1.0)
    value = domain.at(share)
    moved = domain.perturbed(value, Random(seed))
    assert 1e-3 <= moved <= 1.0
    assert abs(math.log(moved / value)) <= math.log(1.25) + 1e-3


def test_a_perturbed_whole_number_moves_by_one_at_least() -> None:
    domain = Range(1, 100, whole=True)
    assert {domain.perturbed(2, Random(seed)) for seed in range(20)} == {1, 3}


def test_a_perturbed_choice_is_a_neighbour() -> None:
    choice = Choice((1, 2, 4, 8))
    assert {choice.perturbed(2, Random(seed)) for seed in range(20)} == {1, 4}
    assert {choice.perturbed(8, Random(seed)) for seed in range(20)} == {4, 8}


def test_values_follow_from_seed_and_number_alone() -> None:
    drawn = space(objective__gamma=log_uniform(0.01, 10), optim__each__lr=log_uniform(1e-4, 1e-2))
    points = [drawn.point(number, seed=3) for number in range(20)]
    assert points == [drawn.point(number, seed=3) for number in reversed(range(20))][::-1]
    assert len({point["objective.gamma"] for point in points}) == 20
    assert drawn.point(0, seed=4) != points[0]


def test_a_grid_is_tried_in_full_and_other_values_are_drawn_beside_it() -> None:
    mixed = parse_space(["objective.gamma=grid:0.1,1", "model.widths=grid:16|16,32", "optim.*.lr=uniform:1e-4:1e-3"])
    points = [mixed.point(number, seed=0) for number in range(4)]
    assert {(point["objective.gamma"], point["model.widths"]) for point in points} == {
        *((0.1, 16), (0.1, "16,32")),
        *((1, 16), (1, "16,32")),
    }
    assert len({point["optim.*.lr"] for point in points}) == 4


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_fits_its_preset_and_can_be_written_and_read_back(name: str) -> None:
    search = find_search(name)
    search.space.check(find_preset(search.preset).experiment)
    assert parse_space(search.space.to_json()) == search.space


def test_trials_begin_in_a_part_of_a_range_and_a_population_leaves_it() -> None:
    written = "optim.*.lr=loguniform:1e-05:0.01:1e-05:5e-05"
    rates = parse_space([written])
    assert rates.to_json() == [written]
    begun = [rates.point(number, seed=0) for number in range(50)]
    assert all(1e-5 <= values["optim.*.lr"] <= 5e-5 for values in begun)
    later = [rates.perturbed(values, Random(number))["optim.*.lr"] for number, values in enumerate(begun)]
    assert all(1e-5 <= rate <= 0.01 for rate in later)
    assert max(later) > 1e-3  # drawn anew, from all of it


def test_a_star_gives_all_that_match_the_same_value() -> None:
    changed = parse_space(["optim.*.lr=choice:1e-4"]).apply(DIGITS, {"optim.*.lr": 1e-4})
    assert changed.optim.generator.lr == changed.optim.discriminator.lr == constant(1e-4)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("objective.gamma", "write PATH=KIND:VALUES"),
        ("objective.gamma=normal:0:1", "'normal' is not a kind of values"),
        ("objective.gamma=unifrom:0:1", "did you mean uniform?"),
        ("objective.gamma=uniform:1:0", "LOW must be below HIGH"),
        ("objective.gamma=uniform:1", "with two numbers"),
        ("objective.gamma=uniform:1:2:1", "or two more for those that trials start with"),
        ("objective.gamma=uniform:1:2:1:3", "the numbers that trials start with leave the range"),
        ("objective.gamma=loguniform:0:1", "needs LOW above 0"),
        ("objective.gamma=int:0.5:2", "whole numbers"),
        ("objective.gamma=choice:", "at least one value"),
        ("objective.gamma=choice:1,1", "is given twice"),
        ("objective.gama=uniform:0:1", "did you mean --objective.gamma?"),
        ("optim.*.rl=uniform:0:1", "no setting matches"),
        ("objective.gamma=uniform:-1:1", "gamma -1 is negative"),
        ("objective.loss=choice:hing,hinge", "did you mean hinge?"),
        ("training.total_images=int:10:20", "has no influence on what is learned"),
        ("evaluation.samples=int:10:20", "has no influence on what is learned"),
    ],
)
def test_an_impossible_space_is_answered_with_what_exists(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space([word]).check(DIGITS)
    assert said in str(caught.value)
    assert "--space" in str(caught.value)


def test_a_setting_may_not_be_changed_twice() -> None:
    with pytest.raises(ConfigError, match=r"optim\.generator\.lr is set by"):
        parse_space(["optim.*.lr=choice:1,2", "optim.generator.lr=choice:1"]).check(DIGITS)


def test_a_range_cannot_be_tried_in_full() -> None:
    with pytest.raises(ConfigError, match=r"write objective\.gamma=grid:A,B,C"):
        as_grid(parse_space(["objective.gamma=uniform:0:1"]))


def test_metrics_have_their_direction_by_their_kind() -> None:
    assert parse_goals("elbo", "", ()) == (Goal("eval/elbo", "max"),)
    assert parse_goals("vae/rate,distortion", "", ()) == (Goal("vae/rate"), Goal("eval/distortion"))
    assert parse_goals("frechet", "max", ()) == (Goal("eval/frechet", "max"),)
    for metric, mode in (("rate,elbo", "min,min,min"), ("rate", "less"), ("rate,rate", "")):
        with pytest.raises(ConfigError, match=r"give min or max|is given twice"):
            parse_goals(metric, mode, ())
    with pytest.raises(ConfigError, match=r"no evaluation computes this metric; did you mean eval/frechet\?"):
        parse_goals("frechett", "", ())
