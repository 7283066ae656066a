from math import log, tan

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.latents import (
    FSQ,
    Gaussian,
    free_bits_rate,
    gaussian,
    log_density,
    product,
    standard_gaussian,
    standard_normal_log_prob,
)

LEVELS = [(2,), (3,), (4, 5), (8, 6, 5), (8, 5, 5, 5)]
LATENTS = [(3,), (2, 4), (2, 3, 2)]


def draw(seed: int = 0) -> Draw:
    return Draw(0, torch.Generator().manual_seed(seed))


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior(*dims: int) -> tuple[Gaussian, Normal]:
    """One of ours and torch's of the same parameters."""
    mean, log_variance = random(4, *dims, seed=1), random(4, *dims, seed=2)
    return Gaussian(mean, log_variance), Normal(mean, (log_variance / 2).exp())


@pytest.mark.parametrize("dims", LATENTS)
def test_kl_is_that_of_torch(dims):
    ours, theirs = posterior(*dims)
    standard = Normal(torch.zeros_like(ours.mean), torch.ones_like(ours.mean))
    torch.testing.assert_close(ours.kl(), kl_divergence(theirs, standard))


@pytest.mark.parametrize("dims", LATENTS)
def test_kl_from_another_gaussian_is_that_of_torch(dims):
    ours, theirs = posterior(*dims)
    prior = Gaussian(random(4, *dims, seed=5), random(4, *dims, seed=6))
    torch.testing.assert_close(
        ours.kl(prior), kl_divergence(theirs, Normal(prior.mean, (prior.log_variance / 2).exp()))
    )
    torch.testing.assert_close(ours.kl(standard_gaussian(ours.mean)), ours.kl())


def test_a_product_is_proportional_to_both_densities_multiplied():
    first, second = (Gaussian(random(4, 3, seed=seed), 2 * random(4, 3, seed=seed + 10)) for seed in (1, 2))
    z = torch.linspace(-4, 4, 50, dtype=torch.float64).reshape(-1, 1, 1)
    both = sum(log_density(z, part.mean, part.log_variance) for part in (first, second))
    merged = product(first, second)
    ratio = both - log_density(z, merged.mean, merged.log_variance)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_a_product_of_extremes_stays_finite_and_follows_the_certain_one():
    certain = Gaussian(torch.tensor([[3.0]]), torch.tensor([[-30.0]]))
    vague = Gaussian(torch.tensor([[-5.0]]), torch.tensor([[20.0]]))
    for merged in (product(certain, vague), product(vague, certain)):
        torch.testing.assert_close(merged.mean, certain.mean)
        torch.testing.assert_close(merged.log_variance, certain.log_variance)
    assert product(certain, vague).kl(vague).isfinite().all()


@pytest.mark.parametrize("dims", LATENTS)
def test_log_prob_is_that_of_torch_summed_over_the_latents(dims):
    ours, theirs = posterior(*dims)
    z = random(4, *dims, seed=3)
    torch.testing.assert_close(ours.log_prob(z), Independent(theirs, len(dims)).log_prob(z))
    standard = Normal(torch.zeros_like(z), torch.ones_like(z))
    torch.testing.assert_close(standard_normal_log_prob(z), Independent(standard, len(dims)).log_prob(z))


def test_log_density_broadcasts():
    z, mean, log_variance = random(5, 1, 3), random(1, 4, 3, seed=1), random(1, 4, 3, seed=2)
    expected = Normal(mean, (log_variance / 2).exp()).log_prob(z)
    torch.testing.assert_close(log_density(z, mean, log_variance), expected)


def test_a_sample_is_the_mean_plus_so_many_deviations_of_the_draws_noise():
    ours, theirs = posterior(2, 3)
    noise = draw().normal(4, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(ours.sample(draw()), theirs.mean + theirs.stddev * noise)


def test_the_sample_differentiates_to_mean_and_log_variance():
    noise_seed, parameters = 5, random(2, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: gaussian(p).sample(draw(noise_seed)), (parameters,))
    assert torch.autograd.gradcheck(lambda p: gaussian(p).kl(), (parameters,))


def test_raw_parameters_are_means_then_log_variances_along_the_channels():
    raw = random(2, 6, 4)
    ours = gaussian(raw)
    assert torch.equal(ours.mean, raw[:, :3])
    assert torch.equal(ours.log_variance, raw[:, 3:])


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_a_log_variance_far_out_leaves_everything_finite(value):
    raw = torch.full((2, 4), value)
    raw[:, :2] = 1.0
    ours = gaussian(raw)
    for found in (ours.sample(draw()), ours.kl(), ours.log_prob(torch.ones(2, 2))):
        assert found.isfinite().all()


def test_half_precision_parameters_are_read_in_float32():
    assert gaussian(torch.zeros(2, 4, dtype=torch.bfloat16)).kl().dtype is torch.float32


def test_a_repeated_gaussian_has_each_samples_copies_in_a_row():
    ours, _ = posterior(2)
    repeated = ours.repeat(3)
    torch.testing.assert_close(repeated.mean.unflatten(0, (4, 3)), ours.mean[:, None].expand(4, 3, 2))
    torch.testing.assert_close(repeated.kl().unflatten(0, (4, 3)), ours.kl()[:, None].expand(4, 3, 2))


@pytest.mark.parametrize("dims", LATENTS)
def test_free_bits_of_0_are_the_mean_rate(dims):
    kl = posterior(*dims)[0].kl()
    torch.testing.assert_close(free_bits_rate(kl, 0.0), kl.flatten(1).sum(1).mean())


def test_below_the_free_bits_every_latent_costs_the_same_and_learns_nothing():
    kl = torch.full((4, 2, 3), 0.1, requires_grad=True)
    rate = free_bits_rate(kl, 0.5)
    assert rate.item() == pytest.approx(0.5 * 6)
    rate.backward()
    assert torch.equal(kl.grad, torch.zeros_like(kl))


def test_free_bits_look_at_each_channel_averaged_over_microbatch_and_positions():
    kl = torch.tensor([[[0.0, 2.0], [0.2, 0.2]], [[0.0, 2.0], [0.0, 0.4]]])
    assert free_bits_rate(kl, 0.5).item() == pytest.approx(2 * 1.0 + 2 * 0.5)


def every_code(fsq: FSQ) -> Tensor:
    return fsq.codes(torch.arange(fsq.codebook_size), torch.float64)


def bound(z: np.ndarray, levels: int) -> np.ndarray:
    """The formula of the paper's appendix, for one channel."""
    half = (levels - 1) * (1 - 1e-3) / 2
    offset = 0.5 if levels % 2 == 0 else 0.0
    return np.tanh(z + tan(offset / half)) * half - offset


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8, 16, 255, 256])
def test_a_channel_takes_every_one_of_its_levels_and_no_other(levels):
    z = torch.linspace(-12, 12, 60_001, dtype=torch.float64)[:, None]
    found = FSQ((levels,)).quantize(z).unique()
    assert len(found) == levels
    half = levels // 2
    torch.testing.assert_close(found, torch.arange(-half, levels - half, dtype=torch.float64) / half)
    assert found.abs().max() <= 1


@pytest.mark.parametrize("levels", LEVELS)
def test_quantising_is_the_papers_bound_rounded_over_half_the_levels(levels):
    z = random(50, len(levels), 3) * 2
    expected = np.stack([np.round(bound(z[:, i].numpy(), n)) / (n // 2) for i, n in enumerate(levels)], axis=1)
    torch.testing.assert_close(FSQ(levels).quantize(z), torch.from_numpy(expected))


def test_gradients_pass_the_rounding_as_they_are():
    levels, step = (8, 5), 1e-6
    z = random(7, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(FSQ(levels).quantize(z).sum(), z)
    at = z.detach().numpy()
    for channel, n in enumerate(levels):
        slope = (bound(at[:, channel] + step, n) - bound(at[:, channel] - step, n)) / (2 * step) / (n // 2)
        np.testing.assert_allclose(gradient[:, channel].numpy(), slope, rtol=1e-6)


@pytest.mark.parametrize("levels", LEVELS)
def test_codes_and_indices_are_each_others_inverse(levels):
    fsq = FSQ(levels)
    codes = every_code(fsq)
    assert codes.unique(dim=0).shape == (fsq.codebook_size, len(levels))
    assert torch.equal(fsq.indices(codes), torch.arange(fsq.codebook_size))
    quantized = fsq.quantize(random(100, len(levels), 2, 2) * 3)
    torch.testing.assert_close(fsq.codes(fsq.indices(quantized), torch.float64), quantized)


def test_indices_have_the_latents_positions_and_count_the_first_channel_fastest():
    fsq = FSQ((4, 3))
    codes = fsq.quantize(random(5, 2, 3, 6))
    assert fsq.indices(codes).shape == (5, 3, 6)
    assert fsq.indices(torch.tensor([[-0.5, -1.0], [-1.0, 0.0], [0.5, 1.0]])).tolist() == [1, 4, 11]


@pytest.mark.parametrize("levels", LEVELS)
def test_the_rate_is_the_entropy_of_uniform_codes(levels):
    fsq = FSQ(levels)
    assert fsq.rate == pytest.approx(sum(log(n) for n in levels))
    assert len(every_code(fsq)) == fsq.codebook_size


@pytest.mark.parametrize("levels", [(2,), (4, 3), (3, 2, 2)])
def test_the_prior_draws_every_code_equally_often(levels):
    fsq, count = FSQ(levels), 24_000
    drawn = fsq.sample(draw(), count // 4, 2, 2)
    assert drawn.shape == (count // 4, len(levels), 2, 2)
    share = fsq.indices(drawn).flatten().bincount(minlength=fsq.codebook_size) / count
    p = 1 / fsq.codebook_size
    torch.testing.assert_close(share, torch.full_like(share, p), rtol=0, atol=4.5 * (p / count) ** 0.5)


def test_codes_without_number_can_still_be_drawn_and_quantised():
    fsq = FSQ((8,) * 30)
    for codes in (fsq.sample(draw(), 10), fsq.quantize(random(10, 30))):
        assert codes.shape == (10, 30)
        with pytest.raises(ValueError, match="give more codes than int64 can index; set"):
            fsq.indices(codes)


@pytest.mark.parametrize("levels", [(), (8, 1), (0,)])
def test_levels_below_2_are_refused_with_the_flag(levels):
    with pytest.raises(ValueError, match="give 2 or more for each latent channel, as"):
        FSQ(levels)


@pytest.mark.parametrize("size", [(), (4,), (2, 3)])
def test_what_each_code_costs_adds_up_to_the_rate_of_every_position(size):
    fsq = FSQ((8, 6, 5))
    nats = fsq.nats(fsq.sample(draw(), 2, *size))
    torch.testing.assert_close(nats.sum(1), torch.full((2, *size), fsq.rate))
