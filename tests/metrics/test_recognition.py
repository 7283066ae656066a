"""How well conditions are recognised: shares of classes and attributes, R² of numbers, and sums that add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from imagegen_dist.conditions.part import Conditions, Part
from imagegen_dist.metrics.recognition import Recognition, of_real_samples

CONDITIONS = Conditions(
    (
        Part("digit", "class", 3, ("a", "b", "c"), (4, 4, 4)),
        Part("smile", "attributes", 1, (), (5,)),
        Part("wears", "attributes", 2, ("hat", "tie"), (5, 6)),
        Part("age", "vector", 1, (), (), (3.0,), (2.0,), (0.0,), (9.0,)),
        Part("text", "vector", 2, (), (), (0.0, 0.0), (1.0, 1.0), (-3.0, -3.0), (3.0, 3.0)),
    )
)


def told(count: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    classes = torch.nn.functional.one_hot(torch.randint(3, (count,), generator=generator), 3)
    attributes = torch.randint(2, (count, 3), generator=generator)
    return torch.cat([classes, attributes, torch.randn(count, 3, generator=generator)], 1)


def recognised(outputs: Tensor, asked: Tensor) -> dict[str, float]:
    found = Recognition(CONDITIONS)
    found.add(outputs, asked)
    return found.figures()


def test_every_part_has_its_figure_and_all_are_1_where_everything_is_recognised() -> None:
    asked = told()
    sure = torch.where(torch.arange(9) < 6, 20 * asked - 10, asked)
    names = ("agreement/digit", "accuracy/smile", "accuracy/wears/hat", "accuracy/wears/tie", "r2/age", "r2/text")
    assert recognised(sure, asked) == dict.fromkeys(names, 1.0)


def test_figures_are_the_shares_and_the_coefficients_of_determination_of_numpy() -> None:
    asked, outputs = told(), torch.randn(40, 9, generator=torch.Generator().manual_seed(1))
    outputs[:, 6:] = 0.5 * outputs[:, 6:] + asked[:, 6:]
    found, a, b = recognised(outputs, asked), asked.double().numpy(), outputs.double().numpy()

    def r2(places: slice) -> float:
        x = a[:, places]
        return 1 - np.square(x - b[:, places]).sum() / np.square(x - x.mean(0)).sum()

    assert found["agreement/digit"] == (a[:, :3].argmax(1) == b[:, :3].argmax(1)).mean()
    assert found["accuracy/wears/tie"] == ((b[:, 5] > 0) == (a[:, 5] == 1)).mean()
    assert found["r2/age"] == pytest.approx(r2(slice(6, 7)), rel=1e-12)
    assert found["r2/text"] == pytest.approx(r2(slice(7, 9)), rel=1e-12)
    assert 0.5 < found["r2/age"] < 0.95


def test_an_estimate_of_the_mean_explains_nothing() -> None:
    asked = told()
    outputs = asked.clone()
    outputs[:, 6:] = asked[:, 6:].mean(0)
    found = recognised(outputs, asked)
    assert found["r2/age"] == pytest.approx(0, abs=1e-6)
    assert found["r2/text"] == pytest.approx(0, abs=1e-6)


def test_numbers_that_are_requested_alike_have_no_r2_and_no_samples_have_no_figures() -> None:
    asked = told()
    asked[:, 6] = 0.7
    assert "r2/age" not in recognised(torch.randn(40, 9), asked)
    assert "r2/text" in recognised(torch.randn(40, 9), asked)
    assert recognised(torch.zeros(0, 9), told(0)) == {}


def test_sums_of_parts_and_of_ranks_are_those_of_all_samples() -> None:
    asked, outputs = told(), torch.randn(40, 9, generator=torch.Generator().manual_seed(2))
    whole, first, second = (Recognition(CONDITIONS) for _ in range(3))
    whole.add(outputs, asked)
    first.add(outputs[:13], asked[:13])
    second.add(outputs[13:], asked[13:])
    of_second = torch.cat([torch.tensor([27.0], dtype=torch.float64), second.sums.flatten()])
    over_ranks = first.reduce(lambda values: values + of_second, torch.device("cpu"))
    first.merge(second)
    for found in (first, over_ranks):
        assert found.samples == 40
        torch.testing.assert_close(found.sums, whole.sums, rtol=1e-12, atol=1e-12)


def test_the_figure_of_held_out_samples_has_a_name_beside() -> None:
    assert of_real_samples("accuracy/wears/hat") == "accuracy_real/wears/hat"
