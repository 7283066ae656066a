from itertools import permutations
from math import exp, log, pi, prod

import pytest
import torch
from torch import Tensor

from imagegen_dist.objectives.latents import Gaussian, standard_normal_log_prob
from imagegen_dist.objectives.total_correlation import decompose, importance_weights, marginals

ESTIMATORS = ["mws", "mss"]


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> float:
    z, mean, log_variance = float(z), float(mean), float(log_variance)
    return exp(-0.5 * (z - mean) ** 2 / exp(log_variance)) / (2 * pi * exp(log_variance)) ** 0.5


def brute_force(z: Tensor, mean: Tensor, log_variance: Tensor, weights: Tensor) -> tuple[list[float], list[float]]:
    """log q(z_i) and log prod_j q(z_ij), sum by sum."""
    size, latents = z.shape
    joint, product = [], []
    for i in range(size):
        q = [[normal(z[i, j], mean[m, j], log_variance[m, j]) for j in range(latents)] for m in range(size)]
        together = [prod(row) for row in q]
        joint.append(log(sum(weights[i, m].item() * together[m] for m in range(size))))
        alone = [sum(weights[i, m].item() * q[m][j] for m in range(size)) for j in range(latents)]
        product.append(sum(log(value) for value in alone))
    return joint, product


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_marginals_are_those_of_brute_force(estimator):
    z, mean, log_variance = random(4, 3), random(4, 3, seed=1), random(4, 3, seed=2)
    joint, product = brute_force(z, mean, log_variance, importance_weights(4, 10, estimator))
    found = marginals(z, mean, log_variance, 10, estimator)
    torch.testing.assert_close(found.joint, torch.tensor(joint, dtype=torch.float64))
    torch.testing.assert_close(found.product, torch.tensor(product, dtype=torch.float64))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dims", [(3,), (2, 2, 2)])
def test_the_parts_sum_to_the_rate_at_z(estimator, dims):
    z, mean, log_variance = random(5, *dims), random(5, *dims, seed=1), random(5, *dims, seed=2)
    parts = decompose(z, mean, log_variance, 100, estimator)
    rate = Gaussian(mean, log_variance).log_prob(z) - standard_normal_log_prob(z)
    assert all(part.shape == (5,) for part in parts)
    torch.testing.assert_close(sum(parts), rate)


def test_mss_weights_are_those_of_the_papers_appendix():
    size, dataset = 4, 10
    expected = {0: 1 / 10, 1: (10 - 3) / (10 * 3), 2: 1 / 3, 3: 1 / 3}
    weights = importance_weights(size, dataset, "mss")
    for row in range(size):
        for step, weight in expected.items():
            assert weights[row, (row + step) % size].item() == pytest.approx(weight)
    torch.testing.assert_close(weights.sum(1), torch.ones(size, dtype=torch.float64))


def test_mws_weights_are_one_over_dataset_times_minibatch():
    torch.testing.assert_close(importance_weights(4, 10, "mws"), torch.full((4, 4), 1 / 40, dtype=torch.float64))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_mss_is_unbiased_over_all_minibatches_that_hold_a_sample(size):
    dataset, latents = 5, 2
    mean, log_variance, z = random(dataset, latents), random(dataset, latents, seed=1), random(1, latents, seed=2)
    exact = sum(
        Gaussian(mean[m : m + 1], log_variance[m : m + 1]).log_prob(z).exp().item() / dataset for m in range(dataset)
    )
    estimates = []
    for others in permutations(range(1, dataset), size - 1):
        chosen = [0, *others]
        found = marginals(z.expand(size, latents), mean[chosen], log_variance[chosen], dataset, "mss")
        estimates.append(found.joint[0].exp().item())
    assert max(estimates) > 1.1 * min(estimates)
    assert sum(estimates) / len(estimates) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_each_samples_own_gaussian_has_a_weight_of_one_over_the_dataset(estimator):
    """Gaussians so far apart that no other one counts: q(z_i) is q(z_i|x_i) / N, as of the whole dataset."""
    dataset, size = 50, 6
    mean = 1e3 * torch.arange(size, dtype=torch.float64)[:, None].expand(size, 2)
    own = dataset * (size if estimator == "mws" else 1)
    parts = decompose(mean + random(size, 2), mean, torch.zeros_like(mean), dataset, estimator)
    torch.testing.assert_close(parts.mutual_information, torch.full((size,), log(own), dtype=torch.float64))
    torch.testing.assert_close(parts.total_correlation, torch.full((size,), log(own), dtype=torch.float64))


def test_an_encoder_that_ignores_its_input_has_no_information_and_no_total_correlation():
    z = random(6, 3)
    same = torch.zeros(6, 3, dtype=torch.float64)
    parts = decompose(z, same, same, 1000, "mss")
    for part in parts:
        torch.testing.assert_close(part, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)


def test_mss_finds_the_total_correlation_of_a_correlated_code():
    """Means on the diagonal, z_1 = z_2 but for noise: q(z) is nearly a Gaussian of known covariance."""
    dataset, spread, noise = 2000, 1.0, 0.5
    code = spread * random(dataset, 1)
    mean = code.expand(dataset, 2)
    log_variance = torch.full((dataset, 2), 2 * log(noise), dtype=torch.float64)
    z = mean + noise * random(dataset, 2, seed=1)
    correlation = spread**2 / (spread**2 + noise**2)
    exact = -0.5 * log(1 - correlation**2)
    assert decompose(z, mean, log_variance, dataset, "mss").total_correlation.mean().item() == pytest.approx(
        exact, abs=0.05
    )


def test_derivatives():
    z, mean, log_variance = (random(3, 2, seed=seed).requires_grad_() for seed in range(3))
    for estimator in ESTIMATORS:
        assert torch.autograd.gradcheck(lambda *a, e=estimator: tuple(decompose(*a, 7, e)), (z, mean, log_variance))


@pytest.mark.parametrize(("size", "dataset"), [(1, 10), (4, 3), (4, 2)])
def test_mss_refuses_what_it_cannot_stratify(size, dataset):
    with pytest.raises(ValueError, match=f"microbatches of {size} of {dataset} samples.*--training.microbatch-size"):
        importance_weights(size, dataset, "mss")
