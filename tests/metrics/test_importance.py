"""Importance of a value: 1 where all follows from it, about 0 where nothing does."""

from __future__ import annotations

import math
from random import Random

import pytest
from scipy import stats

from imagegen_dist.metrics.importance import importance, ranked


def test_all_of_it_where_the_order_follows_from_groups() -> None:
    values = ["a", "b", "c"] * 5
    assert importance(values, [ord(value) for value in values]) == pytest.approx(1.0)


def test_about_nothing_of_noise() -> None:
    random = Random(0)
    found = []
    for _ in range(200):
        share = importance([random.random() for _ in range(30)], [random.random() for _ in range(30)])
        assert share is not None
        found.append(share)
    assert sum(found) / len(found) < 0.06


def test_the_sign_and_the_shape_of_a_dependence_do_not_matter() -> None:
    values = [i / 40 for i in range(41)]
    valley = importance(values, [(value - 0.5) ** 2 for value in values])
    slope = importance(values, [-value for value in values])
    assert valley is not None
    assert slope is not None
    assert min(valley, slope) > 0.6


def test_it_is_epsilon_squared_of_the_kruskal_wallis_ranks() -> None:
    random = Random(1)
    groups = [[random.gauss(mean, 1) for _ in range(8)] for mean in (0, 0.5, 1.5)]
    values = [name for name, group in zip("abc", groups, strict=True) for _ in group]
    found = importance(values, [loss for group in groups for loss in group])
    n, k = 24, 3
    h = stats.kruskal(*groups).statistic
    eta_squared = h / (n - 1)  # without ties, H is (n - 1) SS_between / SS_total of the ranks
    assert found == pytest.approx(1 - (1 - eta_squared) * (n - 1) / (n - k))


def test_too_few_trials_say_nothing() -> None:
    assert importance([1, 2, 3], [3.0, 1.0, 2.0]) is None
    assert importance(["a"] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) is None
    assert importance(["a", "b"] * 3, [1.0] * 6) is None


def test_equal_losses_share_their_place() -> None:
    assert ranked([3.0, 1.0, math.inf, 1.0, math.inf]) == [2.0, 0.5, 3.5, 0.5, 3.5]
