import copy

import pytest
import torch
from torch import Tensor, nn

from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.training.optim import AdamConfig, ScheduledAdam, nan_if_nonfinite, set_requires_grad

CONFIG = AdamConfig(lr=Schedule(1e-2, 1e-3, 100), beta1=0.5, beta2=Schedule(0.9, 0.99, 100))


def network() -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def set_gradients(module: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def take(module: nn.Module, adam: ScheduledAdam, images: int) -> None:
    set_gradients(module, images)
    adam.step(images, adam.non_finite())


def bits(module: nn.Module, adam: ScheduledAdam) -> dict[str, Tensor]:
    values = {**module.state_dict(), **adam.tensors()}
    return {name: value.clone() for name, value in values.items()}


def assert_same_bits(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_it_is_adam_with_the_clocks_settings():
    module = network()
    adam = ScheduledAdam(module, CONFIG)
    weight = module[0].weight.detach().double().clone()
    first = second = torch.zeros_like(weight)
    for step, images in enumerate((0, 30, 60, 500), start=1):
        take(module, adam, images)
        gradient, beta2 = module[0].weight.grad.double(), CONFIG.beta2(images)
        first = 0.5 * first + 0.5 * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        corrected = first / (1 - 0.5**step)
        weight -= CONFIG.lr(images) * corrected / ((second / (1 - beta2**step)).sqrt() + CONFIG.epsilon)
        torch.testing.assert_close(module[0].weight.double(), weight, rtol=1e-5, atol=1e-6)


def test_settings_are_those_of_the_moment_of_the_step():
    module = network()
    adam = ScheduledAdam(module, AdamConfig(lr=Schedule(1.0, 0.5, 100), beta1=0.0, beta2=constant(0.99)))
    before = module[0].bias.detach().clone()
    take(module, adam, 0)
    middle = module[0].bias.detach().clone()
    torch.testing.assert_close((middle - before).abs(), torch.ones(3))
    set_gradients(module, 0)
    adam.step(100, adam.non_finite())
    torch.testing.assert_close((module[0].bias.detach() - middle).abs(), torch.full((3,), 0.5))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("after", [0, 3])
def test_a_non_finite_gradient_leaves_weights_and_state_untouched(bad, after):
    module, undisturbed = network(), network()
    adam, other = ScheduledAdam(module, CONFIG), ScheduledAdam(undisturbed, CONFIG)
    for images in range(after):
        take(module, adam, images)
        take(undisturbed, other, images)
    weights = {name: value.clone() for name, value in module.state_dict().items()}

    set_gradients(module, 50)
    module[1].bias.grad[1] = bad
    skip = adam.non_finite()
    assert skip == 1
    adam.step(50, skip)

    assert_same_bits(dict(module.state_dict()), weights)
    take(module, adam, 60)
    take(undisturbed, other, 60)
    assert_same_bits(bits(module, adam), bits(undisturbed, other))


def test_finite_gradients_are_not_skipped():
    module = network()
    adam = ScheduledAdam(module, CONFIG)
    set_gradients(module, 0)
    assert adam.non_finite() == 0


def test_state_survives_a_round_trip_bit_for_bit():
    module = network()
    adam = ScheduledAdam(module, CONFIG)
    for images in range(5):
        take(module, adam, images)
    resumed = copy.deepcopy(module)
    other = ScheduledAdam(resumed, CONFIG)
    other.load_tensors(adam.tensors())
    for images in range(5, 9):
        take(module, adam, images)
        take(resumed, other, images)
    assert_same_bits(bits(module, adam), bits(resumed, other))


def test_loaded_state_is_its_own():
    module = network()
    adam = ScheduledAdam(module, CONFIG)
    take(module, adam, 0)
    kept = adam.tensors()
    before = {name: value.clone() for name, value in kept.items()}
    resumed = network()
    other = ScheduledAdam(resumed, CONFIG)
    other.load_tensors(kept)
    take(resumed, other, 1)
    assert_same_bits(kept, before)


def test_state_from_before_the_first_step_is_empty_and_loads():
    module = network()
    adam, resumed = ScheduledAdam(module, CONFIG), network()
    assert adam.tensors() == {}
    other = ScheduledAdam(resumed, CONFIG)
    other.load_tensors({})
    take(module, adam, 0)
    take(resumed, other, 0)
    assert_same_bits(bits(module, adam), bits(resumed, other))


def test_state_is_named_by_parameter():
    module = network()
    adam = ScheduledAdam(module, CONFIG)
    take(module, adam, 0)
    assert {"0.weight/exp_avg", "0.weight/exp_avg_sq", "1.bias/step"} <= adam.tensors().keys()


def test_missing_state_is_an_error():
    module = network()
    adam = ScheduledAdam(module, CONFIG)
    take(module, adam, 0)
    tensors = adam.tensors()
    del tensors["1.bias/exp_avg"]
    with pytest.raises(KeyError, match=r"1\.bias/exp_avg"):
        adam.load_tensors(tensors)


def test_cleared_gradients_are_none():
    module = network()
    adam = ScheduledAdam(module, CONFIG)
    set_gradients(module, 0)
    adam.clear_gradients()
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_loss_with_good_gradients_is_poisoned(bad):
    weight = torch.ones(3, requires_grad=True)
    loss = weight.sum() + torch.tensor(bad)
    nan_if_nonfinite(loss).backward()
    assert weight.grad.isnan().all()


def test_a_finite_loss_is_left_as_it_is():
    weight = torch.ones(3, requires_grad=True)
    poisoned = nan_if_nonfinite((weight * 2).sum())
    poisoned.backward()
    assert poisoned == 6
    assert torch.equal(weight.grad, torch.full((3,), 2.0))


def test_only_what_is_trained_requires_gradients():
    modules = [network(), network()]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    for trained in (0, 1, 0):
        set_requires_grad(parameters, set(modules[trained].parameters()))
        wanted = [all(parameter.requires_grad for parameter in module.parameters()) for module in modules]
        assert wanted == [trained == 0, trained == 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"lr": constant(0.0)},
        {"lr": Schedule(1e-3, -1e-3, 10)},
        {"beta1": 1.0},
        {"beta1": -0.1},
        {"beta2": constant(1.0)},
        {"beta2": Schedule(0.9, 1.5, 10)},
    ],
)
def test_settings_outside_adams_range_are_refused(fields):
    with pytest.raises(ValueError, match=r"lr .* is not positive|must be in \[0, 1\)"):
        AdamConfig(**fields)
