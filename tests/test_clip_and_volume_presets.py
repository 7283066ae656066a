"""The presets of clips and volumes on their own data: bit for bit when resumed, equal on two workers, with figures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imagegen_dist import config
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.experiment import Experiment
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from tests.runs import Listener, assert_bit_identical, final_tensors, settings, train_here, train_on

SIZES = {
    "training.batch_size": 8,
    "training.microbatch_size": 4,
    "training.total_images": 32,
    "training.report_every": 8,
    "training.listen_every": 8,
    "training.sample_every": 32,
    "training.checkpoint_every": 16,
    "evaluation.samples": 0,
}
NARROW = {
    "moving-digits-gan": {"model.widths": (8,), "model.mapping_units": 8, "model.head_units": 8},
    "moving-digits-vae": {"model.channels": (4, 8), "model.units": (16,)},
    "solids-gan": {"model.widths": (16, 8, 8)},
    "solids-vae": {"model.channels": (4, 8, 8), "model.hidden": (16,)},
}


def experiment(preset: str) -> Experiment:
    return config.overrides(find_preset(preset).experiment, {**SIZES, **NARROW[preset]}.items())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def where(storage: Path, preset: str, data: Path) -> RunSettings:
    name = f"{find_preset(preset).experiment.data.url}:240"
    splits = {split: builtin_dataset(name, split, Store(data)).url for split in ("train", "val")}
    return replace(settings(storage, "run", data / "plain"), data=splits["train"], validation=splits["val"])


LEFT_OUT = (pytest.mark.cluster, pytest.mark.full)


# Each takes seconds: those whose networks other tests resume as well are left to `pytest -m "cluster and full"`.
@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(name, marks=[] if name == "moving-digits-gan" else (pytest.mark.cluster, pytest.mark.full))
        for name in NARROW
    ],
)
def test_a_run_that_was_stopped_is_the_undisturbed_one_and_two_workers_see_the_same(
    preset: str, data: Path, tmp_path: Path
) -> None:
    whole, stopped, shared = (where(tmp_path / name, preset, data) for name in ("whole", "stopped", "shared"))
    train_here(experiment(preset), whole)
    train_here(experiment(preset), stopped, Listener(stop_at=16))
    train_here(experiment(preset), replace(stopped, attempt="1"))
    assert_bit_identical(final_tensors(stopped), final_tensors(whole))
    train_on(2, experiment(preset), shared, tmp_path / "meeting")
    ours, theirs = final_tensors(shared), final_tensors(whole)
    for name, tensor in theirs.items():
        if tensor.is_floating_point() and name.startswith("averaged/"):
            assert torch.allclose(ours[name], tensor, rtol=1e-4, atol=1e-5), name
