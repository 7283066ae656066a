"""Independent pieces of work in this process; tests/ray has them as Ray tasks."""

import sys

import pytest

from imagegen_dist.ray.tasks import run_tasks
from imagegen_dist.tasks import run_in_process


def double(number: int) -> int:
    return 2 * number


def double_and_tell(number: int, tell) -> int:
    tell(number)
    return 2 * number


def test_pieces_are_done_in_order_without_ray() -> None:
    loaded = "ray" in sys.modules
    assert list(run_in_process(double, [3, 1, 2])) == [(0, 6), (1, 2), (2, 4)]
    assert list(run_tasks(double, [3])) == [(0, 6)]
    assert list(run_tasks(double, [])) == []
    assert ("ray" in sys.modules) == loaded


def test_work_done_is_told() -> None:
    told: list[int] = []
    assert list(run_in_process(double_and_tell, [3, 1], advance=told.append)) == [(0, 6), (1, 2)]
    assert told == [3, 1]


def test_an_error_is_raised_as_it_is_and_ends_the_rest() -> None:
    results = run_in_process(lambda number: 1 // number, [1, 0, 1])
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
