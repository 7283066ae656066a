"""The same code trains on images, video and voxels, with every family of networks."""

import json
from pathlib import Path

import numpy as np
import pytest

from imagegen_dist import config, load
from imagegen_dist.data.pack import pack
from imagegen_dist.experiment import Experiment
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from tests.runs import Listener, one_step, tiny, train_here

SHAPES = {"image": (3, 16, 16), "video": (3, 4, 16, 16), "voxels": (1, 8, 8, 8)}
MODELS = {
    "r3gan": {"kind": "r3gan", "widths": [16, 8], "group_channels": 8, "resample": "fir", "z_dim": 8},
    "dcgan": {"kind": "dcgan", "widths": [16, 8], "z_dim": 8},
    "mlp": {"kind": "mlp", "hidden": [16], "z_dim": 8},
}


WHOLE_RUNS = [("r3gan", "video", 2), ("dcgan", "voxels", None), ("mlp", "image", None)]


PICTURES = {
    "image": {"grid": "png"},
    "video": {"grid": "webp", "strip": "png"},
    "voxels": {"grid": "png", "turntable": "webp", "slices": "png"},
}
"""What a run writes of generated samples, by modality."""


def dataset(folder: Path, modality: str, classes: int | None) -> Store:
    """Forty samples of noise in shards."""
    noise = np.random.default_rng(0).integers(0, 256, (40, *SHAPES[modality]), dtype=np.uint8)
    extension = "png" if modality == "image" else "npy"
    labelled = ((sample, None if classes is None else number % classes) for number, sample in enumerate(noise))
    pack(labelled, Store(folder), modality, extension, classes=classes)
    return Store(folder)


def experiment(model: str) -> Experiment:
    return tiny(model=MODELS[model], training__total_images=48)


@pytest.mark.parametrize(("model", "modality", "classes"), WHOLE_RUNS)
def test_two_steps_a_checkpoint_a_picture_and_samples(
    model: str, modality: str, classes: int | None, tmp_path: Path
) -> None:
    data = dataset(tmp_path / "data", modality, classes)
    where = RunSettings("run", str(tmp_path), "digits", "train_gan", data.url, wandb_mode="disabled")
    assert train_here(experiment(model), where, Listener()).complete
    trained = load(where.folder.url)
    assert trained.sample(3, seed=1).shape == (3, *SHAPES[modality])
    assert trained.classes == (classes or 0)
    written = {f"{name}-000000000048.{kind}" for name, kind in PICTURES[modality].items()}
    assert written <= set((where.folder / "samples").names())
    assert {name for name, path in json.loads(where.folder.read("result.json"))["paths"].items() if path} >= {
        name for name in PICTURES[modality] if name != "grid"
    }


@pytest.mark.parametrize("classes", [None, 2], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("modality", SHAPES)
@pytest.mark.parametrize("model", MODELS)
def test_a_step_of_every_family_on_every_modality(model: str, modality: str, classes: int | None) -> None:
    changed = config.overrides(experiment(model), {"data.conditional": classes is not None}.items())
    trainer = one_step(changed, modality, SHAPES[modality], classes)
    assert trainer.skipped_steps == 0
    assert trainer.means()["loss/generator"] > 0
