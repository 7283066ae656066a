import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from imagegen_dist.objectives.penalties import finite_difference_penalty, gradient_penalty, interpolate_penalty


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, generator=seeded(seed), dtype=dtype)


def smooth_critic(x: Tensor, weight: Tensor) -> Tensor:
    """[B, C, *S] -> [B], with derivatives of every order that do not vanish."""
    return torch.tanh(x.flatten(1) @ weight).square().sum(1)


def test_r1_of_a_quadratic_critic_is_its_analytic_gradient_norm():
    x = random(5, 2, 3, 4).requires_grad_()
    scale = random(24, seed=1)
    logits = (scale * x.flatten(1).square()).sum(1) / 2
    torch.testing.assert_close(gradient_penalty(x, logits), (scale * x.flatten(1)).square().sum(1))


def test_each_sample_has_its_own_penalty():
    x = random(4, 1, 3).requires_grad_()
    scale = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    logits = scale * x.flatten(1).sum(1)
    torch.testing.assert_close(gradient_penalty(x, logits), 3 * scale.square())


def test_the_gradient_goes_on_to_the_weights():
    weight = random(3, seed=2).requires_grad_()
    x = random(4, 3).requires_grad_()
    gradient_penalty(x, x @ weight).mean().backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach())


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_first_and_second_derivatives_of_r1(check):
    weight = random(6, 3, seed=1).requires_grad_()
    assert check(lambda x, w: gradient_penalty(x, smooth_critic(x, w)), (random(2, 2, 3).requires_grad_(), weight))


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_first_and_second_derivatives_of_the_interpolates_penalty(check):
    real, fake, position = random(2, 2, 3), random(2, 2, 3, seed=4), torch.tensor([0.2, 0.7], dtype=torch.float64)
    weight = random(6, 3, seed=1).requires_grad_()
    assert check(lambda w: interpolate_penalty(lambda x: smooth_critic(x, w), real, fake, position), (weight,))


def test_wgan_gp_is_zero_for_a_linear_critic_of_unit_slope():
    direction = random(12, seed=3)
    direction /= direction.norm()
    real, fake, position = random(5, 3, 4), random(5, 3, 4, seed=1), torch.linspace(0, 1, 5, dtype=torch.float64)
    penalty = interpolate_penalty(lambda x: x.flatten(1) @ direction, real, fake, position)
    torch.testing.assert_close(penalty, torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-24)


@pytest.mark.parametrize("slope", [0.0, 0.5, 3.0])
def test_wgan_gp_is_the_squared_distance_of_the_slope_from_one(slope):
    real, fake, position = random(5, 1, 4), random(5, 1, 4, seed=1), torch.rand(5, generator=seeded()).double()
    penalty = interpolate_penalty(lambda x: slope * x.flatten(1)[:, 0], real, fake, position)
    torch.testing.assert_close(penalty, torch.full((5,), (slope - 1) ** 2, dtype=torch.float64))


def test_wgan_gp_looks_between_fake_and_real():
    seen = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    real, fake = torch.ones(3, 1, 2), torch.zeros(3, 1, 2)
    interpolate_penalty(critic, real, fake, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(seen[0][:, 0, 0], torch.tensor([0.0, 0.25, 1.0]))


def test_wgan_gp_of_a_flat_critic_has_finite_gradients():
    weight = torch.zeros(4, requires_grad=True)
    real, fake, position = torch.ones(2, 1, 4), torch.zeros(2, 1, 4), torch.full((2,), 0.5)
    interpolate_penalty(lambda x: x.flatten(1) @ weight, real, fake, position).mean().backward()
    assert weight.grad.isfinite().all()


def test_the_mean_finite_difference_is_the_exact_penalty():
    draws = 20_000
    weight = random(6, 3, seed=1) / 2
    x = random(1, 2, 3).requires_grad_()
    exact = gradient_penalty(x, smooth_critic(x, weight)).item()
    many = x.detach().expand(draws, 2, 3)
    direction = random(draws, 2, 3, seed=7)
    estimates = finite_difference_penalty(
        lambda values: smooth_critic(values, weight), many, smooth_critic(many, weight), direction, 1e-3
    )
    standard_error = estimates.std().item() / draws**0.5
    assert standard_error < 0.02 * exact
    assert abs(estimates.mean().item() - exact) < 4 * standard_error


def test_the_finite_difference_along_a_direction_is_the_squared_slope():
    direction, slope = random(3, 1, 4), random(4, seed=5)
    x = random(3, 1, 4, seed=6)
    estimate = finite_difference_penalty(lambda v: v.flatten(1) @ slope, x, x.flatten(1) @ slope, direction, 0.01)
    torch.testing.assert_close(estimate, (direction.flatten(1) @ slope).square())


def test_the_finite_difference_trains_the_critic_without_double_backward():
    weight = random(4, seed=1).requires_grad_()
    x, direction = random(3, 4), random(3, 4, seed=2)
    finite_difference_penalty(lambda v: v @ weight, x, x @ weight, direction).sum().backward()
    expected = 2 * ((direction @ weight.detach())[:, None] * direction).sum(0)
    torch.testing.assert_close(weight.grad, expected)


@pytest.mark.parametrize(("given", "kept"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_penalties_are_in_float32_at_least(given, kept):
    x = random(2, 1, 3, dtype=torch.float32).to(given).requires_grad_()
    logits = x.square().flatten(1).sum(1)
    assert gradient_penalty(x, logits).dtype is kept
    direction = torch.ones_like(x)
    assert finite_difference_penalty(lambda v: v.flatten(1).sum(1), x, logits, direction).dtype is kept
