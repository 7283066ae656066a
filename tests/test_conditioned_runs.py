"""Runs on data with named conditions: bit for bit when resumed, equal on any number of workers, and in use."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imagegen_dist import config, load
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from tests.runs import Listener, assert_bit_identical, final_tensors, settings, tiny, train_here, train_on

EXPERIMENT = tiny(data__url="digits-styled", objective__auxiliary_classifier=0.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def where(tmp_path: Path, name: str, data: Path) -> RunSettings:
    splits = {split: builtin_dataset("digits-styled", split, Store(data)).url for split in ("train", "val")}
    return replace(settings(tmp_path, name, data / "plain"), data=splits["train"], validation=splits["val"])


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    found = where(tmp_path_factory.mktemp("undisturbed"), "run", data)
    train_here(EXPERIMENT, found)
    return found


def test_a_run_that_is_stopped_and_resumed_is_the_undisturbed_one_bit_for_bit(
    undisturbed: RunSettings, data: Path, tmp_path: Path
) -> None:
    stopped = where(tmp_path, "run", data)
    train_here(EXPERIMENT, stopped, Listener(stop_at=24 * 7))
    train_here(EXPERIMENT, replace(stopped, attempt="1"))
    assert_bit_identical(final_tensors(stopped), final_tensors(undisturbed))


def test_workers_that_are_killed_and_others_that_continue_give_the_same_run(
    undisturbed: RunSettings, data: Path, tmp_path: Path
) -> None:
    killed = where(tmp_path, "run", data)
    with pytest.raises(Exception, match=r"SIGKILL|signal"):
        train_on(2, EXPERIMENT, killed, tmp_path / "two", Listener(killed=(1, 3)))
    train_on(3, EXPERIMENT, replace(killed, attempt="1"), tmp_path / "three")
    ours, theirs = final_tensors(killed), final_tensors(undisturbed)
    for name, tensor in theirs.items():
        if tensor.is_floating_point() and name.startswith("averaged/"):
            assert torch.allclose(ours[name], tensor, rtol=1e-4, atol=1e-5), name


def test_the_trained_model_knows_the_conditions_of_its_data(undisturbed: RunSettings) -> None:
    model = load(undisturbed.folder.url)
    assert model.conditions is not None
    assert [part.name for part in model.conditions.parts] == ["digit", "slant", "weight", "width", "height"]
    assert model.sample(3, conditions={"digit": 7, "slant": 0.2}).shape == (3, 1, 28, 28)


def test_a_vae_is_told_conditions_as_well(data: Path, tmp_path: Path) -> None:
    changes = {"model.hidden": (16,), "model.latent": 4, "data.conditional": True, "data.url": "digits-styled"}
    sizes = {"total_images": 240, "batch_size": 24, "microbatch_size": 12, "checkpoint_every": 240}

    experiment = config.overrides(
        find_preset("digits-vae").experiment,
        {**changes, **{f"training.{name}": value for name, value in sizes.items()}, "evaluation.samples": 100}.items(),
    )
    place = where(tmp_path, "vae", data)
    train_here(experiment, place)
    model = load(place.folder.url)
    label = model.labels(5, conditions={"digit": 3})
    samples = model.sample(5, conditions={"digit": 3})
    assert torch.equal(model.reconstruct(samples, label), model.decode(model.encode(samples, label), label))
