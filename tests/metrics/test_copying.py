import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu, norm
from sklearn.neighbors import NearestNeighbors

from imagegen_dist.metrics.copying import closeness, copying_z, nearest_neighbours


def features(count, dim=20, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_neighbours_are_scikit_learns():
    queries, among = features(300), features(500, seed=1)
    found = nearest_neighbours(queries, among, 5)
    distances, rows = (
        NearestNeighbors(n_neighbors=5, algorithm="brute").fit(among.double()).kneighbors(queries.double())
    )
    assert np.array_equal(found.rows, rows)
    assert found.distances.numpy() == pytest.approx(distances, rel=1e-9)


def test_an_equal_row_is_at_no_distance_however_large_its_values():
    among = features(50) * 1e3 + 1e5
    found = nearest_neighbours(among[[7, 30]], among, 2)
    assert found.rows[:, 0].tolist() == [7, 30]
    assert found.distances[:, 0].tolist() == [0, 0]


def test_fewer_rows_than_neighbours_are_refused():
    assert nearest_neighbours(features(2), features(3), 3).rows.shape == (2, 3)
    with pytest.raises(ValueError, match="4 neighbours among 3"):
        nearest_neighbours(features(2), features(3), 4)


def test_closeness_is_a_multiple_of_the_distance_between_training_samples():
    among = torch.tensor([[0.0], [10.0], [16.0]])
    queries = torch.tensor([[3.0], [10.0], [22.0], [40.0]])
    assert closeness(nearest_neighbours(queries, among, 1), among).tolist() == pytest.approx([0.3, 0, 1, 4])
    twice = torch.tensor([[0.0], [0.0], [5.0]])
    assert closeness(nearest_neighbours(torch.tensor([[0.0], [1.0]]), twice, 1), twice).tolist() == [0, float("inf")]


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct", "ties"])
def test_the_z_score_is_that_of_scipys_rank_test(rounded):
    generator = torch.Generator().manual_seed(0)
    samples, held_out = (torch.rand(n, generator=generator, dtype=torch.float64) for n in (200, 150))
    held_out = held_out**0.8
    if rounded:
        samples, held_out = samples.mul(10).round(), held_out.mul(10).round()
    theirs = mannwhitneyu(samples, held_out, alternative="less", use_continuity=False, method="asymptotic")
    assert norm.cdf(copying_z(samples, held_out)) == pytest.approx(theirs.pvalue, rel=1e-9)


def test_the_z_score_is_zero_where_all_is_equal_and_falls_where_samples_are_nearer():
    ones = torch.ones(20)
    assert copying_z(ones, ones) == 0
    assert copying_z(torch.zeros(20), ones) < -5
    assert copying_z(ones, torch.zeros(20)) == -copying_z(torch.zeros(20), ones)
