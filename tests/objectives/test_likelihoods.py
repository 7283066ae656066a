from math import log, pi

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Laplace, Normal

from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.likelihoods import LIKELIHOODS, binarize, check_observation

SHAPE = (3, 2, 4, 5)


def random(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def grey(seed: int = 7, dtype: torch.dtype = torch.float64) -> Tensor:
    """8-bit samples in [-1, 1], with both ends."""
    levels = torch.randint(0, 256, SHAPE, generator=torch.Generator().manual_seed(seed))
    levels[0, 0, 0, :2] = torch.tensor([0, 255])
    return levels.to(dtype) / 127.5 - 1


def raw_of(name: str, seed: int = 1) -> Tensor:
    batch, channels, *spatial = SHAPE
    return random(batch, LIKELIHOODS[name].outputs * channels, *spatial, seed=seed)


def draw(seed: int = 0) -> Draw:
    return Draw(0, torch.Generator().manual_seed(seed))


def test_bernoulli_is_torchs_on_black_and_white():
    x, raw = binarize(grey(), "threshold", draw()), raw_of("bernoulli")
    expected = TorchBernoulli(logits=raw).log_prob((x + 1) / 2).flatten(1).sum(1)
    torch.testing.assert_close(LIKELIHOODS["bernoulli"]().log_prob(x, raw), expected)


def test_bernoulli_of_grey_is_a_cross_entropy_least_at_the_value_itself():
    bernoulli, x = LIKELIHOODS["bernoulli"](), grey().clamp(-0.99, 0.99)
    p = (x + 1) / 2
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).flatten(1).sum(1)
    torch.testing.assert_close(-bernoulli.log_prob(x, torch.logit(p)), entropy)
    assert (-bernoulli.log_prob(x, torch.logit(p) + 0.1) > entropy).all()
    torch.testing.assert_close(bernoulli.mean(torch.logit(p)), x)


def test_gaussian_is_torchs_with_its_learned_deviation():
    likelihood, x, raw = LIKELIHOODS["gaussian"](), grey(), raw_of("gaussian")
    likelihood.raw_log_sigma.data.fill_(-1.0)
    expected = Normal(raw, likelihood.log_sigma.detach().double().exp()).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(likelihood.log_prob(x, raw), expected, rtol=1e-6, atol=0)
    assert likelihood.log_sigma.item() == pytest.approx(-1.0, abs=0.01)


def test_the_best_deviation_is_the_root_mean_square_error():
    """The optimum in closed form of arXiv:2006.13202: sigma^2 = MSE."""
    likelihood, x = LIKELIHOODS["gaussian"]().double(), grey()
    raw = x + 0.1 * random(*SHAPE, seed=5)
    optimizer = torch.optim.LBFGS(likelihood.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -likelihood.log_prob(x, raw).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert likelihood.log_sigma.exp().item() == pytest.approx((x - raw).square().mean().sqrt().item(), rel=1e-4)


def test_a_perfect_decoder_does_not_draw_the_deviation_to_0():
    likelihood, x = LIKELIHOODS["gaussian"](), grey(dtype=torch.float32)
    likelihood.raw_log_sigma.data.fill_(-1e3)
    assert likelihood.log_sigma.item() == pytest.approx(-6)
    assert likelihood.log_prob(x, x).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_256_probabilities_of_a_logistic_sum_to_1(dtype):
    levels = torch.arange(256, dtype=dtype).reshape(256, 1, 1) / 127.5 - 1
    for location in (-3.0, -1.0, -0.3, 0.0, 0.5, 1.0, 40.0):
        for log_scale in (-20.0, -7.0, -5.0, -2.0, 0.0, 3.0, 20.0):
            raw = torch.tensor([location, log_scale], dtype=dtype).reshape(1, 2, 1).expand(256, 2, 1)
            total = LIKELIHOODS["logistic"]().log_prob(levels, raw).exp().sum().item()
            assert total == pytest.approx(1, abs=2e-5 if dtype is torch.float32 else 1e-9), (location, log_scale)


def test_a_levels_probability_is_the_logistics_mass_around_it():
    x, raw = grey(), raw_of("logistic")
    location, scale = raw[:, :2], raw[:, 2:].exp()
    upper = torch.where(x == 1, 1.0, torch.sigmoid((x + 1 / 255 - location) / scale))
    lower = torch.where(x == -1, 0.0, torch.sigmoid((x - 1 / 255 - location) / scale))
    expected = (upper - lower).log().flatten(1).sum(1)
    torch.testing.assert_close(LIKELIHOODS["logistic"]().log_prob(x, raw), expected)


def test_a_logistic_far_from_the_value_still_has_a_slope():
    raw = torch.tensor([[[100.0]], [[-7.0]]]).reshape(1, 2, 1).requires_grad_()
    log_prob = LIKELIHOODS["logistic"]().log_prob(torch.zeros(1, 1, 1), raw)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert raw.grad.isfinite().all()
    assert raw.grad[0, 0, 0] < -1


def test_l1_is_a_laplace_of_scale_1_less_its_constant():
    x, raw = grey(), raw_of("l1")
    laplace = Laplace(raw, torch.ones_like(raw)).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(LIKELIHOODS["l1"]().log_prob(x, raw), laplace + x[0].numel() * log(2))


def test_mse_is_a_gaussian_of_variance_one_half_less_its_constant():
    x, raw = grey(), raw_of("mse")
    gaussian = torch.distributions.Normal(raw, 0.5**0.5).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(LIKELIHOODS["mse"]().log_prob(x, raw), gaussian + x[0].numel() * 0.5 * log(pi))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_derivatives(name):
    likelihood, x = LIKELIHOODS[name]().double(), grey()[:, :, :1, :2]
    raw = raw_of(name)[:, :, :1, :2].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: likelihood.log_prob(x, values), (raw,))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_each_sample_has_its_own_log_prob_in_float32_at_least(name):
    likelihood, x, raw = LIKELIHOODS[name](), grey(), raw_of(name)
    together = likelihood.log_prob(x, raw)
    alone = torch.cat([likelihood.log_prob(x[i : i + 1], raw[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(together, alone)
    assert likelihood.log_prob(x.bfloat16(), raw.bfloat16()).dtype is torch.float32


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_mean_is_a_sample_in_range(name):
    mean = LIKELIHOODS[name]().mean(3 * raw_of(name))
    assert mean.shape == SHAPE
    assert mean.abs().max() <= 1


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_of_8_bits_pass_the_check_and_others_out_of_range_do_not(name):
    LIKELIHOODS[name]().check(grey(dtype=torch.float32))
    with pytest.raises(ValueError, match=r"samples from 0 to 255 leave \[-1, 1\]"):
        LIKELIHOODS[name]().check(torch.tensor([0.0, 255.0]))
    with pytest.raises(ValueError, match="leave"):
        LIKELIHOODS[name]().check(torch.tensor([0.0, torch.nan]))


def test_the_logistic_refuses_values_between_the_levels():
    with pytest.raises(ValueError, match="needs 8-bit samples, which these are not; set"):
        LIKELIHOODS["logistic"]().check(torch.tensor([0.0]))


def test_thresholds_are_at_the_middle_of_the_range():
    x = torch.tensor([-1.0, -0.1, 0.0, 0.1, 1.0])
    assert binarize(x, "threshold", draw()).tolist() == [-1, -1, -1, 1, 1]
    assert binarize(x, "none", draw()) is x


def test_dynamic_binarisation_draws_white_as_often_as_the_value_says():
    x = torch.tensor([-1.0, -0.5, 0.0, 0.6, 1.0])
    drawn = binarize(x.expand(40_000, 5), "dynamic", draw())
    assert drawn.unique().tolist() == [-1, 1]
    share = (drawn > 0).float().mean(0)
    torch.testing.assert_close(share, (x + 1) / 2, rtol=0, atol=4 * 0.5 / 200)
    assert share[0] == 0
    assert share[-1] == 1


def test_dynamic_binarisation_is_a_function_of_the_draw():
    x = torch.zeros(4, 1, 8, 8)
    assert torch.equal(binarize(x, "dynamic", draw(1)), binarize(x, "dynamic", draw(1)))
    assert not torch.equal(binarize(x, "dynamic", draw(1)), binarize(x, "dynamic", draw(2)))


@pytest.mark.parametrize("name", ["gaussian", "logistic", "l1"])
def test_only_bernoulli_takes_binarised_samples(name):
    check_observation("bernoulli", "dynamic")
    check_observation(name, "none")
    with pytest.raises(ValueError, match=f"needs the bernoulli likelihood, not '{name}'; set --objective.likelihood"):
        check_observation(name, "threshold")
