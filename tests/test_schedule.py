import json
from math import cos, inf, nan, pi

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen_dist.schedule import Schedule, constant

values = st.floats(-1e6, 1e6)
schedules = st.builds(Schedule, values, values, st.integers(0, 10**9))


@pytest.mark.parametrize("images", [0, 1, 400, 999])
def test_a_cosine_leads_from_start_to_end(images):
    expected = 0.1 + (1.0 - 0.1) * (1 + cos(pi * images / 1000)) / 2
    assert Schedule(1.0, 0.1, 1000)(images) == pytest.approx(expected, rel=1e-15)


def test_it_begins_at_start_passes_the_mean_half_way_and_stays_at_end():
    schedule = Schedule(2.0, 1.0, 1000)
    assert schedule(0) == 2.0
    assert schedule(500) == pytest.approx(1.5, rel=1e-15)
    assert [schedule(images) for images in (1000, 1001, 10**12)] == [1.0, 1.0, 1.0]


def test_a_constant_never_changes():
    assert {constant(0.3)(images) for images in (0, 1, 10**9)} == {0.3}


@given(schedules, st.lists(st.integers(0, 2 * 10**9), min_size=2, max_size=2).map(sorted))
def test_it_is_monotone_and_never_below_its_minimum(schedule, moments):
    first, second = schedule(moments[0]), schedule(moments[1])
    rising = schedule.end >= schedule.start
    slack = 1e-9 * max(abs(schedule.start), abs(schedule.end), 1)
    assert (second - first if rising else first - second) >= -slack
    assert min(first, second) >= schedule.minimum - slack


@given(schedules)
def test_json_and_back_is_the_same_schedule(schedule):
    assert Schedule.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (2, constant(2.0)),
        ("0.1", constant(0.1)),
        ("1e-4", constant(1e-4)),
        ("1:0.1:2000", Schedule(1.0, 0.1, 2000)),
        ("1:0.1:2e6", Schedule(1.0, 0.1, 2_000_000)),
        ({"start": 1, "end": 2, "images": 3}, Schedule(1.0, 2.0, 3)),
        ({"start": 2, "end": 2}, constant(2.0)),
    ],
)
def test_what_people_write_is_read(data, expected):
    assert Schedule.from_json(data) == expected


@pytest.mark.parametrize("schedule", [constant(0.1), Schedule(1.0, 0.25, 2000)])
def test_its_text_can_be_read_back(schedule):
    assert Schedule.from_json(str(schedule)) == schedule


def test_equal_schedules_have_one_form():
    assert Schedule(1, 2, 3) == Schedule(1.0, 2.0, 3)
    assert json.dumps(Schedule(0, 5, 10).to_json()) == json.dumps(Schedule(0.0, 5.0, 10).to_json())
    assert Schedule(7.0, 2.0, 0) == constant(2.0)


@pytest.mark.parametrize(
    "data",
    [
        *("", "x", "1:2", "1:2:3:4", "1:2:x", "1:2:3.5", "1:2:inf", "nan", True, None, [1.0], {"start": 1}, {}),
        {"start": 1, "end": 2, "imagse": 3},
        {"start": 1, "end": 2, "images": -1},
        {"start": None, "end": 2},
    ],
)
def test_anything_else_is_refused_in_one_line(data):
    with pytest.raises(ValueError) as caught:
        Schedule.from_json(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fields", [(nan, 1.0, 5), (1.0, inf, 5), (1.0, 2.0, -1)])
def test_values_that_no_schedule_takes_are_refused(fields):
    with pytest.raises(ValueError, match="finite values and images >= 0"):
        Schedule(*fields)
