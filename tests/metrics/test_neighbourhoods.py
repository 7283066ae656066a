import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from imagegen_dist.metrics import neighbourhoods as module
from imagegen_dist.metrics.neighbourhoods import Neighbourhoods, neighbourhoods


def features(samples, dim, seed, shift=0.0):
    return torch.randn(samples, dim, generator=torch.Generator().manual_seed(seed)) + shift


def by_scikit_learn(generated, real, precision_k, density_k):
    """The same from sorted neighbours, one ball after another."""

    def radii(points, k):
        distance, _ = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(points).kneighbors(points)
        return distance[:, k]

    def inside(points, centres, k):
        """[N, M]: whether a point lies in a centre's ball."""
        gaps = np.linalg.norm(points[:, None] - centres[None], axis=2)
        return gaps <= radii(centres, k)

    crowd = inside(generated, real, density_k)
    return Neighbourhoods(
        precision=inside(generated, real, precision_k).any(1).mean(),
        recall=inside(real, generated, precision_k).any(1).mean(),
        density=crowd.sum(1).mean() / density_k,
        coverage=crowd.any(0).mean(),
    )


@pytest.mark.parametrize("rows", [512, 7])
def test_equal_those_of_sorted_neighbours(rows, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", rows)
    generated, real = features(60, 5, seed=1, shift=0.7), features(83, 5, seed=2)
    expected = by_scikit_learn(generated.double().numpy(), real.double().numpy(), 3, 5)
    found = neighbourhoods(generated, real)
    assert 0 < found.precision < 1
    assert 0 < found.recall < 1
    assert found == expected


def test_a_set_compared_with_itself():
    x = features(40, 3, seed=1)
    # Each ball holds its own centre and k neighbours.
    assert neighbourhoods(x, x) == Neighbourhoods(precision=1, recall=1, density=pytest.approx(6 / 5), coverage=1)


def test_a_generator_of_one_sample_is_precise_and_covers_next_to_nothing():
    real = features(50, 3, seed=1)
    found = neighbourhoods(real[:1].repeat(50, 1), real)
    assert found.precision == 1
    assert found.recall == pytest.approx(1 / 50)
    assert found.coverage <= 12 / 50


def test_samples_far_from_all_real_ones_have_nothing():
    real = features(50, 3, seed=1)
    assert neighbourhoods(features(50, 3, seed=2, shift=100), real) == Neighbourhoods(0, 0, 0, 0)


def test_a_shift_common_to_both_sides_changes_nothing():
    generated, real = features(40, 3, seed=1), features(40, 3, seed=2)
    assert neighbourhoods(generated.double() + 1e6, real.double() + 1e6) == neighbourhoods(generated, real)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="more than 5 samples per side, and there are 5 generated and 9 real"):
        neighbourhoods(torch.zeros(5, 2), torch.zeros(9, 2))


def test_a_feature_that_is_not_finite_gives_nan():
    broken = features(9, 2, seed=1)
    broken[0, 0] = math.nan
    assert math.isnan(neighbourhoods(broken, features(9, 2, seed=2)).precision)
