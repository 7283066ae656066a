"""Fréchet distance within and across classes: closed forms, the published bound, and what it needs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from imagegen_dist.metrics.by_class import ByClass, frechet_by_class
from imagegen_dist.metrics.frechet import Moments, frechet_distance


def line(mean: float, deviation: float) -> Tensor:
    """Two samples of one feature, [2, 1], with this mean and unbiased deviation."""
    return mean + deviation / math.sqrt(2) * torch.tensor([[-1.0], [1.0]], dtype=torch.float64)


def drawn(count: int, dim: int, seed: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Features [count, dim], each class with a mean and a covariance of its own, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % classes
    mix = torch.randn(classes, dim, dim, generator=generator, dtype=torch.float64)
    means = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return means[label] + torch.einsum("nij,nj->ni", mix[label], noise), label


def by_class(*compared: Tensor) -> ByClass:
    found = frechet_by_class(*compared)
    assert found is not None
    return found


def of(features: Tensor) -> Moments:
    moments = Moments(features.shape[1])
    moments.add(features)
    return moments


def test_of_gaussians_on_a_line_it_is_the_closed_form() -> None:
    label = torch.tensor([0, 0, 1, 1])
    real = torch.cat([line(-1, 1), line(1, 3)])
    generated = torch.cat([line(-2, 2), line(2, 2.5)])
    found = by_class(generated, real, label, label)
    assert found.within == pytest.approx(((1 + (2 - 1) ** 2) + (1 + (2.5 - 3) ** 2)) / 2)
    assert found.across == pytest.approx((2 - 1) ** 2)  # means -2, 2 beside -1, 1: deviations 2 and 1
    assert (found.classes, found.fewest) == (2, 2)


def test_classes_count_as_often_as_they_are_real() -> None:
    asked, shown = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    real = torch.cat([line(0, 1), line(0, 1), line(0, 1), line(5, 1)])
    first = of(real[:6]).cov.sqrt().item()
    generated = torch.cat([line(0, first), line(9, 1)])
    assert by_class(generated, real, asked, shown).within == pytest.approx(16 / 4)


@pytest.mark.parametrize("dim", [2, 40])  # fewer features than samples of a class, and more
def test_within_is_the_mean_of_the_distances_of_the_classes(dim: int) -> None:
    (a, label), (b, _) = drawn(60, dim, 0), drawn(60, dim, 1)
    each = [frechet_distance(of(a[label == number]), of(b[label == number])) for number in range(3)]
    found = by_class(a, b, label, label)
    assert found.within == pytest.approx(sum(each) / 3, rel=1e-9)
    assert by_class(a, a, label, label).within == pytest.approx(0, abs=1e-9)


def test_the_distance_of_all_samples_is_at_most_the_sum_of_both() -> None:
    for seed in range(20):
        (a, label), (b, _) = drawn(300, 4, seed), drawn(300, 4, seed + 100)
        found = by_class(a, b, label, label)
        # Unbiased covariances of the classes are a hundredth larger than those of the whole.
        assert frechet_distance(of(a), of(b)) <= 1.02 * (found.within + found.across)


def test_confused_classes_are_seen_within_and_not_in_the_whole() -> None:
    features, label = drawn(300, 4, 0)
    swapped = by_class(features, features, (label + 1) % 3, label)
    assert frechet_distance(of(features), of(features)) == pytest.approx(0, abs=1e-9)
    assert swapped.within > 1
    assert swapped.across == pytest.approx(0, abs=1e-9)


def test_classes_of_one_sample_are_left_out_and_two_classes_are_needed() -> None:
    features, label = drawn(9, 2, 0)
    label[0] = 7
    assert by_class(features, features, label, label).classes == 3
    assert frechet_by_class(features, features, torch.zeros(9, dtype=torch.int64), torch.arange(9) % 3) is None


def test_features_that_are_not_finite_give_no_number() -> None:
    features, label = drawn(12, 2, 0)
    found = by_class(features / 0, features, label, label)
    assert math.isnan(found.within)
    assert math.isnan(found.across)
