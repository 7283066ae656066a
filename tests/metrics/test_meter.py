from math import isinf, isnan

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from imagegen_dist.metrics.meter import Meter


class HostReads(TorchDispatchMode):
    """Counts the operations that copy a value to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
        return func(*args, **(kwargs or {}))


def alone(values):
    return values


def test_the_mean_is_over_every_value_of_every_call():
    meter = Meter()
    meter.add({"loss": torch.tensor([1.0, 2.0, 3.0])})
    meter.add({"loss": torch.tensor([[10.0]]), "other": torch.tensor(5.0)})
    assert meter.reduce(alone) == {"loss": 4.0, "other": 5.0}


def test_ranks_weigh_by_their_number_of_values():
    ours, theirs = Meter(), Meter()
    ours.add({"b": torch.tensor([1.0]), "a": torch.tensor([0.0, 4.0])})
    theirs.add({"a": torch.tensor([8.0]), "b": torch.tensor([3.0, 5.0, 7.0])})
    sent = []
    theirs.reduce(lambda values: sent.append(values) or values)
    assert ours.reduce(lambda values: values + sent[0]) == {"a": 4.0, "b": 4.0}


def test_reduce_begins_anew():
    meter = Meter()
    meter.add({"loss": torch.tensor([100.0])})
    meter.reduce(alone)
    assert meter.reduce(alone) == {}
    meter.add({"loss": torch.tensor([1.0])})
    assert meter.reduce(alone) == {"loss": 1.0}


@pytest.mark.parametrize(("bad", "shown"), [(torch.nan, isnan), (torch.inf, isinf)])
def test_what_is_not_finite_shows_in_its_own_mean_alone(bad, shown):
    meter = Meter()
    meter.add({"loss": torch.tensor([1.0, bad]), "fine": torch.tensor([2.0])})
    found = meter.reduce(alone)
    assert shown(found["loss"])
    assert found["fine"] == 2.0


def test_sums_lose_nothing_over_many_small_values():
    meter = Meter()
    meter.add({"loss": torch.tensor([2.0**24])})
    for _ in range(100):
        meter.add({"loss": torch.ones(1)})
    assert meter.reduce(alone)["loss"] == (2.0**24 + 100) / 101


def test_nothing_is_read_on_the_host_before_reduce():
    meter = Meter()
    with HostReads() as reads:
        for _ in range(3):
            meter.add({"loss": torch.ones(4), "other": torch.ones(2)})
        assert reads.count == 0
        torch.ones(1).item()
        assert reads.count == 1


def test_one_reduction_serves_all_names():
    meter = Meter()
    meter.add({name: torch.ones(2) for name in "abc"})
    calls = []
    meter.reduce(lambda values: calls.append(values.shape) or values)
    assert calls == [(2, 3)]


def test_totals_leave_the_means_as_they_are_and_another_meter_goes_on_from_them():
    whole, first, others = Meter(), Meter(), [Meter(), Meter()]
    before, after = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([6.0, 7.0, 8.0])}
    for meter in (whole, first):
        meter.add(before)
    totals = first.totals(alone)
    assert totals == {"a": (3.0, 2.0)}
    assert first.reduce(alone) == {"a": 1.5}
    for rank, meter in enumerate(others):
        meter.restore(totals, torch.device("cpu"), share=rank == 0)
    whole.add(after)
    others[1].add(after)
    others[0].add({"a": torch.zeros(0)})
    sent = []
    others[1].reduce(lambda values: sent.append(values) or values)
    assert others[0].reduce(lambda values: values + sent[0]) == whole.reduce(alone) == {"a": 24 / 5}
