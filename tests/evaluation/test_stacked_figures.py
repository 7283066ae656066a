"""Modes of StackedMNIST and copies of training samples, of generators that are known."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from imagegen_dist import config
from imagegen_dist.data import builtin
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import modality, to_float
from imagegen_dist.data.order import keyed_permutation
from imagegen_dist.data.pack import pack
from imagegen_dist.distributed import World
from imagegen_dist.evaluation.copying import Copies, find_copies
from imagegen_dist.evaluation.engine import CHUNK, Generated
from imagegen_dist.evaluation.evaluator import score_generated
from imagegen_dist.evaluation.named_reference import is_reference_kept
from imagegen_dist.evaluation.reference import Reference, build_reference
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.metrics.features import pixel_network
from imagegen_dist.metrics.modes import perfect_kl
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.settings import EvaluationConfig
from imagegen_dist.storage import Store
from tests.runs import train_here

CPU = torch.device("cpu")
STACKS, SAMPLES = "stackedmnist:2222", 2_000  # 2,000 training stacks, two of each mode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("stacked"))


@pytest.fixture(scope="module")
def data(folder: Store) -> tuple[Dataset, Dataset]:
    train, val = (Dataset.open(builtin_dataset(STACKS, split, folder).url) for split in ("train", "val"))
    return train, val


@pytest.fixture(scope="module")
def reference(folder: Store, data: tuple[Dataset, Dataset]) -> Reference:
    return build_reference(folder / "cache", *data, 9_600, World(), CPU, print)


def figures(generate: Callable[[int, int], Tensor], reference: Reference) -> dict[str, float]:
    """Of a generator that is given the place of its first sample and how many are asked for."""
    made = iter(range(0, SAMPLES, CHUNK))

    def samples(drawn: Tensor, label: Tensor | None) -> Tensor:
        return generate(next(made), len(drawn))

    sampler: Any = SimpleNamespace(prior=lambda count, noise: torch.zeros(count), generate=samples)
    return score_generated(Generated(sampler, SAMPLES, 0, RequestedClasses(0), (), CPU), reference, World())


def test_a_reference_is_known_to_be_kept_once_it_was_made(
    folder: Store, data: tuple[Dataset, Dataset], reference: Reference
) -> None:
    made = EvaluationConfig(classifier_images=9_600)
    assert is_reference_kept(folder / "cache", *data, made)
    assert not is_reference_kept(folder / "cache", *data, replace(made, classifier_images=9_601))
    assert not is_reference_kept(folder / "elsewhere", *data, made)
    assert not is_reference_kept(folder / "cache", *data, replace(made, features="inception"))


def test_a_classifier_of_single_digits_reads_the_three_channels(
    data: tuple[Dataset, Dataset], reference: Reference
) -> None:
    assert reference.network.dim == 3 * 96
    assert reference.network.name == "classifier of every channel"
    assert reference.class_counts.tolist() == [2] * 1000
    assert reference.accuracy is not None
    assert reference.accuracy > 0.7  # all three right: 0.9 to the third
    x, label = data[1].read(range(50))
    assert reference.network.logits is not None
    digits = reference.network.logits(to_float(x)).argmax(1)
    assert (digits == label).float().mean() > 0.6
    one = reference.network.logits(to_float(x[:1].roll(1, dims=1))).argmax(1)  # channels in turn: digits in turn
    assert int(one) == int(digits[0]) // 10 + int(digits[0]) % 10 * 100


def test_all_modes_one_mode_and_noise_are_counted_as_such(data: tuple[Dataset, Dataset], reference: Reference) -> None:
    real = to_float(data[0].read(range(SAMPLES))[0])

    found = figures(lambda start, count: real[start : start + count], reference)
    assert found["modes"] > 950  # two of each, some of which the classifier misreads
    assert found["modes_kl"] < perfect_kl(1000, SAMPLES)  # a sampler without chance

    found = figures(lambda start, count: real[:1].expand(count, -1, -1, -1), reference)
    assert found["modes"] == 1
    assert found["modes_kl"] == pytest.approx(np.log(1000))

    noise = torch.Generator().manual_seed(0)
    found = figures(lambda start, count: torch.rand(count, 3, 32, 32, generator=noise) * 2 - 1, reference)
    assert found["modes"] < 200
    assert found["modes_kl"] > 2


def test_a_generator_that_makes_zeros_alone_in_one_channel_hits_a_tenth(
    data: tuple[Dataset, Dataset], reference: Reference
) -> None:
    train = data[0]
    samples, labels = train.read(range(SAMPLES))
    assert labels is not None
    zero = samples[labels < 100][:1, 0]  # a stack whose first channel shows a zero

    def few(start: int, count: int) -> Tensor:
        chosen = samples[start : start + count].clone()
        chosen[:, 0] = zero
        return to_float(chosen)

    found = figures(few, reference)
    assert 95 <= found["modes"] <= 100
    assert found["modes_kl"] == pytest.approx(np.log(10), abs=0.1)  # and what misreading adds


@pytest.fixture(scope="module")
def digits(folder: Store) -> tuple[Dataset, Dataset]:
    """1,200 digits to train on, of which 1,000 are searched, and 600 held out."""
    images, labels = builtin._load_mnist()
    rows = keyed_permutation(len(images), 0, 0)
    for name, chosen in (("train", rows[:1200]), ("val", rows[1200:1800])):
        pack(zip(images[chosen], labels[chosen].tolist(), strict=True), folder / "digits" / name)
    return Dataset.open((folder / "digits/train").url), Dataset.open((folder / "digits/val").url)


def copies_of(samples: Tensor, digits: tuple[Dataset, Dataset], held_out: bool = True) -> Copies:
    train, val = digits
    return find_copies(samples, train, val if held_out else None, pixel_network(train.index.shape), 1_000, CPU)


def test_a_generator_that_copies_is_flagged(digits: tuple[Dataset, Dataset]) -> None:
    samples = digits[0].read(range(300, 600))[0]
    found = copies_of(samples, digits)
    assert found.figures["authenticity"] == 0
    assert found.figures["copying_z"] < -20
    shown = found.samples.reshape(10, found.columns, 1, 28, 28)
    assert np.array_equal(shown[:, 0], shown[:, 1])
    assert found.captions[:2] == ["ratio 0.00", "0"]
    almost = copies_of((samples.float() * 0.97).to(torch.uint8), digits)
    assert almost.figures["authenticity"] < 0.02
    assert almost.figures["copying_z"] < -20


def test_half_copies_half_held_out_samples_are_flagged(digits: tuple[Dataset, Dataset]) -> None:
    train, val = digits
    found = copies_of(torch.cat([train.read(range(150))[0], val.read(range(150))[0]]), digits)
    assert found.figures["copying_z"] < -3
    assert found.figures["authenticity"] < 0.6 * found.figures["authenticity_real"]


def test_held_out_samples_are_not_flagged(digits: tuple[Dataset, Dataset]) -> None:
    found = copies_of(digits[1].read(range(300, 600))[0], digits)  # held against the first 300
    assert abs(found.figures["copying_z"]) < 3
    assert found.figures["authenticity"] == pytest.approx(found.figures["authenticity_real"], abs=0.1)
    assert found.figures["authenticity"] > 0.3


def test_training_samples_that_were_not_searched_are_no_copies(digits: tuple[Dataset, Dataset]) -> None:
    found = copies_of(digits[0].read(range(1_000, 1_200))[0], digits)
    assert found.figures["copying_z"] > -3


def test_noise_is_authentic_and_without_held_out_samples_there_is_no_z_score(digits: tuple[Dataset, Dataset]) -> None:
    noise = torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert copies_of(noise, digits, held_out=False).figures == {"authenticity": 1.0}


def test_the_picture_shows_the_nearest_sample_first_and_neighbours_in_order(
    digits: tuple[Dataset, Dataset],
) -> None:
    train, val = digits
    samples = val.read(range(200))[0]
    samples[50] = train.read(range(7, 8))[0][0]
    found = copies_of(samples, digits)
    assert np.array_equal(found.samples[0], found.samples[1])
    distances = [float(caption) for caption in found.captions if not caption.startswith("ratio ")]
    rows = np.reshape(distances, (10, found.columns - 1))
    assert (np.diff(rows, axis=1) >= 0).all()
    times = [float(caption.removeprefix("ratio ")) for caption in found.captions if caption.startswith("ratio ")]
    assert times == sorted(times)
    data, _ = modality("image").preview(found.samples, found.columns, captions=found.captions)
    assert Image.open(io.BytesIO(data)).width > 9 * 28


def test_a_run_counts_modes_and_looks_for_copies(folder: Store, tmp_path: Path) -> None:
    changes = {
        "model.widths": (16,),
        "training.total_images": 128,
        "training.report_every": 64,
        "training.sample_every": 10_000,
        "training.checkpoint_every": 10_000,
        "evaluation.every": 64,
        "evaluation.samples": 200,
        "evaluation.classifier_images": 640,
        "evaluation.searched": 500,
    }
    experiment = config.overrides(find_preset("r3gan-stackedmnist-small").experiment, changes.items())
    urls = {
        name: builtin_dataset(STACKS, split, folder).url for name, split in (("data", "train"), ("validation", "val"))
    }
    where = RunSettings(
        "run", str(tmp_path), "r3gan-stackedmnist-small", "train_gan", **urls, wandb_mode="disabled", cache=folder.url
    )
    assert train_here(experiment, where).complete
    result = json.loads(where.folder.read("result.json"))
    assert 1 <= result["modes"] <= 200
    assert result["modes_kl"] > 0
    assert result["evaluation"] == {
        "samples": 200,
        "searched": 500,
        "classes": 1000,
        "label_distribution": "data",
        "features": "classifier",
    }
    assert {"authenticity", "authenticity_real", "copying_z"} < set(result)
    rows = [json.loads(line) for line in where.folder.read("metrics.jsonl").splitlines()]
    evaluated = [row for row in rows if "eval/modes" in row]
    assert [row["images"] for row in evaluated] == [64, 128]
    assert ["eval/authenticity" in row for row in evaluated] == [False, True]
    page = where.folder.read("report.html").decode()
    assert "Is it a copy?" in page
    assert "modes kl" in page
    assert (where.folder / "samples").exists("neighbours-000000000128.png")
