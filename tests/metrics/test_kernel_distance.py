import itertools
import math

import numpy as np
import pytest
import torch

from imagegen_dist.metrics.frechet import Moments
from imagegen_dist.metrics.kernel_distance import jedi, kernel_distance, mmd2


def features(samples, dim, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, dim, generator=generator, dtype=torch.float64) + shift


def test_estimate_is_the_mean_over_pairs_of_different_samples():
    a, b = features(7, 3, seed=1).numpy(), features(5, 3, seed=2).numpy()

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    within_a = np.mean([kernel(x, y) for x, y in itertools.permutations(a, 2)])
    within_b = np.mean([kernel(x, y) for x, y in itertools.permutations(b, 2)])
    between = np.mean([kernel(x, y) for x in a for y in b])
    estimate = float(mmd2(torch.from_numpy(a), torch.from_numpy(b)))
    assert estimate == pytest.approx(within_a + within_b - 2 * between, rel=1e-12)


def test_closed_form_of_two_points():
    # Of one feature, the kernel is 1 + 3xy + 3x²y² + x³y³: the distance sums squared gaps of the first three moments.
    ones, twos = torch.ones(4, 1), torch.full((6, 1), 2.0)
    expected = 3 * (2 - 1) ** 2 + 3 * (4 - 1) ** 2 + (8 - 1) ** 2
    assert kernel_distance(ones, twos, subsets=3, subset_size=4) == (pytest.approx(expected), 0.0)


def test_a_subset_of_all_samples_is_the_estimate_itself_whatever_the_seed():
    a, b = features(20, 4, seed=1), features(20, 4, seed=2, shift=0.5)
    whole = float(mmd2(a, b))
    mean, deviation = kernel_distance(a, b, subsets=5, subset_size=20, seed=3)
    assert mean == pytest.approx(whole, rel=1e-10)
    assert deviation == pytest.approx(0.0, abs=1e-10)


def test_estimates_are_centred_on_the_truth_and_repeat_with_the_seed():
    a, b = features(400, 4, seed=1), features(400, 4, seed=2)
    mean, deviation = kernel_distance(a, b, subsets=50, subset_size=100)
    assert abs(mean) < deviation
    assert kernel_distance(a, b, subsets=50, subset_size=100) == (mean, deviation)
    assert kernel_distance(a, b, subsets=50, subset_size=100, seed=1) != (mean, deviation)
    assert kernel_distance(a, b + 0.5, subsets=50, subset_size=100)[0] > mean + 5 * deviation


def test_a_side_with_fewer_samples_than_a_subset_is_refused():
    with pytest.raises(ValueError, match=r"one side has 10; set --kid-subset-size to 2 to 10"):
        kernel_distance(torch.zeros(10, 2), torch.zeros(50, 2), subset_size=20)


def test_a_feature_that_is_not_finite_gives_nan():
    broken = torch.ones(4, 2)
    broken[0, 0] = math.inf
    assert all(math.isnan(value) for value in kernel_distance(broken, torch.ones(4, 2), subset_size=4))


def test_jedis_estimator_from_moments_is_that_over_all_pairs():
    a, b = features(9, 3, seed=1), features(6, 3, seed=2, shift=0.5)
    found = []
    for rows in (a, b):
        found.append(Moments(3))
        found[-1].add(rows)

    def kernel(x, y):
        return (x @ y.T / 3).pow(2).mean()

    pairs = float(kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))
    assert jedi(*found) == pytest.approx(100 * pairs, rel=1e-10)
