import pytest
import torch
from torch import nn

from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.training.ema import EMA
from tests.runs import noise, tiny


def network(value: float) -> nn.Linear:
    module = nn.Linear(2, 2)
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
    return module


def test_half_of_the_way_is_made_in_one_half_life():
    module = network(0.0)
    averages = EMA({"generator": module}, ["generator"], constant(1000))
    nn.init.constant_(module.weight, 1.0)
    for step in range(1, 11):
        averages.update(100 * step, 100)
    averaged = averages.modules()["generator"]
    torch.testing.assert_close(averaged.weight, torch.full((2, 2), 0.5), rtol=1e-6, atol=0)
    torch.testing.assert_close(averaged.bias, torch.zeros(2), rtol=0, atol=0)


@pytest.mark.parametrize("batch_size", [10, 50, 100])
def test_the_closed_form_does_not_depend_on_the_batch_size(batch_size):
    module = network(3.0)
    averages = EMA({"generator": module}, ["generator"], constant(200))
    nn.init.constant_(module.weight, -1.0)
    for images in range(batch_size, 701, batch_size):
        averages.update(images, batch_size)
    expected = -1 + 4 * 0.5 ** (700 / 200)
    weight = averages.modules()["generator"].weight
    torch.testing.assert_close(weight, torch.full((2, 2), expected), rtol=1e-5, atol=0)


def test_half_life_0_copies_every_bit():
    module = network(0.1)
    averages = EMA({"generator": module}, ["generator"], constant(0))
    with torch.no_grad():
        module.weight.copy_(torch.randn(2, 2) * 1e-3 + 1 / 3)
    averages.update(8, 8)
    assert torch.equal(averages.modules()["generator"].weight, module.weight)


def test_the_half_life_is_that_of_the_clock():
    module = network(0.0)
    averages = EMA({"generator": module}, ["generator"], Schedule(0.0, 100.0, 50))
    nn.init.constant_(module.weight, 1.0)
    averages.update(100, 100)
    torch.testing.assert_close(averages.modules()["generator"].weight, torch.full((2, 2), 0.5))


def test_buffers_are_copied():
    module = nn.BatchNorm1d(2)
    averages = EMA({"generator": module}, ["generator"], constant(1e9))
    module.running_mean += 5
    module.num_batches_tracked += 3
    averages.update(8, 8)
    averaged = averages.modules()["generator"]
    assert torch.equal(averaged.running_mean, module.running_mean)
    assert averaged.num_batches_tracked == 3


def test_averages_are_frozen_copies_and_the_networks_stay_as_they_are():
    module = network(1.0)
    averages = EMA({"generator": module, "discriminator": network(2.0)}, ["generator"], constant(1))
    averaged = averages.modules()["generator"]
    averages.update(8, 8)
    assert list(averages.modules()) == ["generator"]
    assert not averaged.training
    assert not averaged.weight.requires_grad
    assert averaged.weight.data_ptr() != module.weight.data_ptr()
    assert module.training
    assert module.weight.requires_grad
    assert torch.equal(module.weight, torch.ones(2, 2))


# The import of torch's compiler warns.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_averages_are_compiled_for_evaluation_where_the_training_compiles():
    for compiles in (False, True):
        trainer, _ = noise(tiny(training__compile=compiles), "image", (1, 28, 28), 10)
        (averaged,) = trainer.averages.modules().values()
        assert (averaged._compiled_call_impl is not None) == compiles
        assert trainer.objective.modules()["generator"]._compiled_call_impl is None  # its loss is compiled as a whole
