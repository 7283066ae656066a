import math

import numpy as np
import pytest
import scipy.linalg
import torch

from imagegen_dist.metrics.features import FeatureNetwork, agreement, feature_statistics
from imagegen_dist.metrics.frechet import Moments, frechet_distance


def moments_of(features):
    moments = Moments(features.shape[1])
    moments.add(features)
    return moments


def features(samples, dim, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return scale * torch.randn(samples, dim, generator=generator, dtype=torch.float64) @ mixing + seed


def whitened(samples, dim, seed):
    """Samples whose mean is exactly 0 and covariance exactly 1, up to rounding."""
    x = features(samples, dim, seed)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T


def test_mean_and_covariance_equal_numpy():
    x = features(50, 6, seed=3)
    moments = moments_of(x)
    np.testing.assert_allclose(moments.mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.cov, np.cov(x.numpy().T), rtol=1e-10, atol=1e-12)


def test_closed_form_of_axis_aligned_gaussians():
    x = whitened(64, 4, seed=1)
    shift, s, t = (
        torch.tensor([1.0, -2.0, 0.5, 0.0]),
        torch.tensor([1.0, 2.0, 0.1, 3.0]),
        torch.tensor([2.0, 0.5, 0.1, 1.0]),
    )
    expected = float(shift.square().sum() + (s - t).square().sum())
    assert frechet_distance(moments_of(x * s), moments_of(x * t + shift)) == pytest.approx(expected, abs=1e-10)


def test_equals_the_matrix_square_root_of_scipy():
    a, b = features(300, 12, seed=1), features(200, 12, seed=2, scale=0.7)
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    gap = a.numpy().mean(0) - b.numpy().mean(0)
    expected = gap @ gap + np.trace(cov_a + cov_b - 2 * scipy.linalg.sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(expected, rel=1e-8)


def test_a_distribution_is_at_distance_zero_of_itself_also_where_covariances_are_rank_deficient():
    x = features(5, 40, seed=1)
    assert frechet_distance(moments_of(x), moments_of(x)) == pytest.approx(0.0, abs=1e-8)


def test_rank_deficient_covariances_have_the_value_of_their_common_subspace():
    basis = torch.linalg.qr(torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    a, b = features(50, 3, seed=1), features(60, 3, seed=2)
    within = frechet_distance(moments_of(a), moments_of(b))
    assert frechet_distance(moments_of(a @ basis.T), moments_of(b @ basis.T)) == pytest.approx(within, rel=1e-9)


def test_a_constant_feature_is_no_obstacle():
    zeros = moments_of(torch.zeros(3, 2))
    assert frechet_distance(zeros, moments_of(torch.ones(3, 2))) == pytest.approx(2.0)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_any_sharding_gives_one_value(ranks):
    x, reference = features(101, 7, seed=1), moments_of(features(80, 7, seed=2))
    shards = [moments_of(part) for part in x.tensor_split(ranks)]
    sent = []
    for shard in shards:
        shard.reduce(lambda values: sent.append(values.clone()) or values)
    reduced = shards[0].reduce(lambda _: torch.stack(sent).sum(0))
    assert reduced.count == 101
    expected = frechet_distance(moments_of(x), reference)
    assert frechet_distance(reduced, reference) == pytest.approx(expected, rel=1e-11)
    merged = shards[0]
    for shard in shards[1:]:
        merged = merged.merge(shard)
    assert frechet_distance(merged, reference) == pytest.approx(expected, rel=1e-11)


def test_a_rank_without_samples_takes_part_in_the_reduction():
    assert Moments(3).reduce(lambda values: values).count == 0


def test_encoded_moments_are_restored_exactly():
    moments = moments_of(features(10, 4, seed=1))
    restored = Moments.decode(moments.encode())
    assert restored.count == moments.count
    assert torch.equal(restored.mean, moments.mean)
    assert torch.equal(restored.cov, moments.cov)


def test_fewer_than_two_samples_are_refused():
    with pytest.raises(ValueError, match="at least 2 samples are needed, not 1"):
        frechet_distance(moments_of(torch.zeros(1, 3)), moments_of(torch.zeros(5, 3)))


def test_features_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\[B, 3\] is expected"):
        Moments(3).add(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="cannot be compared"):
        frechet_distance(moments_of(torch.zeros(2, 3)), moments_of(torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="cannot be merged"):
        Moments(3).merge(Moments(4))


def test_a_feature_that_is_not_finite_gives_nan():
    x = torch.ones(4, 2)
    x[0, 0] = math.inf
    assert math.isnan(frechet_distance(moments_of(x), moments_of(torch.ones(4, 2))))


def test_feature_statistics_count_every_batch_without_gradients():
    layer = torch.nn.Linear(2 * 3 * 3, 5)
    network = FeatureNetwork("linear", "0" * 64, 5, features=lambda x: layer(x.flatten(1)))
    batches = [torch.rand(4, 2, 3, 3), torch.rand(3, 2, 3, 3)]
    moments = feature_statistics(network, batches)
    assert moments.count == 7
    torch.testing.assert_close(moments.mean, layer(torch.cat(batches).flatten(1)).mean(0).detach().double())
    assert not moments.mean.requires_grad
    assert feature_statistics(network, [], device="cpu").count == 0


def test_agreement_is_one_where_the_likeliest_class_is_the_label():
    logits = torch.tensor([[0.1, 0.9], [2.0, 1.0], [0.0, 1.0]])
    assert agreement(logits, torch.tensor([1, 1, 1])).tolist() == [1.0, 0.0, 1.0]
