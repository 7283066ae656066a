import math

import pytest
import torch
from scipy.stats import entropy

from imagegen_dist.metrics.modes import mode_coverage, perfect_kl

K = 1000


def test_all_modes_alike_are_all_hit_at_no_distance():
    assert mode_coverage(torch.full((K,), 26), torch.full((K,), 45)) == (K, 0.0)


def test_one_mode_is_the_logarithm_of_their_number_away():
    counts = torch.zeros(K)
    counts[7] = 26_000
    covered = mode_coverage(counts, torch.ones(K))
    assert covered.modes == 1
    assert covered.kl == pytest.approx(math.log(K))


def test_some_modes_alike_are_as_far_as_what_is_missing():
    counts = torch.zeros(K)
    counts[:250] = 4
    covered = mode_coverage(counts, torch.ones(K))
    assert covered.modes == 250
    assert covered.kl == pytest.approx(math.log(4))


def test_the_distance_is_scipys():
    generator = torch.Generator().manual_seed(0)
    counts, data = (torch.randint(low, 50, (K,), generator=generator) for low in (0, 1))
    assert mode_coverage(counts, data).kl == pytest.approx(entropy(counts.numpy(), data.numpy()), rel=1e-12)


@pytest.mark.parametrize("samples", [26_000, 100_000])
def test_a_perfect_sampler_has_the_expected_distance(samples):
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(0, K, (samples,), generator=generator).bincount(minlength=K) for _ in range(40)]
    mean = sum(mode_coverage(counts, torch.ones(K)).kl for counts in drawn) / len(drawn)
    # One draw's standard deviation is sqrt(999 / 2) / N, 4.5 % of its mean; of 40 draws' mean 0.7 %. The term of order
    # 1 / N^2 that is left out comes to 0.6 % at 26,000.
    assert mean == pytest.approx(perfect_kl(K, samples), rel=0.03)


def test_a_mode_that_the_data_do_not_have_is_infinitely_far():
    assert mode_coverage(torch.tensor([1, 1]), torch.tensor([2, 0])).kl == math.inf
    assert mode_coverage(torch.tensor([1, 0]), torch.tensor([2, 0])) == (1, 0.0)


@pytest.mark.parametrize(("counts", "data"), [((0, 0), (1, 1)), ((1, 1), (0, 0)), ((1,), (1, 1))])
def test_nothing_to_count_is_refused(counts, data):
    with pytest.raises(ValueError):
        mode_coverage(torch.tensor(counts), torch.tensor(data))
