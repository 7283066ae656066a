"""Runs of every VAE objective: what is promised of a GAN's run holds for them, by the same loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing import ProcessExitedException

from imagegen_dist import config, load
from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.data.pack import pack
from imagegen_dist.data.stream import read_samples
from imagegen_dist.experiment import Experiment, build_networks, build_objective
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import newest_images
from tests.runs import (
    TINY,
    Listener,
    assert_bit_identical,
    final_tensors,
    noise,
    one_step,
    settings,
    train_here,
    train_on,
)

OBJECTIVES: dict[str, dict[str, Any]] = {
    "vae": {"objective.beta": 2.0, "objective.warmup_images": 240},
    "free-bits": {"objective.free_bits": 0.2},
    "capacity": {"objective.capacity": 3.0, "objective.capacity_images": 240},
    "beta-tcvae": {"objective.decomposition": "mss", "objective.beta": 3.0},
    "gaussian": {"objective.likelihood": "gaussian"},
    "logistic": {"objective.likelihood": "logistic"},
    "fsq": {"objective.latent": "fsq", "objective.levels": (5, 5, 5), "model.latent": 3},
    "iwae": {"objective": {"kind": "iwae", "samples": 3, "gradient": "dreg", "binarize": "dynamic"}},
    "factor-vae": {
        "objective": {"kind": "factorvae", "discriminator_hidden": [32, 32]},
        "optim": {"kind": "factorvaeoptim"},
    },
    "ladder": {
        "model": {"kind": "laddervae", "channels": [], "latents": [], "units": [24, 12], "vectors": [3, 1]},
        "objective": {"kind": "hierarchicalvae", "warmup_images": 240, "binarize": "dynamic"},
    },
    "vae-gan": {
        "objective": {
            "kind": "vaegan",
            "perceptual": "random",
            "perceptual_weight": 0.1,
            "beta": 0.1,
            "adversarial_from_images": 24 * 6,  # below the 7 steps before the stop, above the 5 of a checkpoint
            "discriminator_channels": 4,
            "discriminator_layers": 1,
        },
        "optim": {"kind": "vaeganoptim"},
    },
}


def small_vae(objective: str, **changes: Any) -> dict[str, Any]:
    """What makes the digits-vae preset one of small networks and 20 steps, by dotted path."""
    small = {path: value for path, value in TINY.items() if not path.startswith("model.")}
    changed = small | {"optim.autoencoder.lr": 3e-3} | OBJECTIVES[objective]
    if "model" not in changed:
        changed = {"model.hidden": (24,), "model.latent": 4, **changed}
    return changed | {path.replace("__", "."): value for path, value in changes.items()}


def tiny(objective: str, **changes: Any) -> Experiment:
    """The digits-vae preset so changed."""
    return config.overrides(find_preset("digits-vae").experiment, small_vae(objective, **changes).items())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "digits"


def place(folder: Path, name: str, data: Path) -> RunSettings:
    return replace(settings(folder, name, data), preset="digits-vae", job="train_vae")


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunSettings]:
    """An objective's whole run in one process."""

    @cache
    def trained(objective: str) -> RunSettings:
        where = place(tmp_path_factory.mktemp("whole"), "whole", data)
        train_here(tiny(objective), where)
        return where

    return trained


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_stopped_and_resumed_is_bit_identical(
    objective: str, undisturbed: Callable[[str], RunSettings], data: Path, tmp_path: Path
) -> None:
    parts = place(tmp_path, "parts", data)
    train_here(tiny(objective, training__total_images=24 * 7), parts)
    train_here(tiny(objective), parts)
    assert_bit_identical(final_tensors(parts), final_tensors(undisturbed(objective)))


@pytest.mark.parametrize("objective", ["ladder", "factor-vae"])
def test_a_killed_process_and_a_new_start_change_no_bit(
    objective: str, undisturbed: Callable[[str], RunSettings], data: Path, tmp_path: Path
) -> None:
    killed = place(tmp_path, "killed", data)
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        train_on(1, tiny(objective), killed, tmp_path / "meeting", Listener(killed=(0, 4)))
    assert 0 < newest_images(killed.folder) < 480
    train_here(tiny(objective), replace(killed, attempt="1"))
    assert_bit_identical(final_tensors(killed), final_tensors(undisturbed(objective)))


def test_a_killed_rank_of_two_and_a_new_start_change_no_bit(data: Path, tmp_path: Path) -> None:
    whole, killed = place(tmp_path, "whole", data), place(tmp_path, "killed", data)
    train_on(2, tiny("vae-gan"), whole, tmp_path / "a")
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        train_on(2, tiny("vae-gan"), killed, tmp_path / "b", Listener(killed=(1, 4)))
    assert 0 < newest_images(killed.folder) < newest_images(whole.folder)
    train_on(2, tiny("vae-gan"), replace(killed, attempt="1"), tmp_path / "c")
    assert_bit_identical(final_tensors(killed), final_tensors(whole))


@pytest.mark.parametrize("objective", ["vae", "iwae"])
def test_two_workers_give_the_same_run(
    objective: str, undisturbed: Callable[[str], RunSettings], data: Path, tmp_path: Path
) -> None:
    two = place(tmp_path, "two", data)
    train_on(2, tiny(objective), two, tmp_path / "meeting")
    theirs = final_tensors(two)
    for name, tensor in final_tensors(undisturbed(objective)).items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_lowers_the_loss_and_is_logged_in_nats(
    objective: str, undisturbed: Callable[[str], RunSettings]
) -> None:
    rows = read_rows(undisturbed(objective).folder)
    assert rows[-1]["vae/distortion"] < rows[0]["vae/distortion"]
    for row in rows:
        assert row["vae/elbo"] == pytest.approx(-row["vae/distortion"] - row["vae/rate"], rel=1e-5)
        latents = 3 if objective == "fsq" else 4
        assert row["vae/beta_normalized"] == pytest.approx(row["vae/beta"] * latents / 784, rel=1e-5)


def test_figures_pictures_and_a_model_to_use(data: Path, tmp_path: Path) -> None:
    where = place(tmp_path, "run", data)
    figured = {"evaluation__samples": 120, "evaluation__classifier_images": 640, "evaluation__importance_samples": 5}
    train_here(tiny("vae", **figured), where)
    result = json.loads(where.folder.read("result.json"))
    assert result["elbo"] == pytest.approx(-result["rate"] - result["distortion"])
    assert result["elbo"] < result["log_likelihood"] < 0
    taken = {"psnr", "ssim", "active_units", "frechet", "frechet_reconstruction", "frechet_real"}
    assert taken | {"reconstruction_agreement", "classifier_accuracy"} < set(result)
    assert list(result["rate_of_latent"]) == ["000", "001", "002", "003"]
    assert sum(result["rate_of_latent"].values()) == pytest.approx(result["rate"])
    assert "bits_per_dim" not in result  # grey values as probabilities are no code
    names = (where.folder / "samples").names()
    assert {f"{name}-000000000480.png" for name in ("reconstructions", "samples", "traversals")} < set(names)
    page = where.folder.read("report.html").decode()
    assert all(caption in page for caption in ("Samples of the prior", "One row per latent"))

    model = load(where.folder.url)
    index = DatasetIndex.load(Store(where.validation))
    held_out, _ = read_samples(index, Store(where.validation), range(8))
    z = model.encode(held_out)
    assert z.shape == (8, 4)
    assert torch.equal(model.reconstruct(held_out), model.decode(z))
    assert model.decode(z).dtype == torch.uint8
    assert model.sample(5, seed=3).shape == (5, 1, 28, 28)
    assert torch.equal(model.sample(5, seed=3)[:2], model.sample(2, seed=3))


def test_a_ladders_figures_pictures_and_a_model_to_use(data: Path, tmp_path: Path) -> None:
    where = place(tmp_path, "run", data)
    figured = {"evaluation__samples": 60, "evaluation__classifier_images": 640, "evaluation__importance_samples": 5}
    train_here(tiny("ladder", **figured), where)
    result = json.loads(where.folder.read("result.json"))
    assert result["rate"] == pytest.approx(result["rate_level_0"] + result["rate_level_1"])
    assert result["rate_level_0"] == pytest.approx(result["rate_of_latent"]["000"])
    assert len(result["rate_of_latent"]) == 1 + 3
    assert result["bits_per_dim"] == pytest.approx(-result["log_likelihood"] / (28 * 28 * np.log(2)))
    assert result["elbo"] < result["log_likelihood"] < 0
    assert {"active_units", "frechet", "frechet_reconstruction"} < set(result)
    assert "traversals-000000000480.png" in (where.folder / "samples").names()
    model = load(where.folder.url)
    index = DatasetIndex.load(Store(where.validation))
    held_out = read_samples(index, Store(where.validation), range(8))[0]
    z = model.encode(held_out)
    assert z.shape == (8, 1 + 3)
    assert torch.equal(model.reconstruct(held_out), model.decode(z))
    assert model.decode(z[:, :1]).shape == held_out.shape
    assert torch.equal(model.sample(5, seed=3)[:2], model.sample(2, seed=3))


def test_a_vae_gan_has_figures_a_model_and_no_feature_network_in_its_checkpoint(data: Path, tmp_path: Path) -> None:
    where = place(tmp_path, "run", data)
    figured = {"evaluation__samples": 60, "evaluation__classifier_images": 640, "training__total_images": 24 * 8}
    train_here(tiny("vae-gan", **figured), where)
    result = json.loads(where.folder.read("result.json"))
    assert {"rate", "distortion", "psnr", "ssim", "frechet", "frechet_reconstruction"} < set(result)
    assert (where.folder / "samples").exists("traversals-000000000192.png")
    kept = {name.split("/")[1] for name in final_tensors(where) if not name.startswith("optimizers/")}
    assert kept == {"encoder", "decoder", "discriminator"}
    losses = [row["loss/discriminator"] for row in read_rows(where.folder) if "loss/discriminator" in row]
    assert losses[0] == 0 != losses[-1]

    model = load(where.folder.url)
    held_out, _ = read_samples(DatasetIndex.load(Store(where.validation)), Store(where.validation), range(4))
    z = model.encode(held_out)
    assert z.shape == (4, 4)
    assert torch.equal(model.reconstruct(held_out), model.decode(z))
    assert model.sample(3, seed=1).shape == (3, 1, 28, 28)


def test_two_ranks_take_the_figures_of_one(data: Path, tmp_path: Path) -> None:
    figured = {"evaluation__samples": 170, "evaluation__classifier_images": 640, "training__total_images": 24}
    one, two = place(tmp_path, "one", data), place(tmp_path, "two", data)
    train_here(tiny("vae", **figured), one)
    train_on(2, tiny("vae", **figured), two, tmp_path / "meeting")
    ours, theirs = (json.loads(where.folder.read("result.json")) for where in (one, two))
    for name in ("rate", "distortion", "elbo", "psnr", "active_units", "frechet"):
        assert theirs[name] == pytest.approx(ours[name], rel=1e-4), name


SHAPES = {"image": (3, 16, 16), "video": (3, 4, 16, 16), "voxels": (1, 8, 8, 8)}
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlpvae", "hidden": [16], "latent": 4},
    "conv": {"kind": "convvae", "channels": [8, 8], "kernels": [4], "hidden": [16], "latent": 4},
    "res": {"kind": "resvae", "channels": 8, "multipliers": [1, 1], "blocks": 1, "latent_channels": 4},
    "ladder": {"kind": "laddervae", "channels": [8, 8], "latents": [0, 2], "units": [16], "vectors": [4]},
}


def family(model: str, conditional: bool) -> Experiment:
    """The digits-vae preset with networks of any modality."""
    return config.overrides(
        find_preset("digits-vae").experiment,
        {
            **{path: value for path, value in TINY.items() if not path.startswith("model.")},
            "model": MODELS[model],
            **({"objective": "hierarchicalvae"} if model == "ladder" else {}),
            "data.conditional": conditional,
            "training.total_images": 48,
        }.items(),
    )


@pytest.mark.parametrize(
    ("model", "modality", "conditional"),
    [("conv", "video", True), ("res", "image", False), ("ladder", "voxels", True), ("mlp", "voxels", False)],
)
def test_every_family_trains_on_another_modality(model: str, modality: str, conditional: bool, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, *SHAPES[modality]), dtype=np.uint8)
    extension = "png" if modality == "image" else "npy"
    pack(((x, number % 2) for number, x in enumerate(noise)), Store(tmp_path / "data"), modality, extension)
    where = RunSettings("run", str(tmp_path), "x", "train_vae", str(tmp_path / "data"), wandb_mode="disabled")
    assert train_here(family(model, conditional), where).complete
    trained = load(where.folder.url)
    assert trained.sample(3, seed=1).shape == (3, *SHAPES[modality])
    assert trained.classes == (2 if conditional else 0)


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("modality", SHAPES)
@pytest.mark.parametrize("model", MODELS)
def test_a_step_of_every_family_on_every_modality(model: str, modality: str, conditional: bool) -> None:
    trainer = one_step(family(model, conditional), modality, SHAPES[modality], 2)
    assert trainer.skipped_steps == 0
    assert trainer.means()["vae/distortion"] > 0


@pytest.mark.parametrize("modality", SHAPES)
def test_a_vae_gan_takes_steps_on_every_modality(modality: str) -> None:
    experiment = tiny("vae-gan", objective__adversarial_from_images=0, model=MODELS["conv"], data__conditional=True)
    trainer = one_step(experiment, modality, SHAPES[modality], 2)
    assert trainer.skipped_steps == 0
    assert trainer.means()["vae/perceptual"] > 0


_FRAMES = {"norm_over": "frames", "attention_over": "frames"}
ON_CLIPS: dict[str, dict[str, Any]] = {
    "fsq": {"model": {**MODELS["res"], "latent_channels": 3}, **OBJECTIVES["fsq"]},
    "beta-tcvae": {"model": MODELS["conv"], **OBJECTIVES["beta-tcvae"]},
    "ladder": {"model": MODELS["ladder"], "objective": {"kind": "hierarchicalvae"}},
    "vae-gan": {**OBJECTIVES["vae-gan"], "model": MODELS["conv"]},
    "causal": {
        "model": {**MODELS["res"], "strides": ["1x2x2"], "convolutions": "factorised", "causal": True, **_FRAMES},
        "training.recompute_from": 1,
    },
}


@pytest.mark.parametrize("modality", ["video", "voxels"])
@pytest.mark.parametrize("objective", ON_CLIPS)
def test_a_few_steps_lower_the_distortion_of_clips_and_volumes(objective: str, modality: str) -> None:
    small = {path: value for path, value in TINY.items() if not path.startswith("model.")}
    changes = {"data.conditional": False, "optim.autoencoder.lr": 3e-3, **ON_CLIPS[objective]}
    changes = {path: value for path, value in changes.items() if path != "model.latent"}
    experiment = config.overrides(find_preset("digits-vae").experiment, {**small, **changes}.items())
    trainer, item = noise(experiment, modality, SHAPES[modality], None)
    item = replace(item, sample=(item.sample > 200).to(torch.uint8) * 60)  # mostly dark
    distortions = []
    for _ in range(4):
        trainer.step(item)
        distortions.append(trainer.means()["vae/distortion"])
    assert trainer.skipped_steps == 0
    assert distortions[-1] < distortions[0]


@pytest.mark.parametrize("modality", ["video", "voxels"])
def test_lpips_is_refused_on_what_is_no_image(modality: str) -> None:
    changes = {"objective.perceptual": "lpips", "model": MODELS["conv"]}
    experiment = config.overrides(find_preset("vae-gan").experiment, changes.items())
    shape = SampleShape(SHAPES[modality][0], SHAPES[modality][1:])
    index = DatasetIndex(modality, shape, (ShardInfo("0.tar", 1, 40, 0, "0" * 64),))
    with pytest.raises(ValueError, match="LPIPS compares images of 1 or 3 channels"):
        build_objective(experiment, build_networks(experiment, shape, None), index)


def test_factors_in_the_records_give_disentanglement_scores(tmp_path: Path) -> None:
    """Bars whose place and brightness are the factors."""
    random = np.random.default_rng(0)

    def bars(count: int) -> Any:
        for _ in range(count):
            row, level = int(random.integers(8)), int(random.integers(4))
            picture = np.zeros((1, 8, 8), np.uint8)
            picture[:, row] = 60 + 60 * level
            yield picture, {"factors": {"row": row, "level": level, "constant": 0}}

    pack(bars(600), Store(tmp_path / "data"))
    where = RunSettings("run", str(tmp_path), "x", "train_vae", str(tmp_path / "data"), wandb_mode="disabled")
    train_here(tiny("vae", training__total_images=24 * 3, evaluation__samples=600), where)
    result = json.loads(where.folder.read("result.json"))
    assert {"mig", "factor_vae", "beta_vae", "sap", "dci_disentanglement"} < set(result)
    assert 0 <= result["mig"] <= 1
    assert "frechet" not in result
