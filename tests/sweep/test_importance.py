"""Importance of settings: nearly 1 for the one that decides, about 0 for one that does nothing."""

from __future__ import annotations

import math
from random import Random

import pytest

from imagegen_dist.sweep.optuna_study import MIN_JUDGED, average_ranks, importances
from imagegen_dist.sweep.space import Space, parse_space

RATE, GAMMA = "optim.*.lr", "objective.gamma"
SPACE = parse_space([f"{RATE}=loguniform:1e-4:1e-1", f"{GAMMA}=choice:0.1,1,10"])


def judged(loss, number: int = 24, space: Space = SPACE) -> dict[str, float]:
    points = [space.point(i, seed=0) for i in range(number)]
    return importances(space, [(values, loss(values)) for values in points])


@pytest.mark.parametrize("sign", [1, -1])
def test_the_setting_that_decides_has_nearly_all_of_it_whatever_the_shape(sign: int) -> None:
    """A valley in the middle of a logarithmic range, and a ridge."""
    found = judged(lambda values: sign * abs(math.log10(values[RATE]) + 2.5))
    assert list(found) == [RATE, GAMMA]
    assert found[RATE] > 0.8
    assert found[GAMMA] < 0.1
    assert found == judged(lambda values: sign * abs(math.log10(values[RATE]) + 2.5))


def test_a_choice_that_decides_and_trials_that_diverged() -> None:
    """Infinite losses are the worst ones, and say as much as others."""
    found = judged(lambda values: math.inf if values[GAMMA] == 10 else values[GAMMA] + 1e-3 * values[RATE])
    assert found[GAMMA] > 0.8


def test_it_is_not_judged_from_too_little() -> None:
    random = Random(0)
    assert judged(lambda values: random.random(), MIN_JUDGED - 1) == {}
    assert judged(lambda values: 1.0) == {}
    assert judged(lambda values: random.random(), space=parse_space([f"{RATE}=uniform:0:1"])) == {}
    assert len(judged(lambda values: random.random(), MIN_JUDGED)) == 2


def test_equal_losses_share_their_rank() -> None:
    assert average_ranks([3.0, 1.0, math.inf, 1.0, math.inf]) == [2.0, 0.5, 3.5, 0.5, 3.5]
