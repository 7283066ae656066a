"""The classes of generated samples: as often as the data have them, on any number of ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import to_float
from imagegen_dist.data.pack import pack
from imagegen_dist.distributed import World
from imagegen_dist.evaluation.engine import Generated
from imagegen_dist.evaluation.evaluator import score_generated
from imagegen_dist.evaluation.reference import Reference
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.metrics.features import FeatureNetwork, feature_statistics
from imagegen_dist.metrics.frechet import frechet_distance
from imagegen_dist.storage import Store
from tests.evaluation.small import coarse

CPU = torch.device("cpu")
COUNTS = (700, 200, 100, 0)


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=30).filter(sum), st.integers(0, 10**6))
def test_each_class_comes_as_often_as_its_share(counts: list[int], start: int) -> None:
    asked = RequestedClasses(len(counts), tuple(counts)).of(range(start, start + 2000))
    assert asked is not None
    found = torch.bincount(asked, minlength=len(counts)).numpy()
    expected = 2000 * np.array(counts) / sum(counts)
    assert np.abs(found - expected).max() < 12  # the discrepancy of the golden ratio's multiples grows with log N
    assert not found[np.array(counts) == 0].any()


def test_a_sample_has_its_class_whoever_makes_it() -> None:
    asked = RequestedClasses(4, COUNTS)
    whole = asked.of(range(100))
    assert whole is not None
    assert torch.equal(torch.cat([asked.of(range(at, at + 7)) for at in range(0, 98, 7)]), whole[:98])
    assert torch.equal(RequestedClasses(3).of(range(2, 8)), torch.tensor([2, 0, 1, 2, 0, 1]))
    assert RequestedClasses(0).of(range(3)) is None


def picture(label: int, random: np.random.Generator) -> np.ndarray:
    noise = random.integers(0, 120, (1, 28, 28), np.uint8)
    noise[0, 6 * label : 6 * label + 6] += 130
    return noise


@pytest.fixture
def unbalanced(tmp_path: Path) -> Dataset:
    random, labels = np.random.default_rng(0), np.repeat(np.arange(4), COUNTS)
    pack(((picture(label, random), int(label)) for label in random.permutation(labels)), Store(tmp_path), classes=4)
    return Dataset.open(str(tmp_path))


def test_a_perfect_conditional_generator_is_as_near_as_fresh_real_samples(unbalanced: Dataset) -> None:
    """Where all classes come alike it is many times as far away, though each sample is perfect."""
    network, random = FeatureNetwork("coarse", "", 16, coarse()), np.random.default_rng(1)
    training = (to_float(unbalanced.read(range(at, at + 250))[0]) for at in range(0, 1000, 250))
    reference = Reference(network, None, feature_statistics(network, training, CPU), None, torch.zeros(0))
    fresh = np.stack([picture(label, random) for label in random.permutation(np.repeat(np.arange(4), COUNTS))])
    of_fresh = feature_statistics(network, [to_float(torch.from_numpy(fresh))], CPU)
    held_out = frechet_distance(of_fresh, reference.moments)

    def perfect(drawn: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        return to_float(torch.from_numpy(np.stack([picture(int(each), random) for each in label])))

    distances = {}
    for distribution in ("data", "uniform"):
        asked = RequestedClasses.as_in(4, unbalanced.index, distribution)
        assert asked.distribution == distribution
        sampler: Any = SimpleNamespace(prior=lambda count, noise: torch.zeros(count), generate=perfect)
        found = score_generated(Generated(sampler, 1000, 0, asked, (), CPU), reference, World())
        distances[distribution] = found["frechet"]
    assert distances["data"] < 2 * held_out
    assert distances["uniform"] > 20 * held_out


def test_data_whose_classes_are_not_counted_or_others_are_asked_for_all_alike(unbalanced: Dataset) -> None:
    index = replace(unbalanced.index, class_counts=None)
    assert RequestedClasses.as_in(4, index, "data").distribution == "uniform"
    assert RequestedClasses.as_in(4, index, "data", list(COUNTS)).counts == COUNTS
    assert RequestedClasses.as_in(3, unbalanced.index, "data").distribution == "uniform"
    assert RequestedClasses.as_in(0, unbalanced.index, "data").distribution == "none"
    assert isinstance(unbalanced.index, DatasetIndex)
